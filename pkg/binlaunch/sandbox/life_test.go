package sandbox

import (
	"context"
	"errors"
	"fmt"

	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHowTasksEnd(t *testing.T) {
	l := newLauncher(t, nil)
	for _, c := range []struct {
		name string
		what []string
		want Exit
	}{
		{"code 0", []string{"say", "x"}, Exit{}},
		{"code 3", []string{"exit", "3"}, Exit{Code: 3}},
		{"code 255", []string{"exit", "255"}, Exit{Code: 255}},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := start(t, l, acting(t, strings.ReplaceAll(c.name, " ", "."), c.what...))
			e, _ := ends(t, task)
			if time.Since(e.At) > time.Minute {
				t.Errorf("it ended at %s", e.At)
			}
			if e.At = (time.Time{}); e != c.want {
				t.Errorf("got %+v, want %+v", e, c.want)
			}
		})
	}
	t.Run("signal", func(t *testing.T) {
		task := start(t, l, Spec{ID: "signal", Dir: filepath.Join(t.TempDir(), "s"), Command: []string{"sh", "-c", "kill -SEGV $$"}})
		if e, _ := ends(t, task); e.Signal != int(unix.SIGSEGV) || e.Code != -1 || e.OOMKilled {
			t.Errorf("exit %+v", e)
		}
	})
}

func TestStartTellsWhyItCannot(t *testing.T) {
	l := newLauncher(t, nil)
	for name, c := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"no program":    {func(s *Spec) { s.Command = []string{"./nothing"} }, "the task cannot execute: no such file"},
		"not in PATH":   {func(s *Spec) { s.Command = []string{"no-such-program"} }, "is in no folder of its PATH"},
		"no profile":    {func(s *Spec) { s.Profile = "x" }, `no profile "x"`},
		"no user":       {func(s *Spec) { s.User = "nobody-at-all" }, "the host has no user"},
		"rlimit":        {func(s *Spec) { s.Rlimits = []Rlimit{{"nofile", 1, 1 << 62}} }, "cannot set a limit of resources: operation not permitted"},
		"rlimit's name": {func(s *Spec) { s.Rlimits = []Rlimit{{"x", 1, 1}} }, `no rlimit "x"`},
		"cores":         {func(s *Spec) { s.Resources.CPUs = "4096" }, "cannot enforce cpuset cpus"},
		"root":          {func(s *Spec) { s.Root = "/no/such/folder" }, "cannot make the task's view"},
		"dir":           {func(s *Spec) { s.Dir = "relative" }, "must be an absolute path"},
		"id":            {func(s *Spec) { s.ID = "../x" }, "the id"},
	} {
		t.Run(name, func(t *testing.T) {
			s := acting(t, "wrong."+strings.ReplaceAll(name, " ", "-")[:2], "say", "x")
			c.change(&s)
			_, _, err := l.Start(soon(t), s)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err %v, want %q", err, c.want)
			}
		})
	}
	if left, _ := os.ReadDir(l.o.State); slices.ContainsFunc(left, func(e os.DirEntry) bool { return !shared(e.Name()) }) {
		t.Errorf("left in the state folder: %v", left)
	}
}

func TestBestEffortStartsAndTells(t *testing.T) {
	l := newLauncher(t, nil)
	s := acting(t, "effort.1", "say", "x")
	s.BestEffort, s.Resources.CPUs = true, "4096"
	task, r, err := l.Start(soon(t), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = task.Forget(soon(t)) })
	if e, _ := ends(t, task); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	if len(r.NotEnforced) != 1 || !strings.Contains(r.NotEnforced[0], "cpuset cpus") {
		t.Errorf("not enforced: %q", r.NotEnforced)
	}
}

func TestNoSecondCopy(t *testing.T) {
	l := newLauncher(t, nil)
	s := acting(t, "twice.1", "stubborn")
	start(t, l, s)
	if _, _, err := l.Start(soon(t), s); err == nil || !strings.Contains(err.Error(), "a second time") {
		t.Errorf("err %v", err)
	}
}

func TestStop(t *testing.T) {
	l := newLauncher(t, nil)
	for _, c := range []struct {
		what   string
		grace  time.Duration
		signal unix.Signal
	}{{"sleep", time.Minute, unix.SIGTERM}, {"stubborn", 100 * time.Millisecond, unix.SIGKILL}} {
		t.Run(c.what, func(t *testing.T) {
			task := start(t, l, acting(t, "stop."+c.what, c.what))
			says(t, task, map[string]string{"sleep": "pid", "stubborn": "ready"}[c.what])
			begun := time.Now()
			if err := task.Stop(soon(t), c.grace); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 30*time.Second || (c.what == "stubborn" && took < c.grace) {
				t.Errorf("it took %s", took)
			}
			e, _ := ends(t, task)
			if e.Signal != int(c.signal) {
				t.Errorf("exit %+v", e)
			}
			if pids, err := task.group.Procs(); err != nil || len(pids) > 0 {
				t.Errorf("left: %v %v", pids, err)
			}
			if err := task.Stop(soon(t), 0); err != nil {
				t.Errorf("a second stop: %v", err)
			}
		})
	}
}

func TestListeningSocketsArePassed(t *testing.T) {
	l := newLauncher(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := acting(t, "listen.1", "listen")
	s.Files, s.FileNames = []*os.File{file}, []string{"web"}
	task := start(t, l, s)
	if got := says(t, task, "listen "); got != "true 1 web" {
		t.Errorf("its LISTEN variables: %q", got)
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 5)
	if _, err := c.Read(b); err != nil || string(b) != "hello" {
		t.Errorf("%q %v", b, err)
	}
	// An agent that comes later takes the socket back out of the task.
	pidfd, err := unix.PidfdOpen(task.Pid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
}

func TestStatsComeFromTheCgroup(t *testing.T) {
	l := newLauncher(t, nil)
	task := start(t, l, acting(t, "stats.1", "stubborn"))
	says(t, task, "ready")
	s, err := task.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.CPU == nil || *s.CPU <= 0 || s.Memory == nil || *s.Memory <= 0 || s.Pids == nil || *s.Pids < 1 || s.OOMKills == nil || *s.OOMKills != 0 || s.Throttled == nil {
		t.Errorf("%+v", s)
	}
	if l.tree.V2() && (s.MemPressure == nil || s.WriteBytes == nil) {
		t.Errorf("%+v", s)
	}
}

// The keeper's own cost and place.
func TestTheKeeperIsOutsideOfTheTasksCgroup(t *testing.T) {
	l := newLauncher(t, nil)
	task := start(t, l, acting(t, "place.1", "stubborn"))
	says(t, task, "ready")
	pids, err := task.group.Procs()
	if err != nil || len(pids) != 1 || pids[0] != task.Pid() {
		t.Errorf("in the task's cgroup: %v %v, want %d", pids, err, task.Pid())
	}
	keepers, err := l.tree.Load(keepersGroup)
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := keepers.Procs(); err != nil || !slices.Contains(pids, keeperOf(t, task)) {
		t.Errorf("in the keepers' cgroup: %v %v, not %d", pids, err, keeperOf(t, task))
	}
	// In no hierarchy is it where the agent is: who ends the agent's container or
	// service would end it too.
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", keeperOf(t, task)))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "/"+keepersGroup) {
			t.Errorf("the keeper is in the cgroup %s", line)
		}
	}
}

// keeperOf is the task's parent.
func keeperOf(t *testing.T, task *Task) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", task.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	pid, err := strconv.Atoi(strings.Fields(after)[1])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestHostObserverSeesTheHost(t *testing.T) {
	l := newLauncher(t, nil)
	s := acting(t, "observer.1", "look")
	s.Profile = HostObserver
	before, _ := filepath.Glob("/proc/[0-9]*")
	e, out := ends(t, start(t, l, s))
	after, _ := filepath.Glob("/proc/[0-9]*")
	there := 0
	for _, p := range before {
		// Those that come and go beside it, it need not have seen.
		if !slices.Contains(after, p) {
			continue
		}
		if there++; !strings.Contains(out, "sees "+filepath.Base(p)+"\n") {
			t.Errorf("it did not see the process %s", p)
		}
	}
	if there < 2 {
		t.Errorf("%d of %d processes were there all the time", there, len(before))
	}
	for _, want := range []string{"root home\n", "root sys\n", "cwd /tmp/sandbox\n", "own file <nil>\n", "CapEff: 0000000000000000"} {
		if !strings.Contains(out, want) {
			t.Errorf("its output lacks %q (exit %+v)\n%s", want, e, out)
		}
	}
}

func TestPrivateNetwork(t *testing.T) {
	l := newLauncher(t, nil)
	s := Spec{ID: "net.1", Dir: filepath.Join(t.TempDir(), "s"), Command: []string{"cat", "/proc/net/dev"}, PrivateNetwork: true}
	e, out := ends(t, start(t, l, s))
	if e.Code != 0 || strings.Count(out, ":") != 1 || !strings.Contains(out, "lo:") {
		t.Errorf("exit %+v\n%s", e, out)
	}
}

func TestUsers(t *testing.T) {
	l := newLauncher(t, nil)
	l.facts.passwd = "daemon:x:1:2:daemon:/usr/sbin:/usr/sbin/nologin\n"
	for user, want := range map[string]string{"root": "uid 0 gid 0\n", "1234": "uid 1234 gid 1234\n", "1234:77": "uid 1234 gid 77\n", "daemon": "uid 1 gid 2\n"} {
		s := acting(t, "user."+strings.ReplaceAll(user, ":", "-"), "look")
		s.User = user
		e, out := ends(t, start(t, l, s))
		if e.Code != 0 || !strings.Contains(out, want) || !strings.Contains(out, "CapEff: 0000000000000000") {
			t.Errorf("%s: exit %+v\n%s", user, e, out)
		}
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	l := newLauncher(t, nil)
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if _, _, err := l.Start(ctx, acting(t, "late.1", "stubborn")); !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
	tasks, err := l.Attach(soon(t))
	if err != nil || len(tasks) > 0 {
		t.Errorf("%v %v", tasks, err)
	}
}
