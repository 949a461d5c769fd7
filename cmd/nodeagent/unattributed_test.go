package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnattributed: on a file system that has nothing but a containerd on it,
// what the host writes is nobody's, and what a container writes is its own.
func TestUnattributed(t *testing.T) {
	disk := ownDisk(t)
	t.Setenv("TMPDIR", disk)
	d := newContainerd(t)
	upper := d.addPod(t, "web-01", "web")
	write(t, filepath.Join(upper, "debug.log"), 1<<20)
	a := startAgent(t, d, "--standalone")
	a.awaitReady()

	const slack = 1 << 20 // containerd's log and database, the file system's own blocks
	near := func(got, want float64) bool { return math.Abs(got-want) < slack }
	figures := func(text string) (nobodys, layer float64) {
		nobodys, ok := sample(t, text, `nodeagent_filesystem_unattributed_bytes{filesystem="`+disk+`"}`)
		if !ok {
			t.Fatalf("nothing is told of %s:\n%s", disk, text)
		}
		layer, _ = sample(t, text, webBytes)
		return nobodys, layer
	}
	_, text := a.get("/metrics")
	nobodys, layer := figures(text)
	byHost := filepath.Join(disk, "image.part")
	for _, s := range []struct {
		name        string
		do          func()
		host, layer float64 // MiB more than at first
	}{
		{"the host writes", func() { write(t, byHost, 20<<20) }, 20, 0},
		{"a container writes", func() { write(t, filepath.Join(upper, "more.log"), 30<<20) }, 20, 30},
		{"the host removes it", func() { remove(t, byHost) }, 0, 30},
	} {
		s.do()
		a.await("/metrics", s.name, func(_ int, text string) bool {
			n, l := figures(text)
			return near(n, nobodys+s.host*(1<<20)) && near(l, layer+s.layer*(1<<20))
		})
	}
	a.await("/metrics", fmt.Sprintf("the layer's figure as du says: %v", diskUse(t, upper)), func(_ int, text string) bool {
		_, l := figures(text)
		return l == diskUse(t, upper)
	})
}

// ownDisk is a new ext4 file system in a loop device.
func ownDisk(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: unit tests alone, no daemons")
	}
	image, disk := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, image, 0)
	if err := os.Truncate(image, 1<<30); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, disk}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return disk
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
