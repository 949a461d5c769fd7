package fetch

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestJail starts a process in the place of the one that fetches, which tries
// to get out, with Landlock and as on a kernel without it.
func TestJail(t *testing.T) {
	for _, landlock := range []string{"yes", "no"} {
		t.Run("landlock "+landlock, func(t *testing.T) {
			prisoner := filepath.Join(t.TempDir(), "prisoner")
			build := exec.Command("go", "build", "-o", prisoner, "-ldflags", "-X main.landlock="+landlock, "./testdata/prisoner")
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			b := newBench(t, func(o *Options) { o.Executable = prisoner })
			// An abstract socket is in the network namespace, which is shared.
			l, err := net.Listen("unix", "@"+b.server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_, _, err = b.Get(context.Background(), []Artifact{{URL: b.server.URL, Path: "x", Insecure: true}}, nil)
			if err == nil || !strings.Contains(err.Error(), "tried") || strings.Contains(err.Error(), "did") {
				t.Errorf("the prisoner says: %v", err)
			}
			b.clean()
			b.empty()
		})
	}
}

// TestJailLeavesTheHostAlone: no mount stays, and no thread of this process
// lives in another root. It is looked at in a mount namespace of its own, for in
// the host's the tests of other packages mount and unmount meanwhile.
func TestJailLeavesTheHostAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("starts confined processes")
	}
	if os.Getenv("FETCH_ALONE") == "" {
		again := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestJailLeavesTheHostAlone$")
		again.Env = append(os.Environ(), "FETCH_ALONE=yes", "FETCH_HOST="+host)
		again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		out, err := again.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestJailLeavesTheHostAlone") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	b := newBench(t)
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	b.get(Artifact{URL: b.serve("/x", []byte("x")), Insecure: true})
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || string(after) != string(before) {
		t.Errorf("mounts were\n%s\nand are\n%s (%v)", before, after, err)
	}
	// The thread that made the jail ends by itself, a moment after its work.
	left := elsewhere(t)
	for deadline := time.Now().Add(30 * time.Second); len(left) > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		left = elsewhere(t)
	}
	if len(left) > 0 {
		t.Errorf("in another mount namespace are %v", left)
	}
}

// elsewhere are this process's threads that are not in its mount namespace.
func elsewhere(t *testing.T) (left []string) {
	t.Helper()
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &own); err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/mnt")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("this process has no threads: %v", err)
	}
	for _, task := range tasks {
		var st unix.Stat_t
		if unix.Stat(task, &st) == nil && st.Ino != own.Ino {
			left = append(left, task)
		}
	}
	return left
}

// TestNeedsAStaticProgram: a program that needs libraries finds none there.
func TestNeedsAStaticProgram(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Executable = "/bin/sh" })
	b.refused("static program", Artifact{URL: b.serve("/x", []byte("x")), Insecure: true})
}

// TestOwnProgram: by default the process is this program once more, and still
// is when an upgrade put another file in its place.
func TestOwnProgram(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		b := newBench(t) // it has a server and a folder; the fetcher is the other process
		own := filepath.Join(b.dir, "agent")
		build := exec.Command("go", "build", "-o", own, "./testdata/agent")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		cmd := exec.Command(own, filepath.Join(b.dir, "other"), b.serve("/x", []byte("x")), fmt.Sprint(replaced))
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != "fetched\n" {
			t.Errorf("replaced %v: %v, %s", replaced, err, out)
		}
	}
}
