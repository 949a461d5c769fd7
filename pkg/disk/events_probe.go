//go:build linux

package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Support tells whether a way of measuring works, and why or why not, in one
// sentence for a person.
type Support struct {
	OK  bool
	Why string
}

// ProbeEvents tries whether the events way works for layers below folder (as
// the host sees it, e.g. /var/lib/containerd): it marks the file system, and
// opens the folder by its handle. Nothing is written. That an overlay passes
// its writes on as events cannot be seen without making one, so there the
// kernel's version is believed: 6.5 is the first (commit "ovl: enable fsnotify
// events on underlying real files").
func ProbeEvents(hostRoot, folder string) Support {
	major, minor, version, err := release()
	if err != nil {
		return Support{Why: err.Error()}
	}
	if major < 6 || (major == 6 && minor < 5) {
		return Support{Why: fmt.Sprintf("kernel %s raises no events for writes through an overlay; 6.5 does", version)}
	}
	if err := probeEvents(hostRoot, folder); err != nil {
		return Support{Why: err.Error()}
	}
	return Support{OK: true, Why: fmt.Sprintf("kernel %s tells which files below %s are written", version, folder)}
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
	return unix.Close(again)
}

func missingCapability(err error, name string) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: needs the capability %s", err, name)
	}
	return err
}
