package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	if err := b.findPeers(root); err != nil {
		return err
	}
	return nil
}

// findPeers takes those that the lab's cache has: runc and containerd in one
// folder, Debian's crun and podman unpacked in another.
func (b *bench) findPeers(root string) error {
	if dir := os.Getenv("NODEAGENT_TEST_CONTAINERD_2"); dir != "" {
		bin := filepath.Join(dir, "bin")
		if err := b.oci("runc", []string{filepath.Join(bin, "runc")}, nil, root); err != nil {
			return err
		}
		if err := b.containerd(bin, root); err != nil {
			return err
		}
	}
	if debian := os.Getenv("BENCH_PEERS"); debian != "" {
		env := append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(debian, "usr/lib/x86_64-linux-gnu")+":"+filepath.Join(debian, "lib/x86_64-linux-gnu"))
		crun := []string{filepath.Join(debian, "usr/bin/crun")}
		if err := b.oci("crun", crun, env, root); err != nil {
			return err
		}
		return b.podman(debian, env, root)
	}
	return nil
}

// leaveOut drops peers that do not run on this machine, and says why: Debian's
// crun, say, refuses a hybrid layout of cgroups.
func (b *bench) leaveOut(ctx context.Context) {
	b.peers = slices.DeleteFunc(b.peers, func(p peer) bool {
		_, err := p.first(ctx, fmt.Sprintf("bench-%d-first", os.Getpid()))
		if err != nil {
			fmt.Printf("%s is left out, it does not run here: %v\n", p.name, err)
		}
		return err != nil
	})
}

// firstByte starts a command and waits for the first byte that it writes.
func firstByte(c *exec.Cmd) (time.Duration, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer read.Close()
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
func (b *bench) oci(name string, command, env []string, root string) error {
	bundle := filepath.Join(b.folder, name)
	if err := os.MkdirAll(bundle, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), bundleConfig(root), 0o644); err != nil {
		return err
	}
	b.peers = append(b.peers, peer{name, 2, func(ctx context.Context, id string) (time.Duration, error) {
		c := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], "--root", filepath.Join(b.folder, name+"-state"), "run", "--bundle", bundle, id)...)
		c.Env = env
		return firstByte(c)
	}})
	return nil
}

// podman runs from the folder that its packages were unpacked to.
func (b *bench) podman(debian string, env []string, root string) error {
	state := filepath.Join(b.folder, "podman")
	if err := os.MkdirAll(state, 0o755); err != nil {
		return err
	}
	config := filepath.Join(state, "containers.conf")
	text := fmt.Sprintf("[engine]\nconmon_path = [%q]\nruntime = \"runc\"\n[engine.runtimes]\nrunc = [%q]\n",
		filepath.Join(debian, "usr/bin/conmon"), filepath.Join(os.Getenv("NODEAGENT_TEST_CONTAINERD_2"), "runc"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	policy := filepath.Join(state, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644); err != nil {
		return err
	}
	env = append(env, "CONTAINERS_CONF="+config, "PATH="+filepath.Join(debian, "usr/bin")+":"+os.Getenv("PATH"))
	common := []string{
		"--root", filepath.Join(state, "root"), "--runroot", filepath.Join(state, "run"), "--storage-driver=vfs",
		"--cgroup-manager=cgroupfs", "--events-backend=none", "--tmpdir", filepath.Join(state, "tmp"),
	}
	b.peers = append(b.peers, peer{"podman", 10, func(ctx context.Context, id string) (time.Duration, error) {
		c := exec.CommandContext(ctx, filepath.Join(debian, "usr/bin/podman"), append(common, "run", "--rm", "--name", id, "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
			"--security-opt=seccomp=unconfined", "--memory=64m", "--pids-limit=32", "--rootfs", root, "/bin/sh", "-c", "echo x")...)
		c.Env = env
		return firstByte(c)
	}})
	return nil
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
	c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
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
		return firstByte(exec.CommandContext(ctx, filepath.Join(bin, "ctr"), "--address", address, "run", "--rm", "--memory-limit=67108864", "--cpus=1", "--rootfs", root, id, "/bin/sh", "-c", "echo x"))
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
	return errors.Join(err, b.launcher.Close(), b.launcher.Remove(context.Background()))
}
