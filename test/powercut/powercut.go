// Package powercut shows what a disk holds when the power goes: what was synced
// and what the file system's journal says of it, and not what only the kernel's
// memory has.
package powercut

import (
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is an ext4 file system that writes nothing by itself for five minutes.
type Disk struct {
	Path  string // where it is mounted
	image string
}

// NewDisk makes one, which ends with the test. It needs root.
func NewDisk(t testing.TB) *Disk {
	t.Helper()
	d := &Disk{image: filepath.Join(t.TempDir(), "image")}
	run(t, "truncate", "-s", "64M", d.image)
	run(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.image)
	d.Path = mount(t, d.image, "loop,commit=300")
	return d
}

// Cut returns where the disk can be read as it would be after a power cut now.
func (d *Disk) Cut(t testing.TB) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "image")
	run(t, "cp", "--sparse=always", d.image, copied)
	return mount(t, copied, "loop")
}

func mount(t testing.TB, image, options string) string {
	t.Helper()
	path := t.TempDir()
	run(t, "mount", "-o", options, image, path)
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
