package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// record plays one scenario on a file system of its own and records it.
func record(ctx context.Context, s scenario, out string) (err error) {
	base, err := os.MkdirTemp("", "series-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(base)) }()
	mount := filepath.Join(base, "disk")
	if err := makeDisk(ctx, base, mount, s); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, command(context.WithoutCancel(ctx), base, "umount", "-l", mount))
	}()
	layer := filepath.Join(mount, "layer")
	if err := os.Mkdir(layer, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.span)
	defer cancel()
	writer, err := startWriter(ctx, s.name, layer)
	if err != nil {
		return err
	}
	created := time.Now()
	if !wait(ctx, s.joined) {
		return ctx.Err()
	}
	err = watch(ctx, s, base, created, filepath.Join(out, s.name+".jsonl.gz"))
	return errors.Join(err, ended(writer.Wait()))
}

// makeDisk mounts an ext4 file system in a sparse file.
func makeDisk(ctx context.Context, base, mount string, s scenario) error {
	image := filepath.Join(base, "image")
	if err := errors.Join(os.Mkdir(mount, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, s.disk)); err != nil {
		return err
	}
	args := []string{"-q", "-F", "-m", "0"}
	if s.inodes > 0 {
		args = append(args, "-N", fmt.Sprint(s.inodes))
	}
	return errors.Join(
		command(ctx, base, "mkfs.ext4", append(args, image)...),
		command(ctx, base, "mount", "-o", "loop", image, mount),
	)
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot %s: %w: %s", name, err, text)
	}
	return nil
}

// startWriter starts this program again, as a writer in the layer.
func startWriter(ctx context.Context, name, layer string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-write", name)
	cmd.Dir, cmd.Stderr = layer, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	return cmd, cmd.Start()
}

// ended is nil for a writer that was told to end.
func ended(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// watch is the agent, as far as it measures: as often, and by the same code.
func watch(ctx context.Context, s scenario, base string, created time.Time, file string) error {
	recorder, err := disk.NewRecorder(file, 16<<20, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	c := runtime.Container{
		ID: s.name, Namespace: "k8s.io", Name: "app", Created: created,
		Pod:   runtime.Pod{Namespace: "series", Name: s.name, UID: s.name},
		Layer: runtime.Layer{Snapshotter: "overlayfs", Key: s.name, Upper: "/disk/layer"},
	}
	watcher, err := disk.NewWatcher(disk.Options{
		Containers: func() []runtime.Container { return []runtime.Container{c} },
		Meter:      disk.NewWalker(base), HostRoot: base, Limits: s.limits,
		Policy: disk.DefaultPolicy(), Recorder: recorder,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return recorder.Run(ctx) })
	g.Go(func() error { return watcher.Run(ctx) })
	g.Go(func() error {
		for v := range watcher.Offences() {
			fmt.Printf("%s %6.1f s: %s\n", s.name, v.At.Sub(created).Seconds(), v.Message)
		}
		return nil
	})
	return errors.Join(g.Wait(), os.RemoveAll(file+".1"))
}
