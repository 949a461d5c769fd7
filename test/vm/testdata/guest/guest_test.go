package guest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCgroupV2Alone(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), " cgroup ") {
		t.Errorf("a v1 hierarchy is mounted:\n%s", mounts)
	}
	if os.Getenv("NODEAGENT_VM_SYSTEMD") != "" {
		return // who wants a controller asks for it
	}
	dir := "/sys/fs/cgroup/vm-test"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	for _, file := range []string{"cpu.max", "memory.max", "memory.oom.group", "pids.max", "io.max", "cpuset.cpus"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Errorf("controller is missing: %v", err)
		}
	}
}

// TestSystemdIsProcess1 asks systemd for the service that this test runs in.
func TestSystemdIsProcess1(t *testing.T) {
	if name, err := os.ReadFile("/proc/1/comm"); err != nil || string(name) != "systemd\n" {
		t.Errorf("process 1 is %q, %v", name, err)
	}
	out, err := exec.Command("systemctl", "show", "--property=ControlGroup", "--value", "vm-worker.service").CombinedOutput()
	own, readErr := os.ReadFile("/proc/self/cgroup")
	if err != nil || readErr != nil || string(own) != "0::"+string(out) {
		t.Errorf("systemctl says %q, %v; this process is in %q, %v", out, err, own, readErr)
	}
}

// TestProjectQuota writes over the limit of a project. It is run on file
// systems that have project quota only.
func TestProjectQuota(t *testing.T) {
	const project, limit = 7, 1 << 20
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	setProject(t, fd, project)
	setLimit(t, project, limit)
	err = withoutCap(t, func() error {
		return os.WriteFile(filepath.Join(dir, "file"), make([]byte, 2*limit), 0o644)
	})
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		t.Errorf("error %v, want that the quota is full", err)
	}
}

func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	if err := unix.Mount("overlay", dir+"/merged", "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dir+"/merged", 0); err != nil {
		t.Error(err)
	}
}

func TestShippedParts(t *testing.T) {
	if data, err := os.ReadFile("testdata/word"); err != nil || string(data) != "shipped\n" {
		t.Errorf("testdata holds %q, %v", data, err)
	}
	if out, err := exec.Command("du", "--version").Output(); err != nil || !strings.Contains(string(out), "GNU") {
		t.Errorf("du says %q, %v", out, err)
	}
}

func TestFails(t *testing.T) { t.Error("as it should") }

func TestKilled(*testing.T) { _ = unix.Kill(os.Getpid(), unix.SIGKILL); time.Sleep(time.Minute) }

func TestHangs(*testing.T) { select {} }

func TestPanicsTheKernel(t *testing.T) {
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
}
