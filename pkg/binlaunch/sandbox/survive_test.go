package sandbox

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// agent is a process that launches what is missing of n tasks, and tells each
// start. It is killed over and over.
func agent(args []string) {
	self, _ := os.Executable()
	l, err := New(Options{State: args[0], CgroupParent: args[1], Keeper: self})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	begun := time.Now()
	tasks, err := l.Attach(context.Background())
	fmt.Println("attached", len(tasks), time.Since(begun), err)
	known := map[string]bool{}
	for _, t := range tasks {
		known[t.ID()] = true
		fmt.Println("has", t.ID(), t.Pid(), t.start)
	}
	n, _ := strconv.Atoi(args[3])
	for i := range n {
		if s := survivor(args[2], i); !known[s.ID] {
			t, _, err := l.Start(context.Background(), s)
			if err != nil {
				fmt.Println("error", err)
				continue
			}
			fmt.Println("has", t.ID(), t.Pid(), t.start)
		}
	}
	fmt.Println("all")
	time.Sleep(time.Hour)
}

// survivor is a task whose end is known beforehand: every other one runs on.
func survivor(folder string, i int) Spec {
	script := fmt.Sprintf("echo begin %d; sleep 0.%02d; echo end %d; exit %d", i, i%100, i, i%90)
	if i%2 == 0 {
		script = fmt.Sprintf("echo begin %d; exec sleep 3600", i)
	}
	return Spec{ID: fmt.Sprintf("t.%d", i), Dir: filepath.Join(folder, strconv.Itoa(i)), Command: []string{"sh", "-c", script}, Resources: Resources{Memory: 64 << 20, Pids: 16}}
}

func TestTasksOutliveTheirAgents(t *testing.T) {
	tasks, kills, within := 100, 50, 150
	if testing.Short() { // and for emulated machines, where a task takes a second to start
		tasks, kills, within = 12, 5, 3000
	}
	l := newLauncher(t, nil)
	folder := t.TempDir()
	seen := map[string]string{} // id: pid and start time
	for range kills {
		runAgent(t, l, folder, tasks, seen, time.Duration(10+rand.IntN(within))*time.Millisecond)
	}
	runAgent(t, l, folder, tasks, seen, 0)
	if len(seen) != tasks {
		t.Errorf("%d tasks were started, want %d", len(seen), tasks)
	}
	l2, err := New(l.o)
	if err != nil {
		t.Fatal(err)
	}
	defer l2.Close()
	begun := time.Now()
	found, err := l2.Attach(soon(t))
	if err != nil {
		t.Error(err)
	}
	took := time.Since(begun)
	t.Logf("attached to %d tasks in %s", len(found), took)
	if took > 20*time.Second { // a tenth of a second, where nothing else runs
		t.Errorf("attaching took %s", took)
	}
	if len(found) != tasks {
		t.Errorf("%d tasks are there, want %d", len(found), tasks)
	}
	for _, task := range found {
		checkSurvivor(t, task, seen)
	}
}

func checkSurvivor(t *testing.T, task *Task, seen map[string]string) {
	t.Helper()
	i, err := strconv.Atoi(strings.TrimPrefix(task.ID(), "t."))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(task.Pid(), " ", task.start); got != seen[task.ID()] {
		t.Errorf("%s is process %s, was %s", task.ID(), got, seen[task.ID()])
	}
	want := fmt.Sprintf("begin %d\n", i)
	if i%2 == 1 {
		e, err := task.Wait(soon(t))
		if err != nil || e.Code != i%90 || e.Lost {
			t.Errorf("%s: %+v %v", task.ID(), e, err)
		}
		want += fmt.Sprintf("end %d\n", i)
	} else {
		says(t, task, "begin")
		if pids, err := task.group.Procs(); err != nil || len(pids) != 1 || pids[0] != task.Pid() {
			t.Errorf("%s: in its cgroup %v %v", task.ID(), pids, err)
		}
		if err := task.Stop(soon(t), time.Second); err != nil {
			t.Error(err)
		}
	}
	if got := outputOf(t, task); got != want {
		t.Errorf("%s wrote %q", task.ID(), got)
	}
	if err := task.Forget(soon(t)); err != nil {
		t.Error(err)
	}
}

// runAgent starts an agent, notes what it tells and kills it; after 0 it waits
// until all tasks are started.
func runAgent(t *testing.T, l *Launcher, folder string, tasks int, seen map[string]string, after time.Duration) {
	t.Helper()
	c := exec.Command(l.o.Keeper, "act", "agent", l.o.State, l.o.CgroupParent, folder, strconv.Itoa(tasks))
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if after > 0 {
		kill := time.AfterFunc(after, func() { _ = c.Process.Kill() })
		defer kill.Stop()
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := lines.Text()
		if line == "all" && after == 0 {
			_ = c.Process.Kill()
		}
		if strings.HasPrefix(line, "error") {
			t.Error(line)
		}
		f := strings.Fields(line)
		if len(f) == 4 && f[0] == "has" {
			who := f[2] + " " + f[3]
			if before, ok := seen[f[1]]; ok && before != who {
				t.Errorf("%s is process %s now, was %s: a second copy", f[1], who, before)
			}
			seen[f[1]] = who
		}
	}
	_, _ = io.Copy(io.Discard, out)
	_ = c.Wait()
}

func TestAKilledKeeperTakesItsTaskWithIt(t *testing.T) {
	for _, profile := range []Profile{Isolated, Privileged} {
		t.Run(string(profile), func(t *testing.T) {
			l := newLauncher(t, func(o *Options) { o.AllowPrivileged = true })
			s := acting(t, "keeperless.1", "stubborn")
			s.Profile = profile
			task := start(t, l, s)
			says(t, task, "ready")
			if err := unix.Kill(keeperOf(t, task), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			e, _ := ends(t, task)
			if !e.Lost || e.Code != -1 {
				t.Errorf("exit %+v", e)
			}
			// Until is fair: the kernel ends the namespace in its own time.
			if err := task.Stop(soon(t), 0); err != nil {
				t.Error(err)
			}
			if pids, _ := task.group.Procs(); len(pids) > 0 {
				t.Errorf("left: %v", pids)
			}
		})
	}
}

// A keeper that waits for a launch may be killed: the launch does not notice.
func TestAKilledWaitingKeeperIsReplaced(t *testing.T) {
	l := newLauncher(t, nil)
	var s spawned
	select {
	case s = <-l.ready: // New has started it, and the next launch is what starts another
	case <-soon(t).Done():
		t.Fatal("no keeper waits")
	}
	if err := unix.Kill(s.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// It has ended, and its number stays its own: the launch reaps it.
	if err := unix.Waitid(unix.P_PID, s.pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	l.ready <- s
	if e, _ := ends(t, start(t, l, acting(t, "replaced.1", "exit", "4"))); e.Code != 4 {
		t.Errorf("exit %+v", e)
	}
}

func TestJudge(t *testing.T) {
	k := kept{BootID: "b", CgroupID: 7}
	for name, c := range map[string]struct {
		f    found
		want finding
	}{
		"no record":          {found{boot: "b"}, nothing},
		"another boot":       {found{isKept: true, kept: k, boot: "c", started: map[string]string{}}, nothing},
		"runs":               {found{isKept: true, kept: k, boot: "b", locked: true, cgroup: 7, started: map[string]string{}}, running},
		"another cgroup":     {found{isKept: true, kept: k, boot: "b", locked: true, cgroup: 8, started: map[string]string{}}, gone},
		"ended":              {found{isKept: true, kept: k, boot: "b", cgroup: 7, started: map[string]string{}, exit: map[string]string{}}, over},
		"ended, still there": {found{isKept: true, kept: k, boot: "b", locked: true, cgroup: 7, started: map[string]string{}, exit: map[string]string{}}, over},
		"keeper killed":      {found{isKept: true, kept: k, boot: "b", cgroup: 7, started: map[string]string{}}, gone},
		"is being started":   {found{isKept: true, kept: k, boot: "b", locked: true, cgroup: 7}, early},
		"never started":      {found{isKept: true, kept: k, boot: "b", cgroup: 7}, nothing},
	} {
		if got := judge(c.f); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
