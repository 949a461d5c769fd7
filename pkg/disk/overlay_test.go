//go:build linux

package disk

import (
	"errors"
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

// overlay is a real overlay on a file system of its own, in a loop device.
type overlay struct {
	backing string // the file system
	lower   string
	upper   string
	merged  string // what the container sees
}

// newOverlay makes a file system of a kind and mounts an overlay on it, with
// what fill puts into the lower folder.
func newOverlay(t testing.TB, kind string, fill func(t testing.TB, lower string)) overlay {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 1<<30))
	args := map[string][]string{
		"ext4": {"-q", "-F", "-N", "100000"}, "xfs": {"-q"}, "btrfs": {"-q"},
	}[kind]
	program, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Fatalf("mkfs.%s is not installed: make test does it, and `go test -short` goes without", kind)
	}
	run(t, program, append(args, image)...)
	o := overlay{backing: filepath.Join(dir, "fs")}
	must(t, os.Mkdir(o.backing, 0o755))
	run(t, "mount", "-o", "loop", image, o.backing)
	t.Cleanup(func() { must(t, unix.Unmount(o.backing, unix.MNT_DETACH)) })
	snapshot := filepath.Join(o.backing, "snapshots/1")
	o.lower, o.upper, o.merged = filepath.Join(o.backing, "lower"), filepath.Join(snapshot, "fs"), filepath.Join(dir, "merged")
	work := filepath.Join(snapshot, "work")
	for _, d := range []string{o.lower, o.upper, work, o.merged} {
		must(t, os.MkdirAll(d, 0o755))
	}
	if fill != nil {
		fill(t, o.lower)
	}
	must(t, unix.Mount("overlay", o.merged, "overlay", 0,
		fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", o.lower, o.upper, work)))
	t.Cleanup(func() { must(t, unix.Unmount(o.merged, unix.MNT_DETACH)) })
	return o
}

func run(t testing.TB, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
}

// agrees waits until the meter tells what du tells.
func agrees(t *testing.T, m Meter, dir string) Look {
	t.Helper()
	return agreesOn(t, m, dir, layerAt(dir))
}

// agreesOn does it where the target is not the folder alone.
func agreesOn(t *testing.T, m Meter, dir string, target Target) Look {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		look, err := m.Measure(t.Context(), target)
		want := du(t, dir)
		if err == nil && look.Usage == want {
			return look
		}
		if time.Now().After(deadline) {
			t.Fatalf("usage %+v, %v; du says %+v", look.Usage, err, want)
		}
	}
}

// splice moves bytes from a pipe into a file, which raises no MODIFY event on
// the file under an overlay.
func splice(t *testing.T, f *os.File, n int) {
	t.Helper()
	var pipe [2]int
	must(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer func() { must(t, errors.Join(unix.Close(pipe[0]), unix.Close(pipe[1]))) }()
	for n > 0 {
		k, err := unix.Write(pipe[1], make([]byte, min(n, 4096)))
		must(t, err)
		_, err = unix.Splice(pipe[0], nil, int(f.Fd()), nil, k, 0)
		must(t, err)
		n -= k
	}
}

type step struct {
	name string
	do   func(t *testing.T, dir string)
}

func shell(script string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		c := exec.Command("bash", "-ec", script)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// overlayContract is what every Meter must see of what containers do, step by
// step, through the overlay.
func overlayContract(t *testing.T, open func(*testing.T) Meter, kinds ...string) {
	lower := func(t testing.TB, dir string) {
		for i := range 5 {
			write(t, filepath.Join(dir, "etc", strconv.Itoa(i)), 50_000)
			write(t, filepath.Join(dir, "usr/lib/deep", strconv.Itoa(i)), 50_000)
			write(t, filepath.Join(dir, "opt/app/a", strconv.Itoa(i)), 10_000)
		}
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			o := newOverlay(t, kind, lower)
			m := open(t)
			agrees(t, m, o.upper)
			for _, s := range overlaySteps(kind) {
				if !t.Run(s.name, func(t *testing.T) {
					s.do(t, o.merged)
					agrees(t, m, o.upper)
				}) {
					return
				}
			}
		})
	}
}

func overlaySteps(kind string) []step {
	steps := []step{
		{"create", shell(`mkdir -p a/b; for i in 1 2 3; do head -c $((i*30000)) /dev/zero > a/b/$i; done`)},
		{"append", shell(`head -c 100000 /dev/zero >> a/b/1`)},
		{"append again", shell(`head -c 100000 /dev/zero >> a/b/1; head -c 9000 /dev/zero >> a/b/2`)},
		{"truncate", shell(`truncate -s 100 a/b/1`)},
		{"sparse", shell(`truncate -s 1G sparse; echo x | dd of=sparse bs=1 seek=500000000 conv=notrunc status=none`)},
		{"fallocate", shell(`fallocate -l 4M alloc; fallocate -n -l 8M alloc`)},
		{"punch", shell(`fallocate -p -o 1M -l 2M alloc; fallocate -z -o 3M -l 64K alloc; fallocate -c -o 0 -l 1M alloc`)},
		{"remove", shell(`rm a/b/2`)},
		{"rename", shell(`mv a/b/3 a/c`)},
		{"rename over", shell(`head -c 77777 /dev/zero > new; mv new a/c`)},
		{"hard link in the same folder", shell(`ln a/c a/d; ln a/c a/e`)},
		{"hard link elsewhere", shell(`mkdir other; ln a/c other/f`)},
		{"hard link written", shell(`head -c 300000 /dev/zero >> other/f`)},
		{"hard links removed", shell(`rm a/c a/d; head -c 40000 /dev/zero >> a/e; rm other/f`)},
		{"hard link that becomes single", shell(`ln a/e other/g; rm a/e; head -c 70000 /dev/zero >> other/g`)},
		{"copy up by write", shell(`echo x >> etc/1`)},
		{"copy up by chmod", shell(`chmod 600 etc/2; chown 7 usr/lib/deep/1`)},
		{"copied up at open and written later", func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "etc/4"), os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			t.Cleanup(func() { must(t, f.Close()) })
			_, err = f.Write(make([]byte, 100_000))
			must(t, err)
		}},
		{"whiteout", shell(`rm etc/3 usr/lib/deep/2`)},
		{"opaque", shell(`rm -r opt/app; mkdir opt/app; echo x > opt/app/y`)},
		{"whiteout made real again", shell(`head -c 30000 /dev/zero > etc/3`)},
		{"chmod and chown noise", shell(`chmod -R u+w .; chown -R 5:5 a; touch -d 2001-01-01 a/b/1`)},
		{"rename of a folder", shell(`mkdir -p t/1/2/3; for i in 7 8 9; do head -c 20000 /dev/zero > t/1/2/$i; done; mv t u; echo x > u/1/2/3/x`)},
		{"rename of a folder into another", shell(`mkdir v; mv u/1 v/1; head -c 50000 /dev/zero >> v/1/2/7; rmdir u`)},
		{"moved and its place taken", shell(`mv v/1 w1; mkdir -p v/1/2; echo x > v/1/2/z; mv w1 v/1/w1`)},
		{"made quickly", shell(`for i in $(seq 50); do mkdir -p q$i/a/b/c; echo x > q$i/a/b/c/d; done`)},
		{"removed quickly", shell(`rm -r q*; mkdir -p q1/x; head -c 10000 /dev/zero > q1/x/y`)},
		{"exchanged", shell(`mkdir x1 x2; head -c 30000 /dev/zero > x1/a; head -c 60000 /dev/zero > x2/b; mv x1 tmp; mv x2 x1; mv tmp x2; rm -r x2`)},
		{"many files in one folder", shell(`mkdir many; for i in $(seq 3000); do : > many/$i; done`)},
		{"one of them grows", shell(`head -c 200000 /dev/zero >> many/77; rm many/5`)},
		{"most of them go", shell(`rm many/1*; head -c 100000 /dev/zero >> many/77`)},
		{"log rotation", shell(`mkdir log; head -c 500000 /dev/zero > log/a; mv log/a log/a.1; head -c 10000 /dev/zero > log/a; head -c 10000 /dev/zero >> log/a.1; gzip log/a.1`)},
		{"cp", shell(`cp alloc cp1; cp --sparse=always alloc cp2; cat alloc > cp3; cp -a a cp4`)},
		{"splice into a new file", func(t *testing.T, dir string) {
			f, err := os.Create(filepath.Join(dir, "spliced"))
			must(t, err)
			t.Cleanup(func() { must(t, f.Close()) })
			splice(t, f, 300_000)
		}},
		{"splice into an old file", func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "cp3"), os.O_RDWR, 0)
			must(t, err)
			_, err = f.Seek(0, io.SeekEnd)
			must(t, err)
			splice(t, f, 300_000)
			must(t, f.Close()) // the event
		}},
		{"names", func(t *testing.T, dir string) {
			for _, name := range []string{"new\nline", "\xff\xfe\x80", " ", "-rf", "...", "..a", "\x1b[31m", strings.Repeat("n", 255)} {
				write(t, filepath.Join(dir, "names", name), 5000)
				write(t, filepath.Join(dir, "names", name[:min(len(name), 250)]+".d", name), 5000)
			}
		}},
		{"names written", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "names", "\xff\xfe\x80"), 100_000)
			must(t, os.Remove(filepath.Join(dir, "names", "new\nline")))
		}},
		{"FIFO, device, socket, links out", func(t *testing.T, dir string) {
			must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
			must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
			must(t, os.Symlink("/", filepath.Join(dir, "root")))
			must(t, os.Symlink(strings.Repeat("l", 300), filepath.Join(dir, "long")))
		}},
		{"deep", func(t *testing.T, dir string) { deep(t, dir, 1000) }},
		{"deep moved", shell(`mkdir under; mv d under/d`)},
		{"wide", func(t *testing.T, dir string) {
			for i := range 3000 {
				must(t, os.Mkdir(filepath.Join(dir, "a", fmt.Sprint("w", i)), 0o755))
			}
		}},
		{"unlinked while open", func(t *testing.T, dir string) {
			f, err := os.Create(filepath.Join(dir, "deleted"))
			must(t, err)
			t.Cleanup(func() { must(t, f.Close()) })
			_, err = f.Write(make([]byte, 1<<20))
			must(t, err)
			must(t, os.Remove(f.Name()))
			_, err = f.Write(make([]byte, 1<<20))
			must(t, err)
		}},
		{"O_TMPFILE given a name", func(t *testing.T, dir string) {
			fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
			if errors.Is(err, unix.EOPNOTSUPP) && kernelBefore(t, 6, 3) {
				t.Skip("overlayfs has O_TMPFILE since Linux 6.3")
			}
			must(t, err)
			f := os.NewFile(uintptr(fd), "tmpfile")
			t.Cleanup(func() { must(t, f.Close()) })
			_, err = f.Write(make([]byte, 100_000))
			must(t, err)
			must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, filepath.Join(dir, "named"), unix.AT_SYMLINK_FOLLOW))
			_, err = f.Write(make([]byte, 100_000))
			must(t, err)
		}},
		{"all removed", shell(`rm -rf ./*`)},
	}
	if kind == "xfs" {
		steps = append(steps,
			step{"reflink", shell(`head -c 400000 /dev/urandom > one; cp --reflink=always one two`)},
			step{"reflink written", shell(`head -c 4096 /dev/zero | dd of=two conv=notrunc status=none`)})
	}
	return steps
}

func kernelBefore(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	must(t, unix.Uname(&u))
	var a, b int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	must(t, err)
	return a < major || a == major && b < minor
}

// overlayRandom does a thousand things in random order, with or without hard
// links among them, and checks every few.
func overlayRandom(t *testing.T, links bool, open func(*testing.T) Meter) {
	o := newOverlay(t, "ext4", nil)
	m := open(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var dirs []string
	pick := func() string {
		if len(dirs) == 0 || r.IntN(8) == 0 {
			return o.merged
		}
		return dirs[r.IntN(len(dirs))]
	}
	name := func() string { return filepath.Join(pick(), "f"+strconv.Itoa(r.IntN(6))) }
	for i := range 1000 {
		switch r.IntN(10) { // what cannot be done is not done
		case 0, 1, 2:
			_ = os.WriteFile(name(), make([]byte, r.IntN(60_000)), 0o644)
		case 3, 4:
			if f, err := os.OpenFile(name(), os.O_APPEND|os.O_WRONLY, 0); err == nil {
				_, _ = f.Write(make([]byte, r.IntN(60_000)))
				_ = f.Close()
			}
		case 5:
			_ = os.Remove(name())
		case 6:
			d := filepath.Join(pick(), "d"+strconv.Itoa(r.IntN(4)))
			if os.Mkdir(d, 0o755) == nil {
				dirs = append(dirs, d)
			}
		case 7:
			_ = os.Rename(name(), name())
		case 8:
			if links {
				_ = os.Link(name(), name())
			}
		case 9:
			from, to := pick(), filepath.Join(pick(), "d"+strconv.Itoa(r.IntN(4)))
			if r.IntN(4) == 0 {
				_ = os.RemoveAll(to)
			} else if from != o.merged {
				_ = os.Rename(from, to)
			}
		}
		if i%25 == 0 {
			agrees(t, m, o.upper)
		}
	}
	agrees(t, m, o.upper)
}
