package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// peer is another way to start a process.
type peer struct {
	name  string
	every int // is measured each so many rounds
	first func(ctx context.Context, id string) (time.Duration, error)
}

// prepare makes the program's folder, a root folder with a shell, and finds the
// peers.
func (b *bench) prepare() error {
	if err := os.MkdirAll(filepath.Join(b.folder, "program"), 0o755); err != nil {
		return err
	}
	b.peers = []peer{{"fork+exec", 1, func(ctx context.Context, _ string) (time.Duration, error) {
		return firstByte(exec.CommandContext(ctx, "sh", "-c", "echo x"))
	}}}
	root, err := rootFolder(b.folder)
	if err != nil {
		return err
	}
	if path := os.Getenv("BENCH_RUNC"); path != "" {
		if err := b.oci("runc", path, root, 1); err != nil {
			return err
		}
	}
	if path := os.Getenv("BENCH_CRUN"); path != "" {
		if err := b.oci("crun", path, root, 1); err != nil {
			return err
		}
	}
	if path := os.Getenv("BENCH_PODMAN"); path != "" {
		b.podman(path, root)
	}
	if path := os.Getenv("BENCH_CONTAINERD"); path != "" {
		if err := b.containerd(path, root); err != nil {
			return err
		}
	}
	return nil
}

// firstByte starts a command and waits for the first byte that it writes.
func firstByte(c *exec.Cmd) (time.Duration, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer read.Close() //nolint:errcheck // it was only read
	var told strings.Builder
	c.Stdout, c.Stderr = write, &told
	begun := time.Now()
	if err := c.Start(); err != nil {
		return 0, errors.Join(err, write.Close())
	}
	_ = write.Close()
	var one [1]byte
	_, err = read.Read(one[:])
	took := time.Since(begun)
	if err = errors.Join(err, c.Wait()); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", c.Path, err, told.String())
	}
	return took, nil
}

// rootFolder holds the host's shell and the libraries it needs.
func rootFolder(folder string) (string, error) {
	root := filepath.Join(folder, "root")
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		return "", err
	}
	files := map[string]string{shell: "/bin/sh"}
	out, err := exec.Command("ldd", shell).Output() //nolint:noctx // it ends by itself
	if err != nil {
		return "", fmt.Errorf("cannot find what the shell needs: %w", err)
	}
	for _, f := range strings.Fields(string(out)) {
		if filepath.IsAbs(f) {
			files[f] = f
		}
	}
	for from, to := range files {
		raw, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		at := filepath.Join(root, to)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(at, raw, 0o755); err != nil {
			return "", err
		}
	}
	for _, dir := range []string{"proc", "dev", "sys", "etc", "tmp", "run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return "", err
		}
	}
	return root, nil
}

// oci measures a runtime of the OCI kind by its own command line, with the
// limits that our task has. Like ours it starts a shell.
func (b *bench) oci(name, path, root string, every int) error {
	bundle := filepath.Join(b.folder, name)
	if err := os.MkdirAll(bundle, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), bundleConfig(root), 0o644); err != nil {
		return err
	}
	b.peers = append(b.peers, peer{name, every, func(ctx context.Context, id string) (time.Duration, error) {
		c := exec.CommandContext(ctx, path, "--root", filepath.Join(b.folder, name+"-state"), "run", "--bundle", bundle, id)
		return firstByte(c)
	}})
	return nil
}

func (b *bench) podman(path, root string) {
	state := filepath.Join(b.folder, "podman")
	b.closers = append(b.closers, func() error { return exec.Command("umount", "-l", filepath.Join(state, "root", "overlay")).Run() }) //nolint:noctx // quick
	b.peers = append(b.peers, peer{"podman", 10, func(ctx context.Context, id string) (time.Duration, error) {
		return firstByte(exec.CommandContext(ctx, path, "--root", filepath.Join(state, "root"), "--runroot", filepath.Join(state, "run"),
			"--cgroup-manager=cgroupfs", "--events-backend=none", "run", "--rm", "--name", id, "--network=none", "--ulimit=host",
			"--memory=64m", "--pids-limit=32", "--cpus=1", "--rootfs", root, "sh", "-c", "echo x"))
	}})
}

// containerd starts a containerd of its own for ctr.
func (b *bench) containerd(bin, root string) error {
	state := filepath.Join(b.folder, "containerd")
	address := filepath.Join(state, "sock")
	if err := os.MkdirAll(state, 0o755); err != nil {
		return err
	}
	config := filepath.Join(state, "config.toml")
	if err := os.WriteFile(config, []byte("version = 3\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.runtime\", \"io.containerd.cri.v1.images\"]\n"), 0o644); err != nil {
		return err
	}
	c := exec.Command(filepath.Join(bin, "containerd"), "--config", config, "--root", filepath.Join(state, "root"), "--state", filepath.Join(state, "state"), "--address", address) //nolint:noctx // ended below
	c.Env = append(os.Environ(), "PATH="+bin+":"+filepath.Dir(os.Getenv("BENCH_RUNC"))+":"+os.Getenv("PATH"))
	if err := c.Start(); err != nil {
		return err
	}
	b.closers = append(b.closers, func() error { return errors.Join(c.Process.Signal(os.Interrupt), ignoreExit(c.Wait())) })
	for range 100 {
		if _, err := os.Stat(address); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.peers = append(b.peers, peer{"ctr run", 10, func(ctx context.Context, id string) (time.Duration, error) {
		return firstByte(exec.CommandContext(ctx, filepath.Join(bin, "ctr"), "--address", address, "run", "--rm", "--memory-limit=67108864", "--cpus=1", "--rootfs", root, id, "sh", "-c", "echo x"))
	}})
	return nil
}

func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

func (b *bench) close(err error) error {
	for _, f := range b.closers {
		_ = f()
	}
	return errors.Join(err, b.launcher.Close())
}
