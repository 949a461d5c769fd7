package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
)

const (
	// diskSize is far more than any load writes: the file is sparse.
	diskSize = 64 << 30
	// diskInodes is room for the largest layer.
	diskInodes = 1_600_000
	// namespace is where the CRI plugin keeps Kubernetes' containers.
	namespace   = "k8s.io"
	snapshotter = "overlayfs"
)

// ground is what one load is played on: a file system of its own with a
// containerd's root on it, and the daemon.
type ground struct {
	options
	scale
	method string // the agent's disk.method; empty: auto
	disk   string // where the file system is mounted
	daemon *exec.Cmd
	client *client.Client
	layers map[string]*layer // by name
}

func newGround(ctx context.Context, o options, s scale) (*ground, error) {
	g := &ground{options: o, scale: s, disk: filepath.Join(o.cell, "disk"), layers: make(map[string]*layer)}
	if err := g.makeDisk(ctx); err != nil {
		return nil, err
	}
	if err := g.startContainerd(ctx); err != nil {
		return nil, fmt.Errorf("%w%s", err, g.logs())
	}
	if err := g.makeBase(g.named(ctx)); err != nil {
		return nil, err
	}
	return g, nil
}

// makeDisk mounts a new ext4. Its file has no name any more once it is mounted.
func (g *ground) makeDisk(ctx context.Context) error {
	file := filepath.Join(g.cell, "disk.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return fmt.Errorf("cannot make a disk: %w", err)
	}
	if err := os.Truncate(file, diskSize); err != nil {
		return fmt.Errorf("cannot make a disk: %w", err)
	}
	if err := os.Mkdir(g.disk, 0o755); err != nil {
		return fmt.Errorf("cannot make a disk: %w", err)
	}
	// Tables of inodes are written when they are used, and by nobody in the
	// background while something is measured.
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-N", fmt.Sprint(diskInodes), "-J", "size=256", "-E", "lazy_itable_init=1,lazy_journal_init=1", file},
		{"mount", "-t", "ext4", "-o", "loop,noinit_itable", file, g.disk},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("cannot make a disk: %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	// The kubelet's logs of these pods are on the same disk.
	logs := filepath.Join(g.disk, "log")
	if err := os.Mkdir(logs, 0o755); err != nil {
		return fmt.Errorf("cannot make the folder for logs: %w", err)
	}
	if err := unix.Mount(logs, "/var/log", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount the folder for logs: %w", err)
	}
	return nil
}

const containerdConfig = `version = 2
root = "%[1]s/disk/containerd"
state = "/run/containerd"
# The CRI plugin's syncer is played by this bench, so that it can be stopped.
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "%[1]s/c.sock"
[ttrpc]
  address = "%[1]s/c.sock.ttrpc"
`

func (g *ground) startContainerd(ctx context.Context) error {
	config := g.file("containerd.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, containerdConfig, g.cell), 0o600); err != nil {
		return fmt.Errorf("cannot configure containerd: %w", err)
	}
	bin := filepath.Join(g.containerd, "bin")
	g.daemon = exec.CommandContext(ctx, filepath.Join(bin, "containerd"), "--config", config)
	g.daemon.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	if err := g.start(g.daemon, "containerd.log"); err != nil {
		return err
	}
	c, err := client.New(g.socket(), client.WithDefaultNamespace(namespace))
	if err != nil {
		return fmt.Errorf("cannot reach containerd: %w", err)
	}
	g.client = c
	if serving, err := c.IsServing(ctx); !serving {
		return fmt.Errorf("containerd does not serve: %w", err)
	}
	return nil
}

// start starts a program of the cell whose output goes to a file of it.
func (g *ground) start(cmd *exec.Cmd, output string) error {
	f, err := os.OpenFile(g.file(output), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot keep the output of %s: %w", cmd.Path, err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", cmd.Path, err)
	}
	return nil
}

func (g *ground) file(name string) string { return filepath.Join(g.cell, name) }
func (g *ground) socket() string          { return g.file("c.sock") }

func (*ground) named(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, namespace)
}

func (g *ground) snapshots() snapshots.Snapshotter { return g.client.SnapshotService(snapshotter) }

// logs are the last lines of what the cell's programs said.
func (g *ground) logs() string {
	var b strings.Builder
	for _, name := range []string{"containerd.log", "agent.log"} {
		text, err := os.ReadFile(g.file(name))
		if err == nil && len(text) > 0 {
			fmt.Fprintf(&b, "\n%s ends with\n%s", name, text[max(0, len(text)-2048):])
		}
	}
	return b.String()
}
