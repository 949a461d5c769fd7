package fetch

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
// lives in another root.
func TestJailLeavesTheHostAlone(t *testing.T) {
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
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &own); err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		var st unix.Stat_t
		if unix.Stat(task, &st) == nil && st.Ino != own.Ino {
			t.Errorf("%s is another mount namespace", task)
		}
	}
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
