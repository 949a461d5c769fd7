//go:build linux

package disk

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxMountTable bounds what the mounts of one container can make a scan cost.
const maxMountTable = 16 << 20

// onDisk tells on which mount a descriptor is, and whether a file there may be
// one that counts: on a file system that the container's own places are on, or
// in an overlay. It asks proc alone: the mount's number stands in fdinfo
// (proc_pid_fdinfo(5)), the rest in the mount table of the process. So a file
// system that hangs is not met, whatever a container opens there. What has no
// mount in the table (a memfd, a pipe) is on no disk.
func (s *openScan) onDisk(h int, pid, name string) (mount, bool) {
	id, ok := s.mountID(pid, name)
	if !ok {
		return mount{}, false
	}
	m, known := s.mounts[id]
	for _, of := range [...]string{pid, "1"} { // the host's: a descriptor that was handed in
		if known {
			break
		}
		s.addMounts(of)
		m, known = s.mounts[id]
	}
	switch {
	case !known:
		return m, false
	case m.kind == "overlay":
		return m, true
	case m.kind == "btrfs" || m.kind == "bcachefs": // a subvolume has a device that no mount has
		return m, true
	}
	return m, slices.Contains(s.holders[h].Devices, m.device)
}

// mountID reads the number of a descriptor's mount.
func (s *openScan) mountID(pid, name string) (int, bool) {
	fd, err := unix.Open(filepath.Join(s.proc, pid, "fdinfo", name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.Read(fd, s.text)
	if err != nil {
		return 0, false
	}
	_, rest, found := bytes.Cut(s.text[:n], []byte("mnt_id:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	id, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	return id, found && err == nil
}

// addMounts reads the mount table of a process, once for each mount namespace.
// Numbers of mounts are the kernel's own, so one table does for all.
func (s *openScan) addMounts(pid string) {
	namespace, err := os.Readlink(filepath.Join(s.proc, pid, "ns/mnt"))
	if err != nil || s.namespaces[namespace] {
		return
	}
	s.namespaces[namespace] = true
	f, err := os.Open(filepath.Join(s.proc, pid, "mountinfo"))
	if err != nil {
		return
	}
	defer f.Close()
	all, _ := parseMounts(io.LimitReader(f, maxMountTable)) // without it nothing there counts
	for _, m := range all {
		s.mounts[m.id] = m
	}
}

// stat takes a descriptor's stat. A file system that hangs all the same costs
// this container's figure and no other's.
func (s *openScan) stat(h int, pid, name string, m mount) (unix.Stat_t, error) {
	var st unix.Stat_t
	var err error
	path := filepath.Join(s.proc, pid, "fd", name)
	names := []string{
		fmt.Sprintf("the file system of device %d:%d", unix.Major(m.device), unix.Minor(m.device)),
		"a file system of container " + keyOf(s.holders[h].Container).String(),
	}
	if hung := s.watchdog.do(s.ctx, names, func() { err = unix.Fstatat(unix.AT_FDCWD, path, &st, unix.AT_NO_AUTOMOUNT) }); hung != nil {
		return unix.Stat_t{}, hung
	}
	return st, err
}
