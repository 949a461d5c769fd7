package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sync/errgroup"
)

const (
	// pauseCommand is what this program is called with as the one that runs in
	// the containers: it does nothing.
	pauseCommand = "pause"
	base         = "base"
	// groupLabel lets containers share a shim, as those of a pod do under
	// Kubernetes; groupSize of them do here.
	groupLabel = "io.containerd.runc.v2.group"
	groupSize  = 5
	// filesPerFolder is how wide the trees are.
	filesPerFolder = 100
	// everyFull: one file in so many has a block of content.
	everyFull = 10
	hands     = 2
)

func pause() {
	for {
		_ = syscall.Pause() // the Go runtime's own signals end it
	}
}

// layer is a container with its writable layer.
type layer struct {
	name  string
	upper string // where the host has what it wrote
	pid   int    // of its first process; 0: it does not run
}

// root is the container's root folder as its processes see it.
func (l *layer) root() string { return fmt.Sprintf("/proc/%d/root", l.pid) }

// kept keeps a snapshot from containerd's collector while nothing uses it.
func kept() snapshots.Opt {
	return snapshots.WithLabels(map[string]string{"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339)})
}

// makeBase makes the image's layer: this program alone.
func (g *ground) makeBase(ctx context.Context) error {
	mounts, err := g.snapshots().Prepare(ctx, base+"-work", "", kept())
	if err != nil {
		return fmt.Errorf("cannot make the base layer: %w", err)
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot make the base layer: %w", err)
	}
	err = mount.WithTempMount(ctx, mounts, func(root string) error {
		return os.WriteFile(filepath.Join(root, "bench"), program, 0o755)
	})
	if err != nil {
		return fmt.Errorf("cannot make the base layer: %w", err)
	}
	if err := g.snapshots().Commit(ctx, base, base+"-work", kept()); err != nil {
		return fmt.Errorf("cannot make the base layer: %w", err)
	}
	return nil
}

// populate makes n containers, each with so many files in its layer, and lets
// them run if they are to.
func (g *ground) populate(ctx context.Context, prefix string, n, files int, running bool) ([]*layer, error) {
	ctx = g.named(ctx)
	layers := make([]*layer, n)
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(hands)
	for first := 0; first < n; first += groupSize {
		group.Go(func() error {
			for i := first; i < min(n, first+groupSize); i++ {
				l, err := g.addLayer(inner, fmt.Sprintf("%s-%04d", prefix, i), fmt.Sprintf("%s-group-%d", prefix, first), files, running)
				if err != nil {
					return err
				}
				layers[i] = l
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, l := range layers {
		g.layers[l.name] = l
	}
	return layers, nil
}

func (g *ground) addLayer(ctx context.Context, name, group string, files int, running bool) (*layer, error) {
	mounts, err := g.snapshots().Prepare(ctx, name, base, kept())
	if err != nil {
		return nil, fmt.Errorf("cannot make layer %s: %w", name, err)
	}
	l := &layer{name: name, upper: upperOf(mounts)}
	if l.upper == "" {
		return nil, fmt.Errorf("cannot make layer %s: it is no overlay: %v", name, mounts)
	}
	if err := mount.WithTempMount(ctx, mounts, func(root string) error { return fill(ctx, root, files) }); err != nil {
		return nil, fmt.Errorf("cannot fill layer %s: %w", name, err)
	}
	logs := filepath.Join("/var/log/pods", "bench_"+name+"_uid-"+name, "app")
	if err := errors.Join(os.MkdirAll(logs, 0o755), os.WriteFile(filepath.Join(logs, "0.log"), []byte("started\n"), 0o644)); err != nil {
		return nil, fmt.Errorf("cannot make the logs of %s: %w", name, err)
	}
	container, err := g.client.NewContainer(ctx, name,
		client.WithSnapshotter(snapshotter), client.WithSnapshot(name),
		client.WithContainerLabels(podLabels(name)),
		client.WithNewSpec(
			oci.WithProcessArgs("/bench", pauseCommand),
			oci.WithCgroup("/"+g.cgroup+"/"+name),
			oci.WithAnnotations(map[string]string{groupLabel: group})))
	if err != nil {
		return nil, fmt.Errorf("cannot make container %s: %w", name, err)
	}
	if !running {
		return l, nil
	}
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return nil, fmt.Errorf("cannot make a task of %s: %w", name, err)
	}
	if err := task.Start(ctx); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	l.pid = int(task.Pid())
	return l, nil
}

// podLabels are those of a container that Kubernetes made: each is a pod.
func podLabels(name string) map[string]string {
	return map[string]string{
		"io.cri-containerd.kind": "container", "io.kubernetes.container.name": "app",
		"io.kubernetes.pod.namespace": "bench", "io.kubernetes.pod.name": name, "io.kubernetes.pod.uid": "uid-" + name,
	}
}

func upperOf(mounts []mount.Mount) string {
	for _, m := range mounts {
		for _, option := range m.Options {
			if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
				return upper
			}
		}
	}
	return ""
}

// fill makes a tree of so many files.
func fill(ctx context.Context, root string, files int) error {
	content := make([]byte, 4096)
	for i := 0; i < files; i += filesPerFolder {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Two levels, so that no folder has thousands of others.
		folder := filepath.Join(root, "data", fmt.Sprintf("%03d", i/filesPerFolder/100), fmt.Sprintf("%02d", i/filesPerFolder%100))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		for j := range min(filesPerFolder, files-i) {
			text := content
			if j%everyFull != 0 {
				text = nil
			}
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file-%03d.dat", j)), text, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
