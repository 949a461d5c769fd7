// Package binary carries the keeper program within the agent, so that the agent
// stays one file. The Makefile builds it before the agent; a plain `go build`
// in a clean clone embeds nothing and Open says so.
package binary

import (
	"embed"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

//go:embed built
var built embed.FS

// ErrNotBuilt tells that this agent was built without its keeper.
var ErrNotBuilt = errors.New("cannot launch: this nodeagent was built without its keeper program; build it with `make build`, or set a keeper by path")

// File is the keeper program in memory.
type File struct{ f *os.File }

// Open unpacks the keeper into memory: no disk is written and no file system
// has to allow execution. All keepers of one agent share its pages.
func Open() (*File, error) {
	raw, err := built.ReadFile("built/nodeagent-keeper")
	if err != nil {
		return nil, ErrNotBuilt
	}
	fd, err := unix.MemfdCreate("nodeagent-keeper", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all could be executed
		fd, err = unix.MemfdCreate("nodeagent-keeper", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot unpack the keeper into memory: %w", err)
	}
	// A number that no descriptor of a keeper takes: the path is resolved when
	// those are in place already.
	const high = 500
	moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, high)
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return nil, fmt.Errorf("cannot unpack the keeper into memory: %w", err)
	}
	fd = moved
	f := os.NewFile(uintptr(fd), "nodeagent-keeper")
	if _, err := f.Write(raw); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot unpack the keeper into memory: %w", err), f.Close())
	}
	// A sealed file cannot be changed through /proc by what it runs as.
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot seal the keeper: %w", err), f.Close())
	}
	return &File{f}, nil
}

// Path executes the keeper, in this process and its children, until Close.
func (b *File) Path() string { return fmt.Sprintf("/proc/self/fd/%d", b.f.Fd()) }

// Close gives the memory back once no keeper runs.
func (b *File) Close() error { return b.f.Close() }
