//go:build linux

package disk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// TestOutOfInodes: a real ext4 with few inodes, and a container that makes empty
// files on it. Bytes do not run out; the file system, the verdict and the metric
// tell of inodes, and when none is left but the reserve, that too.
func TestOutOfInodes(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	must(t, os.Mkdir(mount, 0o755))
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 512<<20))
	run(t, "mkfs.ext4", "-q", "-F", "-N", "8192", image)
	run(t, "mount", "-o", "loop", image, mount)
	t.Cleanup(func() { run(t, "umount", mount) })
	upper := filepath.Join(mount, "upper")
	must(t, os.Mkdir(upper, 0o755))

	c := container("web-0", "u-1", "app", "1")
	c.Layer = runtime.Layer{Snapshotter: "overlayfs", Key: "1", Upper: upper}
	all := []runtime.Container{c}
	policy := DefaultPolicy()
	policy.MinInodes, policy.Sustain, policy.Startup = 100, time.Second, 0
	registry := prometheus.NewRegistry()
	w, err := NewWatcher(Options{
		Containers: func() []runtime.Container { return all }, Meter: NewWalker("/"), Policy: policy, Interval: 100 * time.Millisecond, Share: 1,
		Registerer: registry,
	})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		must(t, <-ended)
	})
	grown, past := false, false
	var looked time.Time
	deadline := time.Now().Add(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 0; !past; i++ {
		if time.Now().After(deadline) {
			t.Fatalf("growth was told: %t, the end was not: %+v, %+v", grown, w.Filesystems(), w.Verdicts())
		}
		<-tick.C
		for _, fs := range w.Filesystems() {
			for _, v := range w.Verdicts() {
				// Until it is told it goes on: so many files for each look, of which
				// there may be few on a busy machine.
				if grown || v.At.After(looked) {
					looked = v.At
					for j := range 50 {
						if err := os.WriteFile(filepath.Join(upper, fmt.Sprint(i, "-", j)), nil, 0o600); err != nil {
							break // none is left
						}
					}
				}
				grown = grown || v.Offender && v.Resource == Inodes && v.InodeRate.Expected > 0 && fs.InodesFull < policy.Horizon && fs.InodesFull < fs.Full
				past = grown && fs.Usage.InodesFree < fs.InodeReserve
			}
			if fs.Usage.Inodes != 8192 || fs.InodeReserve != 8192*5/100 {
				t.Fatalf("%d inodes, %d in reserve; want 8192 and 409", fs.Usage.Inodes, fs.InodeReserve)
			}
		}
	}
	full := gather(t, registry)["nodeagent_container_disk_full_seconds"]
	if len(full) != 1 || !slices.ContainsFunc(full[0].GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == "resource" && l.GetValue() == "inodes" }) {
		t.Errorf("the metric of when it is full does not name inodes: %v", full)
	}
}
