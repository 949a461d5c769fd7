package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/moby/sys/mountinfo"
)

// containerd is a real daemon of the test's own: own root, state and socket.
type containerd struct {
	bin    string // the folder with containerd, its shim and runc
	folder string // everything it keeps
	socket string
	cmd    *exec.Cmd
	output *os.File
}

// binaries finds the daemon under test. A machine without it must not look
// like a passed test.
func binaries(t *testing.T, variable string) string {
	t.Helper()
	folder := os.Getenv(variable)
	if folder == "" {
		t.Fatalf("%s is not set: it names the folder whose bin/ holds a containerd to test against. Run `make test`, which fetches it, or `go test -short` for the unit tests alone", variable)
	}
	bin := filepath.Join(folder, "bin")
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
		if _, err := exec.LookPath(filepath.Join(bin, name)); err != nil {
			t.Fatalf("%s=%s has no %s in its bin/: %v", variable, folder, name, err)
		}
	}
	return bin
}

// newContainerd prepares a daemon and leaves nothing of it after the test.
func newContainerd(t *testing.T, bin string) *containerd {
	t.Helper()
	// Not t.TempDir: with the test's name in it, the path is too long for a
	// unix socket (108 bytes).
	folder, err := os.MkdirTemp("", "nrt")
	if err != nil {
		t.Fatal(err)
	}
	output, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	d := &containerd{bin: bin, folder: folder, socket: filepath.Join(folder, "c.sock"), output: output}
	t.Cleanup(func() { d.remove(t) })
	return d
}

const configuration = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
# What the tests do not need and what is shared with another daemon of this
# machine: the network, /opt, NRI's socket.
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "%[2]s"
[ttrpc]
  address = "%[2]s.ttrpc"
`

// start runs the daemon on the given socket and returns once it serves.
func (d *containerd) start(t *testing.T, socket string) {
	t.Helper()
	config := filepath.Join(d.folder, "config.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, configuration, d.folder, socket), 0o600); err != nil {
		t.Fatal(err)
	}
	d.cmd = exec.Command(filepath.Join(d.bin, "containerd"), "--config", config)
	d.cmd.Env = append(os.Environ(), "PATH="+d.bin+":"+os.Getenv("PATH"))
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if serving, err := c.IsServing(ctx); !serving {
		t.Fatalf("containerd does not serve: %v\n%s", err, d.log())
	}
}

// stop ends the daemon and waits for its end. Its shims live on.
func (d *containerd) stop(signal syscall.Signal) {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGCONT) // a stopped one would never end
	_ = d.cmd.Process.Signal(signal)
	stubborn := time.AfterFunc(patience, func() { _ = d.cmd.Process.Kill() })
	_ = d.cmd.Wait()
	stubborn.Stop()
	d.cmd = nil
}

func (d *containerd) log() string {
	text, _ := os.ReadFile(d.output.Name())
	return string(text[max(0, len(text)-4096):])
}

// remove takes everything away: containers through a daemon that answers,
// then whatever was left by one that did not.
func (d *containerd) remove(t *testing.T) {
	if t.Failed() {
		t.Logf("containerd's log ends with\n%s", d.log())
	}
	if d.cmd != nil {
		if err := d.removeContainers(); err != nil {
			t.Errorf("cannot remove the test's containers: %v", err)
		}
	}
	d.stop(syscall.SIGTERM)
	left := d.shims(t)
	for end := time.Now().Add(patience); len(left) > 0 && time.Now().Before(end); left = d.shims(t) {
		time.Sleep(20 * time.Millisecond) // a shim ends a moment after its last task
	}
	for _, pid := range left {
		t.Errorf("shim %d was left behind", pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(d.folder))
	if err != nil {
		t.Error(err)
	}
	for _, m := range mounts {
		t.Errorf("mount %s was left behind", m.Mountpoint)
		_ = syscall.Unmount(m.Mountpoint, syscall.MNT_DETACH)
	}
	if err := errors.Join(d.output.Close(), os.RemoveAll(d.folder)); err != nil {
		t.Error(err)
	}
}

func (d *containerd) removeContainers() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = d.cmd.Process.Signal(syscall.SIGCONT)
	c, err := client.New(d.socket)
	if err != nil {
		return err
	}
	defer c.Close()
	names, err := c.NamespaceService().List(ctx)
	if err != nil {
		return err
	}
	for _, ns := range names {
		ctx := namespaces.WithNamespace(ctx, ns)
		containers, err := c.Containers(ctx)
		if err != nil {
			return err
		}
		for _, container := range containers {
			if task, err := container.Task(ctx, nil); err == nil {
				_, err := task.Delete(ctx, client.WithProcessKill)
				if err != nil {
					return err
				}
			}
			if err := container.Delete(ctx, client.WithSnapshotCleanup); err != nil {
				return err
			}
		}
	}
	return nil
}

// shims finds processes that were started for this daemon's folder.
func (d *containerd) shims(t *testing.T) []int {
	var pids []int
	lines, err := fs.Glob(os.DirFS("/proc"), "[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(filepath.Join("/proc", path))
		if err != nil || !bytes.Contains(line, []byte(d.folder+"/")) || !bytes.Contains(line, []byte("containerd-shim")) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(strings.TrimSuffix(path, "/cmdline"), "%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
