//go:build linux

package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/osthread"
)

// Support tells whether a way of measuring works, and why or why not, in one
// sentence for a person.
type Support struct {
	OK  bool
	Why string
}

// errSilent: an overlay was used and nothing told of it.
var errSilent = errors.New("what is done through an overlay raises no events (Linux 6.5 is the first whose overlay does)")

// ProbeEvents tries whether the events way works for layers below folder (as
// the host sees it, e.g. /var/lib/containerd): it marks the file system, opens
// the folder by its handle, and looks whether an overlay passes on what is done
// through it. No version is believed. Nothing is written outside of memory.
func ProbeEvents(hostRoot, folder string) Support {
	if err := probeEvents(hostRoot, folder); err != nil {
		return Support{Why: err.Error()}
	}
	return Support{OK: true, Why: fmt.Sprintf("the kernel tells which files below %s are written", folder)}
}

func probeEvents(hostRoot, folder string) error {
	g, err := newFanGroup()
	if err != nil {
		return missingCapability(err, "SYS_ADMIN")
	}
	defer func() { _ = g.close() }()
	fd, err := openLayer(hostRoot, folder)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", folder, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := g.follow(fd); err != nil {
		return missingCapability(err, "SYS_ADMIN")
	}
	id, err := fsidOf(fd)
	if err != nil {
		return err
	}
	var h fileHandle
	if err := handleOf(fd, []byte{0}, &h); err != nil {
		return fmt.Errorf("file system of %s has no file handles: %w", folder, err)
	}
	again, err := openKey(fd, h.key(id), &h)
	if err != nil {
		return missingCapability(fmt.Errorf("cannot open by handle: %w", err), "DAC_READ_SEARCH")
	}
	defer func() { _ = unix.Close(again) }()
	// In a container the program itself lies on an overlay, and to read a byte
	// of it is enough: no right to mount is needed, which AppArmor takes away.
	if self, err := os.Executable(); err == nil && overlayTells(fd, self) == nil {
		return nil
	}
	return tryOverlay()
}

// overlayTells reads a byte of a file on an overlay, and tells whether the file
// system of the open folder below it raised an event.
func overlayTells(folder int, file string) error {
	g, err := newFanGroup()
	if err != nil {
		return err
	}
	defer func() { _ = g.close() }()
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("%s is on no overlay", file)
	}
	if err := unix.FanotifyMark(g.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_ACCESS, folder, ""); err != nil {
		return err
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
		return err
	}
	told := false
	err = g.read(func(e event) { told = told || string(e.name) == filepath.Base(file) })
	if err == nil && !told {
		err = errSilent
	}
	return err
}

// tryOverlay makes an overlay in memory that nobody else sees, and tells whether
// reading through it raises events.
func tryOverlay() error {
	return osthread.Run(tryOverlayOnThread)
}

// tryOverlayOnThread gives the thread a mount namespace of its own.
func tryOverlayOnThread() error {
	const point = "/proc" // any folder that is there
	why := func(err error) error {
		return fmt.Errorf("cannot try whether an overlay raises events: %w", missingCapability(err, "SYS_ADMIN"))
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return why(os.NewSyscallError("unshare", err))
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return why(os.NewSyscallError("mount", err))
	}
	if err := unix.Mount("tmpfs", point, "tmpfs", 0, "size=1m"); err != nil {
		return why(os.NewSyscallError("mount", err))
	}
	for _, dir := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(point, dir), 0o700); err != nil {
			return why(err)
		}
	}
	if err := os.WriteFile(filepath.Join(point, "lower/file"), []byte("x"), 0o600); err != nil {
		return why(err)
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", point)
	if err := unix.Mount("overlay", filepath.Join(point, "merged"), "overlay", 0, options); err != nil {
		return why(os.NewSyscallError("mount", err))
	}
	fd, err := unix.Open(point, openFlags, 0)
	if err != nil {
		return why(err)
	}
	defer func() { _ = unix.Close(fd) }()
	err = overlayTells(fd, filepath.Join(point, "merged/file"))
	if err != nil && !errors.Is(err, errSilent) {
		err = why(err)
	}
	return err
}

func missingCapability(err error, name string) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: needs the capability %s", err, name)
	}
	return err
}
