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
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// TestSnapshotterContract holds what a real containerd's native snapshotter
// tells to the contract: its layers are folders, so that du can look at them too.
// Layers that are devices are in cmd/nodeagent's TestSnapshotters.
func TestSnapshotterContract(t *testing.T) {
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

	meter := NewSnapshotMeter("/", func(ctx context.Context, namespace string, layer runtime.Layer) (Usage, error) {
		size, inodes, err := containers.Usage(ctx, namespace, layer)
		if errors.Is(err, runtime.ErrNoLayer) { // as cmd/nodeagent has it
			err = fmt.Errorf("%w: %w", ErrGone, err)
		}
		return Usage{Bytes: size, Inodes: inodes}, err
	})
	layers := 0
	ground := func(t *testing.T) (string, Target) {
		layers++
		key := fmt.Sprint("layer-", layers)
		mounts, err := c.SnapshotService("native").Prepare(namespaces.WithNamespace(t.Context(), "k8s.io"), key, "",
			snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "test"})) // nobody uses it
		must(t, err)
		layer := runtime.Layer{Snapshotter: "native", Key: key, Source: mounts[0].Source}
		return layer.Source, Target{Layer: layer, Namespace: "k8s.io"}
	}
	_, target := ground(t)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := meter.Measure(t.Context(), target); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	meterContractOn(t, func(*testing.T) Meter { return meter }, ground, beyond{
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
