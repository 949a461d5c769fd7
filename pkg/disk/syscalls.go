//go:build linux

package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const openFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NOATIME

// statFlags: what is looked at is never followed and never mounted.
const statFlags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT

// vanished tells whether an entry is no longer what it was when its name was
// read. That is normal in a folder that someone works in.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE)
}

// openLayer opens the upper folder of a layer below hostRoot. Links on the
// way to it (/var/lib/containerd is one on some hosts) lead where they lead
// on the host, not in this container.
func openLayer(hostRoot, upper string) (int, error) {
	if !filepath.IsAbs(upper) {
		return -1, fmt.Errorf("upper folder %q is no absolute path", upper)
	}
	host, err := unix.Open(filepath.Clean(hostRoot), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open host root %s: %w", hostRoot, err)
	}
	defer func() { _ = unix.Close(host) }()
	how := unix.OpenHow{Flags: openFlags, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(host, upper, &how)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // before 5.6, or seccomp
		fd, err = unix.Open(filepath.Join(hostRoot, upper), openFlags&^unix.O_NOATIME, 0)
	}
	if vanished(err) {
		return -1, ErrGone
	}
	return fd, err
}

// openFolder opens a folder by its name, which ends with a NUL.
func openFolder(dir int, name []byte) (int, error) {
	flags := openFlags
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir),
			uintptr(unsafe.Pointer(&name[0])), uintptr(flags), 0, 0, 0)
		switch {
		case errno == 0:
			return int(fd), nil
		case errno == unix.EPERM && flags&unix.O_NOATIME != 0:
			flags &^= unix.O_NOATIME // only the owner or CAP_FOWNER may
		case errno != unix.EINTR:
			return -1, errno
		}
	}
}

// openBelow opens a folder below an open one, for its files' stats alone.
// Nothing leads out of it: no link is followed and no mount crossed.
func openBelow(dir int, path string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	path = strings.TrimPrefix(path, "/")
	if path == "" {
		path = "."
	}
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags: flags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return fd, err
	}
	fd = dir // before 5.6, or seccomp: name by name
	for name := range strings.SplitSeq(path, "/") {
		next, err := unix.Openat(fd, name, flags, 0)
		if fd != dir {
			_ = unix.Close(fd)
		}
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// statAt takes the stat of a name, which ends with a NUL, without a copy.
func statAt(dir int, name []byte, st *unix.Stat_t) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(dir),
			uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(st)), statFlags, 0, 0)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// madeAt is when a file was made, in ns since 1970; 0 where it is gone, or
// neither kernel (before 4.11) nor file system can tell.
func madeAt(dir int, name []byte) int64 {
	var st unix.Statx_t
	err := unix.Statx(dir, string(name[:len(name)-1]), statFlags|unix.AT_STATX_DONT_SYNC, unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*int64(time.Second) + int64(st.Btime.Nsec)
}

func getdents(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Getdents(fd, buf)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func fstatfs(fd int) (FilesystemUsage, error) {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(fd, &st)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return FilesystemUsage{}, fmt.Errorf("cannot ask file system: %w", err)
		}
	}
	block := st.Frsize
	return FilesystemUsage{
		Size:       int64(st.Blocks) * block,
		Used:       int64(st.Blocks-st.Bfree) * block,
		Avail:      int64(st.Bavail) * block,
		Inodes:     int64(st.Files),
		InodesUsed: int64(st.Files - st.Ffree),
		InodesFree: int64(st.Ffree),
		Memory:     st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC || st.Type == unix.HUGETLBFS_MAGIC,
	}, nil
}
