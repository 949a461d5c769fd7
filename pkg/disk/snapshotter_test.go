//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// TestSnapshotterContract holds what a real containerd's native snapshotter
// tells to the contract: its layers are folders, so that du can look at them too.
// Layers that are devices are in cmd/nodeagent's TestSnapshotters.
func TestSnapshotterContract(t *testing.T) {
	c, meter := snapshotMeter(t)
	layers := 0
	ground := func(t *testing.T) (string, Target) {
		layers++
		layer := unused(t, c, "native", fmt.Sprint("layer-", layers))
		return layer.Source, Target{Layer: layer, Namespace: "k8s.io"}
	}
	meterContractOn(t, func(*testing.T) Meter { return meter }, ground, beyond{
		// Its walk fails over a file that vanishes. That is no figure, and no sign
		// that the layer is gone: the last figure stays.
		"files that vanish": func(t *testing.T, _ string, look Look, err error) {
			if look.Usage != (Usage{}) || errors.Is(err, ErrGone) || t.Context().Err() != nil {
				t.Errorf("told %+v, %v", look.Usage, err)
			}
		},
		// containerd names each folder by its whole path, which has an end. It
		// fails then, and tells no part of the truth.
		"5,000 deep": func(t *testing.T, dir string, look Look, err error) {
			if err == nil {
				t.Errorf("told %+v, du says %+v", look.Usage, du(t, dir))
			}
		},
		// It crosses mounts. Nobody mounts below a snapshot but from within a
		// container, whose mounts the host does not see.
		"mounts inside": func(t *testing.T, dir string, look Look, err error) {
			must(t, err)
			if want := du(t, dir); look.Usage.Bytes < want.Bytes || look.Usage.Inodes < want.Inodes {
				t.Errorf("told %+v, du says %+v without what is mounted", look.Usage, want)
			}
		},
	})
}

// TestOrphansOfADaemon: what snapshots take that a real containerd keeps and no
// container uses is told as what du says of them, and of no container.
func TestOrphansOfADaemon(t *testing.T) {
	disk := newOverlay(t, "ext4", nil).backing
	t.Setenv("TMPDIR", disk)
	c, meter := snapshotMeter(t)
	own := unused(t, c, "overlayfs", "own")
	overlay, native := unused(t, c, "overlayfs", "left-over"), unused(t, c, "native", "left-over-copy")
	for i, folder := range []string{own.Upper, overlay.Upper, native.Source} {
		write(t, filepath.Join(folder, "a/b/file"), (i+1)*3_000_000)
	}
	syncFilesystem(t, disk)
	app := container("web-0", "u-1", "app", "1")
	app.Layer = own
	all := []runtime.Container{app}
	storage := func(orphans ...runtime.Layer) []runtime.Storage {
		var out []runtime.Storage
		for _, l := range orphans {
			out = append(out, runtime.Storage{Snapshotter: l.Snapshotter, Orphans: []runtime.Orphan{{Namespace: "k8s.io", Layer: l}}})
		}
		return out
	}
	var told atomic.Pointer[[]runtime.Storage]
	tell := func(s []runtime.Storage) { told.Store(&s) }
	tell(storage(overlay, native))
	registry := prometheus.NewRegistry()
	watch(t, Options{
		Containers: func() []runtime.Container { return all }, Storage: func() []runtime.Storage { return *told.Load() },
		Meter: NewWalker("/"), Snapshots: meter, Policy: DefaultPolicy(), Registerer: registry,
	})
	figure := func(name, label, value string) float64 {
		got := series(gather(t, registry)[name], label, value)
		if len(got) != 1 {
			return -1
		}
		return got[0]
	}
	until := func(what string, orphans int64) {
		t.Helper()
		layer := float64(du(t, own.Upper).Bytes)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			o, l := figure("nodeagent_filesystem_orphaned_bytes", "filesystem", disk), figure("nodeagent_container_disk_bytes", "part", "layer")
			if o == float64(orphans) && l == layer {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: orphaned %v, the container's %v; du says %d and %v", what, o, l, orphans, layer)
			}
		}
	}
	until("two are left over", du(t, overlay.Upper).Bytes+du(t, native.Source).Bytes)
	must(t, c.SnapshotService("overlayfs").Remove(namespaces.WithNamespace(t.Context(), "k8s.io"), overlay.Key))
	tell(storage(native))
	until("one is removed", du(t, native.Source).Bytes)
}

// snapshotMeter is one that asks a containerd of the test's own, over the
// connection that the agent has, and a client of that.
func snapshotMeter(t *testing.T) (*client.Client, *SnapshotMeter) {
	t.Helper()
	socket := snapshotDaemon(t)
	c, err := client.New(socket)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	containers, err := runtime.NewWatcher(runtime.Config{Socket: socket, Namespaces: []string{"k8s.io"}})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- containers.Run(ctx) }()
	t.Cleanup(func() { stop(); must(t, <-ended) })
	for late := time.After(time.Minute); ; {
		changed := containers.Changed()
		if !containers.Containers().Confirmed.IsZero() {
			break
		}
		select {
		case <-changed:
		case <-late:
			t.Fatal("containerd does not answer")
		}
	}
	return c, NewSnapshotMeter("/", func(ctx context.Context, namespace string, layer runtime.Layer) (Usage, error) {
		size, inodes, err := containers.Usage(ctx, namespace, layer)
		if errors.Is(err, runtime.ErrNoLayer) { // as cmd/nodeagent has it
			err = fmt.Errorf("%w: %w", ErrGone, err)
		}
		return Usage{Bytes: size, Inodes: inodes}, err
	})
}

// unused makes a snapshot that no container has.
func unused(t *testing.T, c *client.Client, snapshotter, key string) runtime.Layer {
	t.Helper()
	mounts, err := c.SnapshotService(snapshotter).Prepare(namespaces.WithNamespace(t.Context(), "k8s.io"), key, "",
		snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "test"}))
	must(t, err)
	layer := runtime.Layer{Snapshotter: snapshotter, Key: key, Source: mounts[0].Source}
	if snapshotter == "overlayfs" { // without layers below: a bind mount of the upper folder
		layer.Upper, layer.Source = layer.Source, ""
	}
	return layer
}

// snapshotDaemon starts a containerd with the native snapshotter, without what
// is shared with others of this machine, and returns its socket.
func snapshotDaemon(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: unit tests alone, no daemons")
	}
	parts := os.Getenv("NODEAGENT_TEST_CONTAINERD_2")
	if parts == "" {
		t.Fatal("NODEAGENT_TEST_CONTAINERD_2 is not set: it names the folder whose bin/ holds a containerd to test against. Run `make test`, which fetches it, or `go test -short` for the unit tests alone")
	}
	dir, err := os.MkdirTemp("", "nadisk") // a socket's path must be short
	must(t, err)
	t.Cleanup(func() { must(t, exec.Command("rm", "-rf", dir).Run()) })
	config, socket := filepath.Join(dir, "config.toml"), filepath.Join(dir, "c.sock")
	must(t, os.WriteFile(config, []byte(strings.ReplaceAll(`version = 2
root = "DIR/root"
state = "DIR/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "DIR/c.sock"
[ttrpc]
  address = "DIR/c.sock.ttrpc"
`, "DIR", dir)), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	t.Cleanup(func() { must(t, log.Close()) })
	cmd := exec.Command(filepath.Join(parts, "bin/containerd"), "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait()
	})
	return socket
}
