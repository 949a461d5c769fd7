//go:build linux

package disk

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// meterContract is what every Meter must do, on a real file system, checked
// against du. It needs root, as the agent does.
func meterContract(t *testing.T, open func(*testing.T) Meter) {
	t.Helper()
	meterContractOn(t, open, func(t *testing.T) (string, Target) {
		dir := filepath.Join(t.TempDir(), "upper")
		must(t, os.Mkdir(dir, 0o755))
		return dir, layerAt(dir)
	}, nil)
}

// beyond is what a way of measuring cannot do by its nature, by the tree's name:
// what must come of it instead.
type beyond map[string]func(t *testing.T, dir string, look Look, err error)

// meterContractOn has layers made by ground.
func meterContractOn(t *testing.T, open func(*testing.T) Meter, ground func(*testing.T) (dir string, target Target), beyond beyond) {
	t.Helper()
	for _, c := range contractTrees() {
		t.Run(c.name, func(t *testing.T) {
			if c.root && testing.Short() {
				t.Skip("needs root")
			}
			dir, target := ground(t)
			c.make(t, dir)
			syncFilesystem(t, dir) // what is written back may take other blocks
			m := open(t)
			if c.during != nil {
				meterNeverWrong(t, m, dir, target, c, beyond[c.name])
				return
			}
			if instead := beyond[c.name]; instead != nil {
				look, err := m.Measure(t.Context(), target)
				instead(t, dir, look, err)
				return
			}
			want := du(t, dir)
			if got := measure(t, m, target).Usage; got != want {
				t.Errorf("usage %+v, du says %+v", got, want)
			}
			if c.change == nil {
				return
			}
			c.change(t, dir)
			syncFilesystem(t, dir)
			want = du(t, dir)
			if got := measure(t, m, target).Usage; got != want {
				t.Errorf("after the change: usage %+v, du says %+v", got, want)
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		_, target := ground(t)
		for _, where := range []*string{&target.Layer.Upper, &target.Layer.Key} {
			if *where != "" {
				*where += "-gone"
			}
		}
		_, err := open(t).Measure(t.Context(), target)
		if !errors.Is(err, ErrGone) {
			t.Errorf("error %v, want ErrGone", err)
		}
	})
	t.Run("file system", func(t *testing.T) {
		_, target := ground(t)
		fs := measure(t, open(t), target).Filesystem
		if fs.Size <= 0 || fs.Used < 0 || fs.Used > fs.Size || fs.Avail > fs.Size-fs.Used {
			t.Errorf("file system %+v makes no sense", fs)
		}
	})
}

const (
	duringLooks = 200 // at a tree in which a writer works
	duringTold  = 20  // figures of them at least, where a look may fail
)

// meterNeverWrong takes looks while a writer works. None may tell less than what
// stays nor more than all there is at a time; the one after the end tells what
// du does. What fails goes to instead.
func meterNeverWrong(t *testing.T, m Meter, dir string, target Target, c contractTree, instead func(*testing.T, string, Look, error)) {
	t.Helper()
	agreesOn(t, m, dir, target)
	least := du(t, dir)
	most := least.plus(c.room)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { c.during(t, dir, stop) })
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer end()
	deadline := time.Now().Add(time.Minute)
	for looks, told := 0, 0; looks < duringLooks || told < duringTold; looks++ {
		look, err := m.Measure(t.Context(), target)
		switch got := look.Usage; {
		case err != nil && instead == nil:
			t.Fatalf("look %d: %v", looks, err)
		case err != nil:
			instead(t, dir, look, err)
		case got.Bytes < least.Bytes || got.Bytes > most.Bytes || got.Inodes < least.Inodes || got.Inodes > most.Inodes:
			t.Errorf("look %d: %+v, want from %+v to %+v", looks, got, least, most)
		default:
			told++
		}
		if looks >= duringLooks && time.Now().After(deadline) {
			t.Fatalf("%d figures in %d looks, want %d", told, looks, duringTold)
		}
	}
	end()
	agreesOn(t, m, dir, target)
}

func syncFilesystem(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	must(t, errors.Join(unix.Syncfs(int(f.Fd())), f.Close()))
}

type contractTree struct {
	name         string
	root         bool
	make, change func(t *testing.T, dir string)

	// during runs while looks are taken, until stop is closed. It takes nothing
	// away of what make made, and adds room at most.
	during func(t *testing.T, dir string, stop <-chan struct{})
	room   Usage
}

func contractTrees() []contractTree {
	return []contractTree{
		{name: "empty", make: func(*testing.T, string) {}},
		{
			name: "plain, then grown, truncated, renamed over, removed",
			make: func(t *testing.T, dir string) {
				for i := range 20 {
					write(t, filepath.Join(dir, "a/b", strconv.Itoa(i)), i*3000)
				}
			},
			change: func(t *testing.T, dir string) {
				b := filepath.Join(dir, "a/b")
				write(t, filepath.Join(b, "1"), 1<<20)
				must(t, os.Truncate(filepath.Join(b, "19"), 1))
				must(t, os.Rename(filepath.Join(b, "18"), filepath.Join(b, "17")))
				must(t, os.Remove(filepath.Join(b, "16")))
			},
		},
		{name: "links out", make: func(t *testing.T, dir string) {
			huge := filepath.Join(t.TempDir(), "huge")
			write(t, huge, 8<<20)
			must(t, os.Symlink("/", filepath.Join(dir, "root")))
			must(t, os.Symlink("/proc/self/root", filepath.Join(dir, "proc")))
			must(t, os.Symlink(huge, filepath.Join(dir, "huge")))
			must(t, os.Symlink("..", filepath.Join(dir, "up")))
			must(t, os.Symlink(strings.Repeat("l", 300), filepath.Join(dir, "long")))
		}},
		{
			name: "hard links inside and outside",
			make: func(t *testing.T, dir string) {
				write(t, filepath.Join(dir, "x/one"), 1<<20)
				outside := filepath.Join(filepath.Dir(dir), "outside")
				write(t, outside, 1<<20)
				for i := range 10 {
					must(t, os.Link(filepath.Join(dir, "x/one"), filepath.Join(dir, "one"+strconv.Itoa(i))))
					must(t, os.Link(outside, filepath.Join(dir, "out"+strconv.Itoa(i))))
				}
			},
			change: func(t *testing.T, dir string) {
				must(t, os.Remove(filepath.Join(dir, "x/one")))
				must(t, os.Remove(filepath.Join(dir, "out3")))
			},
		},
		{name: "FIFO, socket, devices", root: true, make: func(t *testing.T, dir string) {
			must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
			must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
			must(t, unix.Mknod(filepath.Join(dir, "whiteout"), unix.S_IFCHR, 0))
			must(t, unix.Mknod(filepath.Join(dir, "block"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))))
			d, err := os.Open(dir)
			must(t, err)
			t.Cleanup(func() { _ = d.Close() })
			// A socket's path has 108 bytes, which dir may fill.
			l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/sock", d.Fd()))
			must(t, err)
			t.Cleanup(func() { _ = l.Close() })
		}},
		{name: "names", make: func(t *testing.T, dir string) {
			for _, name := range []string{
				"new\nline", "\xff\xfe\x80", " ", "-rf", "...", "..a", ".a", "\x1b[31m", "\u202e", "a\\b",
				strings.Repeat("n", 255), strings.Repeat("ü", 127),
			} {
				write(t, filepath.Join(dir, name), 5000)
				write(t, filepath.Join(dir, "folder", name[:min(len(name), 250)]+".dir", "file"), 5000)
			}
		}},
		{
			name: "sparse, fallocate, punched",
			make: func(t *testing.T, dir string) {
				write(t, filepath.Join(dir, "sparse"), 10)
				must(t, os.Truncate(filepath.Join(dir, "sparse"), 1<<30))
				f, err := os.Create(filepath.Join(dir, "allocated"))
				must(t, err)
				must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 4<<20))
				must(t, f.Close())
				write(t, filepath.Join(dir, "punched"), 4<<20)
			},
			change: func(t *testing.T, dir string) {
				f, err := os.OpenFile(filepath.Join(dir, "punched"), os.O_RDWR, 0)
				must(t, err)
				must(t, f.Sync())
				must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 2<<20))
				must(t, f.Close())
			},
		},
		{
			// Shared blocks count for each file, as du has it. A file system
			// without reflinks (ext4) says so by EOPNOTSUPP: two plain files then.
			name: "reflink",
			make: func(t *testing.T, dir string) {
				write(t, filepath.Join(dir, "one"), 1<<20)
				write(t, filepath.Join(dir, "two"), 0)
				one, err := os.Open(filepath.Join(dir, "one"))
				must(t, err)
				two, err := os.OpenFile(filepath.Join(dir, "two"), os.O_RDWR, 0)
				must(t, err)
				if err := unix.IoctlFileClone(int(two.Fd()), int(one.Fd())); !errors.Is(err, unix.EOPNOTSUPP) {
					must(t, err)
				}
				must(t, errors.Join(one.Close(), two.Close()))
			},
			change: func(t *testing.T, dir string) { write(t, filepath.Join(dir, "two"), 8192) },
		},
		{
			name: "deleted and still open",
			make: func(t *testing.T, dir string) {
				f, err := os.Create(filepath.Join(dir, "open"))
				must(t, err)
				t.Cleanup(func() { must(t, f.Close()) })
				_, err = f.Write(make([]byte, 1<<20))
				must(t, err)
			},
			change: func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "open"))) },
		},
		{
			name: "files that vanish",
			make: func(t *testing.T, dir string) {
				for i := range 300 {
					write(t, filepath.Join(dir, "still", strconv.Itoa(i%10), strconv.Itoa(i)), 4096)
				}
			},
			during: churn,
			// The writer has at most two files of 64 KiB, for which XFS may reserve
			// as much again, and three folders at a time; what is moved in front of
			// a look may be met twice.
			room: Usage{Bytes: 8*65536 + 8*4096, Inodes: 12},
		},
		{name: "5,000 deep", make: func(t *testing.T, dir string) { deep(t, dir, 5000) }},
		{name: "20,000 wide", make: func(t *testing.T, dir string) {
			for i := range 20_000 {
				must(t, os.Mkdir(filepath.Join(dir, fmt.Sprintf("a-folder-%d", i)), 0o755))
			}
		}},
		{name: "mounts inside", root: true, make: func(t *testing.T, dir string) {
			point := filepath.Join(dir, "mnt")
			must(t, os.Mkdir(point, 0o755))
			must(t, unix.Mount("tmpfs", point, "tmpfs", 0, "size=16m"))
			t.Cleanup(func() { must(t, unix.Unmount(point, unix.MNT_DETACH)) })
			write(t, filepath.Join(point, "file"), 1<<20)
			file := filepath.Join(dir, "bound")
			write(t, file, 4096)
			must(t, unix.Mount(filepath.Join(point, "file"), file, "", unix.MS_BIND, ""))
			t.Cleanup(func() { must(t, unix.Unmount(file, unix.MNT_DETACH)) })
		}},
	}
}

// churn makes, renames and removes files and folders.
func churn(t *testing.T, dir string, stop <-chan struct{}) {
	data := make([]byte, 65536)
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		sub := filepath.Join(dir, fmt.Sprintf("tmp%d", i%3))
		file := filepath.Join(sub, "f")
		if err := errors.Join(
			os.Mkdir(sub, 0o755), os.WriteFile(file, data, 0o644),
			os.Rename(file, filepath.Join(dir, "still", "g")), os.Rename(sub, sub+"x"),
			os.Remove(filepath.Join(dir, "still", "g")), os.Remove(sub+"x"),
		); err != nil {
			t.Errorf("writer: %v", err)
			return
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a file of n bytes that are really there, and the folders above.
func write(t testing.TB, file string, n int) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(file), 0o755))
	must(t, os.WriteFile(file, make([]byte, n), 0o644))
}

// deep makes n folders, one in the other, and takes them away at the end:
// os.RemoveAll would go as deep on the stack.
func deep(t testing.TB, dir string, n int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range n {
		must(t, unix.Mkdirat(fd, "d", 0o755))
		next, err := unix.Openat(fd, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
}
