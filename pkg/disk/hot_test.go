//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// probe syncs, so that blocks are as du finds them, and probes.
func probe(t *testing.T, w *Walker, dir string) Look {
	t.Helper()
	syncFilesystem(t, dir)
	look, err := w.Probe(t.Context(), layerAt(dir))
	must(t, err)
	return look
}

// TestProbes: what happens to hot files and in their folders is seen without
// a walk, each time as du sees it.
func TestProbes(t *testing.T) {
	dir := t.TempDir()
	log := func(name string) string { return filepath.Join(dir, "app/log", name) }
	write(t, log("app.log"), 100_000)
	write(t, log("old.log"), 300_000)
	write(t, filepath.Join(dir, "cold/file"), 4096)
	must(t, os.MkdirAll(filepath.Join(dir, "app/log/sub"), 0o755))
	write(t, filepath.Join(dir, "archive/0"), 4096)
	syncFilesystem(t, dir)
	w := NewWalker("/")
	if _, err := w.Probe(t.Context(), layerAt(dir)); !errors.Is(err, ErrLater) {
		t.Errorf("a probe before any walk: %v", err)
	}
	if look := measure(t, w, layerAt(dir)); !look.Hot || look.Probed {
		t.Fatalf("the walk tells %+v", look)
	}
	for _, s := range []struct {
		name string
		do   func()
	}{
		{"nothing", func() {}},
		{"growth", func() { grow(t, log("app.log"), 500_000) }},
		{"more growth", func() { grow(t, log("app.log"), 1_000_000) }},
		{"rotation", func() {
			must(t, os.Rename(log("app.log"), log("app.log.1")))
			write(t, log("app.log"), 50_000)
		}},
		{"both are written", func() { grow(t, log("app.log"), 70_000); grow(t, log("app.log.1"), 10_000) }},
		{"truncated", func() { must(t, os.Truncate(log("app.log.1"), 100)) }},
		{"renamed over", func() { write(t, log("new"), 200_000); must(t, os.Rename(log("new"), log("app.log.1"))) }},
		{"compressed", func() { write(t, log("app.log.1.gz"), 20_000); must(t, os.Remove(log("app.log.1"))) }},
		{"deleted", func() { must(t, os.Remove(log("old.log"))) }},
		{"deleted and made again", func() { must(t, os.Remove(log("app.log"))); write(t, log("app.log"), 30_000) }},
		{"moved to another folder", func() { must(t, os.Rename(log("app.log.1.gz"), filepath.Join(dir, "archive/1.gz"))) }},
		{"and it grows there", func() { grow(t, filepath.Join(dir, "archive/1.gz"), 90_000) }},
		{"and back", func() { must(t, os.Rename(filepath.Join(dir, "archive/1.gz"), log("1.gz"))) }},
		{"linked", func() { must(t, os.Link(log("app.log"), log("link"))); grow(t, log("link"), 40_000) }},
		{"its first name goes", func() { must(t, os.Remove(log("app.log"))) }},
		{"hole", func() {
			f, err := os.OpenFile(log("link"), os.O_RDWR, 0)
			must(t, err)
			must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 32_768))
			must(t, f.Close())
		}},
		{"in the layer's own folder", func() { write(t, filepath.Join(dir, "core"), 700_000) }},
		{"all kinds", func() {
			must(t, unix.Mkfifo(log("fifo"), 0o600))
			must(t, os.Symlink("/", log("root")))
			write(t, log("\xff\n"), 9000)
		}},
		{"a file becomes a link out", func() { must(t, os.Remove(log("link"))); must(t, os.Symlink("/etc/passwd", log("link"))) }},
		{"files without a folder", func() {
			for _, e := range []string{"fifo", "root", "\xff\n", "link", "1.gz"} {
				must(t, os.Remove(log(e)))
			}
		}},
	} {
		s.do()
		got, want := probe(t, w, dir), du(t, dir)
		if got.Usage != want || !got.Probed {
			t.Fatalf("%s: probed %v %+v, du says %+v", s.name, got.Probed, got.Usage, want)
		}
	}
}

func grow(t *testing.T, file string, n int) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.Write(make([]byte, n))
	must(t, errors.Join(err, f.Close()))
}

// TestProbeIsNotFooled: what was counted elsewhere does not count twice, and
// what cannot be seen leaves the walk's figure as it is.
func TestProbeIsNotFooled(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "outside")
	write(t, filepath.Join(secret, "app.log"), 5<<20)
	for _, c := range []struct {
		name string
		do   func(dir string)
		want func(walk Usage) Usage
	}{
		{"from a cold folder", func(dir string) {
			must(t, os.Rename(filepath.Join(dir, "cold/0"), filepath.Join(dir, "log/moved")))
		}, func(u Usage) Usage { return u }},
		{"its folder becomes a link out", func(dir string) {
			must(t, os.RemoveAll(filepath.Join(dir, "log")))
			must(t, os.Symlink(secret, filepath.Join(dir, "log")))
		}, func(u Usage) Usage { return Usage{Bytes: u.Bytes - 102_400, Inodes: u.Inodes} }}, // the folder stays until the next walk
		{"a folder above it becomes a link out", func(dir string) {
			must(t, os.Rename(filepath.Join(dir, "log"), secret+"/log"+filepath.Base(dir)))
			must(t, os.Symlink(secret, filepath.Join(dir, "log")))
		}, func(u Usage) Usage { return Usage{Bytes: u.Bytes - 102_400, Inodes: u.Inodes} }},
		{"a new folder", func(dir string) { write(t, filepath.Join(dir, "log/new/file"), 1<<20) }, func(u Usage) Usage { return u }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for i := range 2 * hotFiles {
				write(t, filepath.Join(dir, "cold", strconv.Itoa(i)), 4096)
			}
			write(t, filepath.Join(dir, "log/app.log"), 102_400) // the last, so that it is hot
			syncFilesystem(t, dir)
			w := NewWalker("/")
			walked := measure(t, w, layerAt(dir))
			w.layers[dir].folders = keepFolders(w.layers[dir].folders, "", "/log")
			c.do(dir)
			got, want := probe(t, w, dir).Usage, c.want(walked.Usage)
			if got.Bytes != want.Bytes {
				t.Errorf("probed %+v, want %+v, the walk told %+v", got, want, walked.Usage)
			}
			if got, want := measure(t, w, layerAt(dir)).Usage, du(t, dir); got != want {
				t.Errorf("walked %+v, du says %+v", got, want)
			}
		})
	}
}

// keepFolders leaves some of the hot folders.
func keepFolders(all []*hotFolder, paths ...string) []*hotFolder {
	var out []*hotFolder
	for _, f := range all {
		for _, p := range paths {
			if f.path == p {
				out = append(out, f)
			}
		}
	}
	return out
}

// TestProbeInALargeFolder: where there are too many files to know them all, the
// hot ones alone are seen.
func TestProbeInALargeFolder(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 * hotListed {
		write(t, filepath.Join(dir, strconv.Itoa(i)), 0)
	}
	log := filepath.Join(dir, "app.log")
	write(t, log, 100_000)
	syncFilesystem(t, dir)
	w := NewWalker("/")
	measure(t, w, layerAt(dir))
	check := func(name string) {
		t.Helper()
		if got, want := probe(t, w, dir).Usage, du(t, dir); got != want {
			t.Errorf("%s: probed %+v, du says %+v", name, got, want)
		}
	}
	grow(t, log, 400_000)
	check("grown")
	must(t, os.Truncate(log, 5000))
	check("truncated")
	must(t, os.Remove(log))
	write(t, log, 64_000)
	check("made again")
	must(t, os.Remove(log))
	check("deleted")
}

// TestProbeOfAFullLayer: a new file, or one that begins to grow, takes the place of
// a colder one where all are taken.
func TestProbeOfAFullLayer(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 * hotFiles {
		write(t, filepath.Join(dir, "data", strconv.Itoa(i)), 8192)
	}
	syncFilesystem(t, dir)
	for i := range 2 * hotFiles { // just now, however long the sync took
		must(t, os.Chmod(filepath.Join(dir, "data", strconv.Itoa(i)), 0o600))
	}
	w := NewWalker("/")
	measure(t, w, layerAt(dir))
	l := w.layers[dir]
	if l.files != hotFiles {
		t.Fatalf("%d hot files, want %d", l.files, hotFiles)
	}
	for _, f := range l.folders { // an hour later
		for _, x := range f.files {
			x.age = 12
		}
	}
	log := filepath.Join(dir, "app.log")
	write(t, log, 4096)
	for i := range 5 {
		if i == 3 {
			log = filepath.Join(dir, "data/0")
			write(t, filepath.Join(dir, "data/new"), 1)
		}
		grow(t, log, 300_000)
		if got, want := probe(t, w, dir).Usage, du(t, dir); got != want {
			t.Fatalf("%d: probed %+v, du says %+v", i, got, want)
		}
		if l.files > hotFiles {
			t.Fatalf("%d hot files", l.files)
		}
	}
}

// TestProbeEvidence: a probe tells what a walk would of the files it looks at.
func TestProbeEvidence(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "log/app.log"), 4096)
	write(t, filepath.Join(dir, "log/other"), 4096)
	w := NewWalker("/")
	measure(t, w, layerAt(dir))
	grow(t, filepath.Join(dir, "log/app.log"), 1<<20)
	write(t, filepath.Join(dir, "log/new"), 8192)
	look := probe(t, w, dir)
	items := map[string]Item{}
	for _, it := range append(look.Files, look.Folders...) {
		items[it.Path] = it
	}
	if it := items["/log/app.log"]; it.Bytes < 1<<20 || it.New {
		t.Errorf("app.log is %+v", it)
	}
	if it := items["/log/new"]; it.Bytes != 8192 || !it.New {
		t.Errorf("new is %+v", it)
	}
	if it := items["/log"]; it.Files != 3 || it.Bytes < 1<<20 {
		t.Errorf("/log is %+v", it)
	}
	must(t, os.Remove(filepath.Join(dir, "log/app.log")))
	for _, it := range probe(t, w, dir).Files {
		if it.Path == "/log/app.log" || it.New {
			t.Errorf("told %+v", it)
		}
	}
}

// TestProbesAtRandom does things within folders that are all listed:
// each probe tells what du tells.
func TestProbesAtRandom(t *testing.T) {
	dir := t.TempDir()
	var dirs []string
	for i := range 4 {
		dirs = append(dirs, filepath.Join(dir, strconv.Itoa(i)))
		write(t, filepath.Join(dirs[i], "f0"), 5000)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	name := func() string { return filepath.Join(dirs[r.IntN(4)], "f"+strconv.Itoa(r.IntN(5))) }
	syncFilesystem(t, dir)
	w := NewWalker("/")
	measure(t, w, layerAt(dir))
	for i := range 400 {
		switch r.IntN(6) { // what cannot be done is not done
		case 0, 1:
			_ = os.WriteFile(name(), make([]byte, r.IntN(60_000)), 0o644)
		case 2, 3:
			if f, err := os.OpenFile(name(), os.O_APPEND|os.O_WRONLY, 0); err == nil {
				_, _ = f.Write(make([]byte, r.IntN(60_000)))
				_ = f.Close()
			}
		case 4:
			_ = os.Remove(name())
		case 5:
			_ = os.Rename(name(), name())
		}
		if i%3 == 0 {
			if got, want := probe(t, w, dir).Usage, du(t, dir); got != want {
				t.Fatalf("after %d: probed %+v, du says %+v", i, got, want)
			}
		}
	}
}

// costly is a Walker on a disk that takes long over each walk, and counts what is
// asked of it.
type costly struct {
	*Walker
	walks, probes atomic.Int64
}

func (c *costly) Measure(ctx context.Context, t Target) (Look, error) {
	c.walks.Add(1)
	look, err := c.Walker.Measure(ctx, t)
	select {
	case <-time.After(6 * time.Second):
	case <-ctx.Done():
	}
	return look, err
}

func (c *costly) Probe(ctx context.Context, t Target) (Look, error) {
	c.probes.Add(1)
	return c.Walker.Probe(ctx, t)
}

// TestGiantIsSeenEarly: a layer that may be walked every two minutes alone tells
// within two seconds what its log grows by: a probe is planned as soon, and the
// first that begins after the growth sees it. How soon the machine of the test
// comes to carry out a plan is not asked.
func TestGiantIsSeenEarly(t *testing.T) {
	dir := t.TempDir()
	const files = 60_000
	for i := range files {
		d := filepath.Join(dir, "data", fmt.Sprint(i/200))
		if i%200 == 0 {
			must(t, os.MkdirAll(d, 0o755))
		}
		f, err := os.Create(filepath.Join(d, fmt.Sprint(i)))
		must(t, errors.Join(err, f.Close()))
	}
	log := filepath.Join(dir, "srv/app/log/app.log")
	write(t, log, 4096)
	c := container("giant", "u-1", "app", "g")
	c.Layer = runtime.Layer{Snapshotter: "overlayfs", Key: "g", Upper: dir}
	all := []runtime.Container{c}
	meter := &costly{Walker: NewWalker("/")}
	w := watch(t, Options{
		Containers: func() []runtime.Container { return all }, Meter: meter, Policy: DefaultPolicy(), Registerer: prometheus.NewRegistry(),
	})
	planned := func() (walk, probe time.Duration) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for p := range w.awake {
			if p.probes() {
				return p.interval, p.probeEvery
			}
		}
		return 0, 0
	}
	until := func(what string, ok func(Verdict) bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
			begun, walks := meter.probes.Load(), meter.walks.Load()
			if v := w.Verdicts(); len(v) == 1 && ok(v[0]) {
				t.Logf("%s: %d probes", what, begun)
				return
			}
			if walks > 1 || time.Now().After(deadline) {
				t.Fatalf("%s: not after %d walks and %d probes", what, walks, begun)
			}
		}
	}
	base := int64(0)
	until("it is probed", func(v Verdict) bool {
		base = v.Usage.Bytes
		walk, _ := planned()
		return walk > time.Minute
	})
	// seen waits for the second probe since at most: it begins when what the first
	// saw is told.
	seen := func(what string, ok func(Verdict) bool) {
		t.Helper()
		since := meter.probes.Load()
		until(what, func(v Verdict) bool {
			if ok(v) {
				return true
			}
			if n := meter.probes.Load() - since; n > 2 {
				t.Fatalf("%s: not seen by %d probes", what, n)
			}
			return false
		})
		if _, probe := planned(); probe > 2*time.Second {
			t.Errorf("%s: probed every %v", what, probe)
		}
	}
	for range 5 {
		grow(t, log, 1<<20)
		base += 1 << 20
		seen("growth", func(v Verdict) bool { return v.Usage.Bytes >= base-8192 })
	}
	must(t, os.Truncate(log, 0))
	seen("truncation", func(v Verdict) bool { return v.Usage.Bytes < base-(4<<20) })
}

// probedTwice is a Walker that probes after each walk and tells what the probe
// told.
type probedTwice struct{ *Walker }

func (p probedTwice) Measure(ctx context.Context, t Target) (Look, error) {
	if _, err := p.Walker.Measure(ctx, t); err != nil {
		return Look{}, err
	}
	return p.Probe(ctx, t)
}

// TestProbeContract: whatever is in a layer, a probe of it tells what there is.
func TestProbeContract(t *testing.T) {
	meterContract(t, func(*testing.T) Meter { return probedTwice{NewWalker("/")} })
}
