package main

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
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// patience bounds every wait of these tests; none is expected to last.
const patience = time.Minute

// containerd is a real daemon of the test's own: own root, state and socket.
type containerd struct {
	bin, folder, socket string
	more                string // configuration
	cmd                 *exec.Cmd
}

// newContainerd starts a daemon and leaves nothing of it after the test. A
// machine without one must not look like a passed test. more is put behind its
// configuration.
func newContainerd(t *testing.T, more ...string) *containerd {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: unit tests alone, no daemons")
	}
	parts := os.Getenv("NODEAGENT_TEST_CONTAINERD_2")
	if parts == "" {
		t.Fatal("NODEAGENT_TEST_CONTAINERD_2 is not set: it names the folder whose bin/ holds a containerd to test against. Run `make test`, which fetches it, or `go test -short` for the unit tests alone")
	}
	// Not t.TempDir: with the test's name in it, the path is too long for a
	// unix socket (108 bytes).
	folder, err := os.MkdirTemp("", "nacmd")
	if err != nil {
		t.Fatal(err)
	}
	d := &containerd{bin: filepath.Join(parts, "bin"), folder: folder, socket: filepath.Join(folder, "c.sock"), more: strings.Join(more, "")}
	t.Cleanup(func() {
		d.stop(syscall.SIGTERM)
		if err := errors.Join(mount.UnmountRecursive(folder, 0), os.RemoveAll(folder)); err != nil {
			t.Error(err)
		}
	})
	d.start(t)
	return d
}

const containerdConfig = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
# What the tests do not need and what is shared with another daemon of this
# machine: the network, /opt, NRI's socket.
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "%[1]s/c.sock"
[ttrpc]
  address = "%[1]s/c.sock.ttrpc"
# A sparse ext4 of 64 MiB for each layer, copied from the scratch file.
[plugins."io.containerd.snapshotter.v1.blockfile"]
  root_path = "%[1]s/blockfile"
  scratch_file = "%[1]s/scratch"
  fs_type = "ext4"
  mount_options = []
`

// start runs the daemon and returns once it serves.
func (d *containerd) start(t *testing.T) {
	t.Helper()
	d.scratch(t)
	config := filepath.Join(d.folder, "config.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, containerdConfig+"%[2]s", d.folder, d.more), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(d.folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(filepath.Join(d.bin, "containerd"), "--config", config)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := d.client(t)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if serving, err := c.IsServing(ctx); !serving {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("containerd does not serve: %v\n%s", err, text)
	}
}

// scratch makes the empty file system that blockfile starts each layer from.
func (d *containerd) scratch(t *testing.T) {
	t.Helper()
	file := filepath.Join(d.folder, "scratch")
	if _, err := os.Stat(file); err == nil {
		return
	}
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", file).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
}

func (d *containerd) stop(signal syscall.Signal) {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(signal)
	stubborn := time.AfterFunc(patience, func() { _ = d.cmd.Process.Kill() })
	_ = d.cmd.Wait()
	stubborn.Stop()
	d.cmd = nil
}

func (d *containerd) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(d.socket)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// addPod makes a container of a pod as the CRI plugin records it, with a layer
// of its own over an empty image, and returns the layer's upper folder. No
// process runs in it: what is watched is the layer.
func (d *containerd) addPod(t *testing.T, pod, name string) (upper string) {
	t.Helper()
	// An image without layers: a bind mount of the upper folder.
	return d.addPodOn(t, "overlayfs", pod, name)[0].Source
}

// addPodOn does it with a snapshotter, and returns the layer's mounts.
func (d *containerd) addPodOn(t *testing.T, snapshotter, pod, name string) []mount.Mount {
	t.Helper()
	c := d.client(t)
	defer c.Close()
	ctx, release, err := c.WithLease(namespaces.WithNamespace(t.Context(), "k8s.io"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = release(ctx) }()
	id := pod + "-" + name
	layers := c.SnapshotService(snapshotter)
	mounts, err := layers.Prepare(ctx, id, "")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := typeurl.MarshalAny(&specs.Spec{Version: specs.Version, Annotations: map[string]string{
		"io.kubernetes.cri.container-type":    "container",
		"io.kubernetes.cri.container-name":    name,
		"io.kubernetes.cri.sandbox-name":      pod,
		"io.kubernetes.cri.sandbox-namespace": "shop",
		"io.kubernetes.cri.sandbox-uid":       "00000000-0000-0000-0000-0000000000" + pod[len(pod)-2:],
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.ContainerService().Create(ctx, containers.Container{
		ID: id, Snapshotter: snapshotter, SnapshotKey: id, Spec: spec,
		Runtime: containers.RuntimeInfo{Name: "io.containerd.runc.v2"},
		Labels: map[string]string{
			"io.kubernetes.container.name": name,
			"io.kubernetes.pod.name":       pod,
			"io.kubernetes.pod.namespace":  "shop",
			"io.kubernetes.pod.uid":        "00000000-0000-0000-0000-0000000000" + pod[len(pod)-2:],
			"io.cri-containerd.kind":       "container",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return mounts
}
