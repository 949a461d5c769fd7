package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/test/blockdev"
)

func tree(t *testing.T) *Tree {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("cgroups are root's")
	}
	tr, err := Open("/sys/fs/cgroup", fmt.Sprintf("nodeagent/cgroup-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Remove(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// inside starts a process that is born in the group.
func inside(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	entrances, err := g.Entrances()
	if err != nil {
		t.Fatal(err)
	}
	// It waits for its first line, so that it is in before it forks.
	c := exec.Command("sh", "-c", "read go; "+script)
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.SysProcAttr = &syscall.SysProcAttr{}
	if g.tree.V2() {
		c.SysProcAttr.UseCgroupFD, c.SysProcAttr.CgroupFD = true, int(entrances[0].Fd())
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range entrances {
		if !g.tree.V2() {
			if _, err := fmt.Fprint(f, c.Process.Pid); err != nil {
				t.Fatal(err)
			}
		}
		_ = f.Close()
	}
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAGroupFromBirthToRemoval(t *testing.T) {
	tr := tree(t)
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	device := blockdev.Number(t)
	g, missing, err := tr.Create("one", Limits{CPU: 500, Memory: 64 << 20, Pids: 16, CPUs: "0", Together: true, IO: []IO{{Device: device, ReadBPS: 1 << 20, WriteIOPS: 100}}})
	if err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	id, err := g.ID()
	if err != nil || id == 0 {
		t.Fatal(id, err)
	}
	// The kernel's own word for the limits.
	for file, want := range map[bool]map[string]string{
		true: {"cpu.max": "50000 100000", "memory.max": "67108864", "memory.oom.group": "1", "pids.max": "16", "cpuset.cpus": "0", "io.max": device + " rbps=1048576 wbps=max riops=max wiops=100"},
		false: {"cpu/cpu.cfs_quota_us": "50000", "memory/memory.limit_in_bytes": "67108864", "pids/pids.max": "16", "cpuset/cpuset.cpus": "0",
			"blkio/blkio.throttle.read_bps_device": device + " 1048576", "blkio/blkio.throttle.write_iops_device": device + " 100"},
	}[tr.V2()] {
		path := filepath.Join("/sys/fs/cgroup", filepath.Dir(file), tr.parent, "one", filepath.Base(file))
		if raw, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(raw)) != want {
			t.Errorf("%s: %q %v, want %s", path, raw, err, want)
		}
	}
	c := inside(t, g, "sh -c 'sleep 600' & sh -c 'sleep 600' & wait")
	for len(must(g.Procs())) < 3 {
		if ctx.Err() != nil {
			t.Fatal("its processes did not start")
		}
		time.Sleep(time.Millisecond)
	}
	s := g.Stats()
	if s.Pids == nil || *s.Pids < 3 || s.CPU == nil || *s.CPU == 0 || s.Memory == nil || *s.Memory == 0 || s.OOMKills == nil {
		t.Errorf("stats %+v", s)
	}
	usage, err := g.CPUUsage()
	if err != nil || usage == nil {
		t.Fatal("no file of its CPU time: ", err)
	}
	defer usage.Close()
	raw := make([]byte, 512)
	for read := range 2 {
		if !counts(usage, raw) {
			t.Errorf("its CPU time cannot be read for the %d. time: %q", read+1, raw)
		}
	}
	again, err := tr.Load("one")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := again.ID(); got != id {
		t.Errorf("loaded: id %d, want %d", got, id)
	}
	if err := again.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("its process ended with %v", err)
	}
	if pids := must(again.Procs()); len(pids) > 0 {
		t.Errorf("left: %v", pids)
	}
	if err := again.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Load("one"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its removal: %v", err)
	}
}

// counts reads what a file tells of CPU time.
func counts(f *os.File, raw []byte) bool {
	n, err := f.ReadAt(raw, 0)
	return n > 0 && n < len(raw) && errors.Is(err, io.EOF)
}

func must(pids []int, err error) []int {
	if err != nil {
		panic(err)
	}
	return pids
}

func TestWhatCannotBeEnforcedIsNamed(t *testing.T) {
	tr := tree(t)
	g, missing, err := tr.Create("two", Limits{CPUs: "4095", Pids: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if len(missing) != 1 || missing[0].Limit != "cpuset cpus" {
		t.Errorf("missing: %v", missing)
	}
}

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	tr := tree(t)
	for _, name := range []string{"", ".", "..", "a/b", "../x", "a\nb"} {
		if _, _, err := tr.Create(name, Limits{}); err == nil {
			t.Errorf("%q was made", name)
		}
	}
}

func TestSumIO(t *testing.T) {
	for _, c := range []struct {
		raw, key string
		want     int64
	}{
		{"8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=6\n", "rbytes=", 15},
		{"8:0 Read 10\n8:0 Write 7\n8:16 Write 3\nTotal 20\n", "Write ", 10},
		{"", "rbytes=", 0},
	} {
		if got := sumIO(c.raw, c.key); *got != c.want {
			t.Errorf("%q %q: %d, want %d", c.raw, c.key, *got, c.want)
		}
	}
}
