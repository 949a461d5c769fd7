package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

func TestATaskCannotGetOut(t *testing.T) {
	for _, profile := range []Profile{Isolated, HostObserver} {
		t.Run(string(profile), func(t *testing.T) {
			l := newLauncher(t, nil)
			secret := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := acting(t, "attack.1", "attack", secret, l.o.State, filepath.Join(l.o.State, "attack.1", plan.ExitFile))
			s.Profile = profile
			task := start(t, l, s)
			e, out := ends(t, task)
			for line := range strings.Lines(out) {
				// A host-observer sees what any user of the host does.
				if strings.HasPrefix(line, "BREACH") {
					t.Error(strings.TrimSpace(line))
				}
			}
			if e.Code != 0 || !strings.Contains(out, "end\n") {
				t.Errorf("exit %+v\n%s", e, out)
			}
		})
	}
}

// The positive control: without the locks the same attacks succeed, so the test
// above can fail.
func TestTheAttacksAreReal(t *testing.T) {
	l := newLauncher(t, func(o *Options) { o.AllowPrivileged = true })
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := acting(t, "attack.2", "control", secret)
	s.Profile = Privileged
	_, out := ends(t, start(t, l, s))
	for _, want := range []string{"BREACH read " + secret, "BREACH mount", "BREACH unshare mount", "BREACH chroot"} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("a privileged task was refused: %s\n%s", want, out)
		}
	}
}

func TestExitStatusCannotBeForged(t *testing.T) {
	l := newLauncher(t, nil)
	// It leaves files of the keeper's names wherever it can write.
	s := Spec{ID: "forge.1", Dir: filepath.Join(t.TempDir(), "s"), Command: []string{"sh", "-c", `
		for d in . /tmp /dev/shm /run / /var; do for f in exit started record.json lock; do echo "code 0" 2>/dev/null > $d/$f; done; done
		echo "code 0" >&3 2>/dev/null; echo "code 0"; exit 7`}}
	e, _ := ends(t, start(t, l, s))
	if e.Code != 7 {
		t.Errorf("exit %+v, want 7", e)
	}
}

func TestAForkBombIsBounded(t *testing.T) {
	l := newLauncher(t, nil)
	s := acting(t, "fork.1", "fork")
	// The limit of processes must be met long before that of memory, or the kernel
	// may kill the bomb for that: each of them takes some 7 MiB.
	s.Resources.Pids, s.Resources.Memory = 24, 512<<20
	task := start(t, l, s)
	e, out := ends(t, task)
	stats, err := task.Stats()
	if err != nil || stats.PidsRefused == nil || *stats.PidsRefused == 0 {
		t.Errorf("the kernel refused no fork: %+v %v; exit %+v\n%s", stats, err, e, out)
	}
	// The program may also end itself when it gets no thread.
	if e.OOMKilled || strings.Contains(out, "forked 500") {
		t.Errorf("exit %+v\n%s", e, out)
	}
	if pids, err := task.group.Procs(); err != nil || len(pids) > 0 {
		t.Errorf("left after its end: %v %v", pids, err)
	}
}

func TestAMemoryBombEndsAsAGroupAndIsTold(t *testing.T) {
	for _, what := range []string{"memory", "memory-child"} {
		t.Run(what, func(t *testing.T) {
			l := newLauncher(t, nil)
			s := acting(t, "oom."+what, what)
			s.Resources.Memory = 48 << 20
			task := start(t, l, s)
			e, err := task.Wait(soon(t))
			if err != nil {
				t.Fatal(err)
			}
			if !e.OOMKilled || e.Code != -1 {
				t.Errorf("exit %+v", e)
			}
			if pids, _ := task.group.Procs(); len(pids) > 0 {
				t.Errorf("left after its end: %v", pids)
			}
		})
	}
}

func TestOutputCannotFillTheDisk(t *testing.T) {
	l := newLauncher(t, nil)
	s := acting(t, "shout.1", "shout", "3000000")
	s.Output = Output{MaxBytes: 100_000, Files: 3}
	task := start(t, l, s)
	if e, _ := ends(t, task); e.Code != 0 || e.Dropped != 0 {
		t.Errorf("exit %+v", e)
	}
	files, err := filepath.Glob(s.Dir + ".output/*")
	if err != nil || len(files) != 3 {
		t.Fatalf("files %v %v", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > 100_000 {
			t.Errorf("%s: %v %v", f, st.Size(), err)
		}
	}
	out := outputOf(t, task)
	const last = 3_000_000/10 - 1
	if !strings.HasSuffix(out, fmt.Sprintf("%09d\n", last)) {
		t.Errorf("its last line is %q", out[len(out)-11:])
	}
	// What is there is without a gap.
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	for i := range lines {
		if want := fmt.Sprintf("%09d", last-len(lines)+1+i); i > 0 && lines[i] != want {
			t.Fatalf("line %d is %q, want %q", i, lines[i], want)
		}
	}
}

func TestTheSandboxIsBounded(t *testing.T) {
	for _, how := range []string{"many", "deleted", "one"} {
		t.Run(how, func(t *testing.T) {
			l := newLauncher(t, nil)
			s := acting(t, "fill."+how, "fill", how)
			// What it writes counts as its memory until it is on the disk: some 200 MB
			// until its folder is looked at, and it must not end for that.
			s.Resources.Disk, s.Resources.Memory = 20<<20, 1<<30
			task := start(t, l, s)
			if how == "one" {
				// One file stops at once, by SIGXFSZ or EFBIG.
				e, out := ends(t, task)
				if !strings.Contains(out, "file too large") && e.Signal != int(unix.SIGXFSZ) {
					t.Errorf("exit %+v\n%s", e, out)
				}
				return
			}
			if e, out := ends(t, task); e.Reason != "disk" || e.Code != -1 {
				t.Errorf("exit %+v\n%s", e, out)
			}
		})
	}
}

func TestAnOrphanEndsWithItsTask(t *testing.T) {
	l := newLauncher(t, nil)
	task := start(t, l, acting(t, "orphan.1", "orphan"))
	begun := time.Now()
	e, out := ends(t, task)
	if e.Code != 0 || !strings.Contains(out, "child ") {
		t.Errorf("exit %+v\n%s", e, out)
	}
	if pids, _ := task.group.Procs(); len(pids) > 0 {
		t.Errorf("left after its end: %v", pids)
	}
	if since := time.Since(begun); since > 30*time.Second { // the child would live for an hour
		t.Errorf("its end took %s", since)
	}
}

func TestPrivilegedMustBeAllowed(t *testing.T) {
	l := newLauncher(t, nil)
	s := acting(t, "privileged.1", "say", "x")
	s.Profile = Privileged
	if _, _, err := l.Start(soon(t), s); err == nil || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("err %v", err)
	}
}
