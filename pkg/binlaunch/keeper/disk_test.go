package keeper

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

func TestNextPause(t *testing.T) {
	const s = 5 * time.Second
	pause := s
	for _, c := range []struct {
		grew bool
		want time.Duration
	}{{true, s}, {false, 2 * s}, {false, 4 * s}, {false, 8 * s}, {false, 12 * s}, {false, 12 * s}, {true, s}} {
		if pause = nextPause(pause, s, c.grew); pause != c.want {
			t.Errorf("got %s, want %s", pause, c.want)
		}
	}
}

// aDisk is that of a keeper whose task has the sandbox folder; usage is the file
// in which its CPU time would be counted.
func aDisk(t *testing.T, sandbox string, most int64) (d *disk, usage string) {
	t.Helper()
	usage = filepath.Join(t.TempDir(), "usage")
	write(t, usage, "1\n")
	open := func(path string, flags int) int {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	k := &keeper{plan: &plan.Plan{Disk: most, DiskEverySeconds: 5}, proc: -1}
	k.files.sandbox, k.files.usage = open(sandbox, unix.O_DIRECTORY), open(usage, unix.O_RDONLY)
	return newDisk(k), usage
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAFolderIsLookedAtWhenItsTaskRan(t *testing.T) {
	sandbox := t.TempDir()
	d, usage := aDisk(t, sandbox, 1<<20)
	look := func(when string, want bool) {
		t.Helper()
		if over := d.look(); over != want {
			t.Errorf("%s: over %v, want %v", when, over, want)
		}
	}
	look("at first", false)
	big := make([]byte, 2<<20)
	write(t, filepath.Join(sandbox, "big"), string(big))
	look("written by another one", false)
	write(t, usage, "2\n")
	look("the task ran", true)
	look("the task rests", false)
	d.looked = d.looked.Add(-unseen)
	look("the task rests for long", true)
	d.k.files.usage = -1
	look("nobody knows whether it ran", true)
}

// tree makes files in folders, more than one buffer of names, with links.
func tree(t *testing.T, root string) {
	t.Helper()
	for i := range 300 {
		dir := filepath.Join(root, fmt.Sprintf("folder-%d", i%7), "below")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, fmt.Sprintf("a-file-with-quite-a-long-name-%d", i)), string(make([]byte, 50*i)))
	}
	if err := os.Symlink("/", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
}

func TestUse(t *testing.T) {
	sandbox := t.TempDir()
	tree(t, sandbox)
	d, _ := aDisk(t, sandbox, 1<<40)
	var want int64
	err := filepath.WalkDir(sandbox, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == sandbox {
			return err
		}
		info, err := e.Info()
		if err == nil {
			want += info.Sys().(*syscall.Stat_t).Blocks * sector
		}
		return err
	})
	if got := d.use(); err != nil || got != want {
		t.Errorf("%d bytes, want %d, %v", got, want, err)
	}
}

func TestLooksLeaveNoGarbage(t *testing.T) {
	sandbox := t.TempDir()
	write(t, filepath.Join(sandbox, "file"), "x")
	d, _ := aDisk(t, sandbox, 1<<40)
	d.k.files.usage = -1 // so that each look is one
	const most = 2       // the folder's name and its terminated copy
	if n := testing.AllocsPerRun(100, func() { d.look() }); n > most {
		t.Errorf("%v allocations a look, want %d at most", n, most)
	}
}

func TestPollIsNotCutShort(t *testing.T) {
	begun := time.Now()
	if poll(nil, 20*time.Millisecond) {
		t.Error("none of none was ready")
	}
	if took := time.Since(begun); took < 20*time.Millisecond {
		t.Errorf("it took %s", took)
	}
}
