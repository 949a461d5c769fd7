//go:build linux

package disk

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// SnapshotUsage asks a snapshotter what a layer takes. It tells ErrGone
// (wrapped) of one that is gone.
type SnapshotUsage func(ctx context.Context, namespace string, layer runtime.Layer) (Usage, error)

// SnapshotMeter measures layers that are no folder of their own, by what their
// snapshotter says: native, blockfile, devmapper, btrfs, zfs. Where the snapshotter
// copies the image (native, blockfile), the copy is counted: it is on the disk for this
// container's sake and goes with it. It tells no files.
//
// The cost is containerd's: for native a walk over the image and all that was
// written, for a block snapshotter next to nothing.
type SnapshotMeter struct {
	hostRoot string
	usage    SnapshotUsage
	watchdog *watchdog
}

// sourcePatience is how long a file system may take to tell how full it is.
const sourcePatience = 10 * time.Second

// NewSnapshotMeter makes one; hostRoot is where the host's root folder is mounted.
func NewSnapshotMeter(hostRoot string, usage SnapshotUsage) *SnapshotMeter {
	return &SnapshotMeter{hostRoot: hostRoot, usage: usage, watchdog: newWatchdog(sourcePatience)}
}

// Method implements Meter.
func (*SnapshotMeter) Method() string { return "snapshotter" }

// Measure implements Meter.
func (s *SnapshotMeter) Measure(ctx context.Context, t Target) (Look, error) {
	look := Look{Started: time.Now(), Method: s.Method()}
	var err error
	if look.Usage, err = s.usage(ctx, t.Namespace, t.Layer); err != nil {
		return Look{}, err
	}
	if t.Layer.Source != "" {
		if look.Filesystem, look.Device, err = s.filesystemOf(ctx, t.Layer.Source); err != nil {
			return Look{}, fmt.Errorf("cannot ask the file system of layer %s: %w", t.Layer.Key, err)
		}
	}
	look.Took = time.Since(look.Started)
	return look, nil
}

// filesystemOf does not wait for ever.
func (s *SnapshotMeter) filesystemOf(ctx context.Context, source string) (FilesystemUsage, uint64, error) {
	var usage FilesystemUsage
	var device uint64
	var err error
	if hung := s.watchdog.do(ctx, []string{"the file system of " + source}, func() { usage, device, err = filesystemOf(s.hostRoot, source) }); hung != nil {
		return FilesystemUsage{}, 0, hung
	}
	return usage, device, err
}

// filesystemOf asks the file system of a folder or file of the host, which is
// not opened: it may be a device.
func filesystemOf(hostRoot, path string) (FilesystemUsage, uint64, error) {
	host, err := unix.Open(filepath.Clean(hostRoot), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return FilesystemUsage{}, 0, err
	}
	defer func() { _ = unix.Close(host) }()
	fd, err := unix.Openat2(host, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if vanished(err) {
		return FilesystemUsage{}, 0, ErrGone
	}
	if err != nil {
		return FilesystemUsage{}, 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return FilesystemUsage{}, 0, err
	}
	usage, err := fstatfs(fd)
	return usage, st.Dev, err
}
