package sandbox

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper"
)

// The test binary is its own keeper and its own attackers, so that it runs on
// machines without a Go toolchain too.
func TestMain(m *testing.M) {
	if os.Args[0] == "nodeagent-keeper" {
		os.Exit(keeper.Main())
	}
	if len(os.Args) > 2 && os.Args[1] == "act" {
		os.Exit(act(os.Args[2], os.Args[3:]))
	}
	os.Exit(m.Run())
}

// newLauncher starts with nothing and checks that nothing is left.
func newLauncher(t *testing.T, change func(*Options)) *Launcher {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a launcher is root")
	}
	o := optionsFor(t)
	if change != nil {
		change(&o)
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { leaveNothing(t, o) })
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func optionsFor(t *testing.T) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	state, err := os.MkdirTemp("/dev/shm", "nodeagent-test-")
	if err != nil {
		state = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	return Options{State: state, Keeper: self, CgroupParent: fmt.Sprintf("nodeagent/test-%d-%d", os.Getpid(), time.Now().UnixNano())}
}

// leaveNothing ends what a failed test has left, and fails a test that left
// something.
func leaveNothing(t *testing.T, o Options) {
	t.Helper()
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx := soon(t)
	tasks, err := l.Attach(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, task := range tasks {
		t.Errorf("the test left %s", task.ID())
		if err := task.Stop(ctx, 0); err != nil {
			t.Error(err)
		}
		_ = task.Forget(ctx)
	}
	if err := l.Close(); err != nil { // its own keeper that waits goes too
		t.Error(err)
	}
	group, err := l.tree.Load(keepersGroup)
	if err == nil {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			pids, _ := group.Procs()
			if len(pids) == 0 || time.Now().After(deadline) {
				if len(pids) > 0 {
					t.Errorf("keepers are left: %v", pids)
					_ = group.Kill(ctx)
				}
				break
			}
		}
	}
	if err := l.keepers.Remove(ctx); err != nil {
		t.Error(err)
	}
	if err := l.tree.Remove(); err != nil {
		t.Error(err)
	}
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(stop)
	return ctx
}

// tool is a program of the task's: this test binary, in its Root folder.
func tool(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(self, filepath.Join(root, "tool")); err != nil {
		raw, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "tool"), raw, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func acting(t *testing.T, id string, what ...string) Spec {
	t.Helper()
	return Spec{
		ID: id, Dir: filepath.Join(t.TempDir(), "sandbox"), Root: tool(t), Command: append([]string{"./tool", "act"}, what...),
		Resources: Resources{Memory: 256 << 20, Pids: 64},
	}
}

func start(t *testing.T, l *Launcher, s Spec) *Task {
	t.Helper()
	task, _, err := l.Start(soon(t), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := soon(t)
		_ = task.Stop(ctx, 0)
		_ = task.Forget(ctx)
	})
	return task
}

// ends waits for the end and gives the output too.
func ends(t *testing.T, task *Task) (Exit, string) {
	t.Helper()
	e, err := task.Wait(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	return e, outputOf(t, task)
}

func outputOf(t *testing.T, task *Task) string {
	t.Helper()
	r, err := task.Output(false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// says waits until the task has written a line that begins so.
func says(t *testing.T, task *Task, prefix string) string {
	t.Helper()
	r, err := task.Output(true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all []byte
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		all = append(all, b[:n]...)
		for line := range strings.Lines(string(all)) {
			if rest, ok := strings.CutPrefix(line, prefix); ok && strings.HasSuffix(rest, "\n") {
				return strings.TrimSpace(rest)
			}
		}
		if err != nil {
			e, werr := task.Wait(soon(t))
			t.Fatalf("the task did not say %q: %v; its end: %+v, %v\n%s", prefix, err, e, werr, all)
		}
	}
}
