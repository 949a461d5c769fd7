package parts

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// A byte of a program rots on the disk while the node is down: no time, size or
// inode tells of it. After the reboot it is found before it is run, and fetched
// again.
func TestRottenByteIsFoundAfterReboot(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a file system of its own")
	}
	n := newNode(t)
	image := filepath.Join(t.TempDir(), "image")
	kept := filepath.Join(n.root, "store")
	must := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	must("truncate", "-s", "128M", image)
	must("mkfs.ext4", "-q", "-b", "4096", image)
	must("mkdir", kept)
	mount := func() { t.Helper(); must("mount", "-o", "loop", image, kept) }
	mount()
	t.Cleanup(func() { _ = unix.Unmount(kept, unix.MNT_DETACH) })

	b := n.server("one", 1, v1alpha1.Port{Name: "http"})
	n.agent(b)
	first := n.up("web", 1)
	if n.sent.Load() != 1 {
		t.Fatalf("fetched %d times", n.sent.Load())
	}

	// The plug is pulled: nothing is left of what runs, nor of /run.
	n.kill()
	removeCgroups(t, n.cgroup)
	must("find", n.state, "-mindepth", "1", "-delete")
	program := filepath.Join(kept, "entries", strings.TrimPrefix(first.Status.Digest, "sha256:"), "files", "program")
	var before, after unix.Stat_t
	if err := unix.Stat(program, &before); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	must("umount", kept)
	// Until the task's own view of it has gone too the file system is in use, and
	// what is mounted next is that very one with all that it has read.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := exec.Command("losetup", "-j", image).CombinedOutput()
		if err == nil && len(out) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the image is still in use: %v %s", err, out)
		}
	}
	rot(t, image, content[8192:12288])
	mount()
	rotten, err := os.ReadFile(program)
	if err != nil || bytes.Equal(rotten, content) {
		t.Fatalf("the byte is as it was, %v", err)
	}
	if err := unix.Stat(program, &after); err != nil || before.Ino != after.Ino || before.Size != after.Size || before.Ctim != after.Ctim || before.Mtim != after.Mtim {
		t.Fatalf("stat tells of it: %+v, was %+v, %v", after, before, err)
	}

	n.boot = "another boot"
	n.agent(b)
	again := n.up("web", 1)
	if answer, err := ask(again.Status.Ports[0].Port); answer != "one" {
		t.Errorf("answered %q, %v", answer, err)
	}
	if now, err := os.ReadFile(program); err != nil || !bytes.Equal(now, content) || n.sent.Load() != 2 || again.Status.Digest != first.Status.Digest {
		t.Errorf("fetched %d times; digest %s, was %s; %v", n.sent.Load(), again.Status.Digest, first.Status.Digest, err)
	}
	n.end()
}

// rot changes a byte wherever a block of a file system's image has this content.
func rot(t *testing.T, image string, block []byte) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for at := 0; at < len(all); at += len(block) {
		if bytes.Equal(all[at:at+len(block)], block) {
			found = true
			if _, err := f.WriteAt([]byte{block[100] ^ 1}, int64(at+100)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found {
		t.Fatal("the file's content is not in the image")
	}
}
