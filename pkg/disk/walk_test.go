//go:build linux

package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

func TestWalkerContract(t *testing.T) {
	meterContract(t, func(*testing.T) Meter { return NewWalker("/") })
}

func layerAt(dir string) Target { return Target{Layer: runtime.Layer{Upper: dir}} }

func measure(t *testing.T, m Meter, target Target) Look {
	t.Helper()
	look, err := m.Measure(t.Context(), target)
	if err != nil {
		t.Fatalf("Measure: %v", err)
	}
	return look
}

// du is the oracle: an independent program that counts the same.
func du(t *testing.T, dir string) Usage {
	t.Helper()
	return Usage{Bytes: duOne(t, dir, "--block-size=1"), Inodes: duOne(t, dir, "--inodes")}
}

func duOne(t *testing.T, dir, what string) int64 {
	t.Helper()
	out, err := exec.Command("du", "-s", "-x", what, dir).Output()
	if err != nil {
		t.Fatalf("du: %v", err)
	}
	number, _, _ := bytes.Cut(out, []byte("\t"))
	n, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil {
		t.Fatalf("du: %v", err)
	}
	return n
}

// TestWalkDeepBelowOpenFolders has folders that are read on after they were
// closed, at every depth around the bound.
func TestWalkDeepBelowOpenFolders(t *testing.T) {
	dir := t.TempDir()
	at := dir
	for depth := range openFolders + 20 {
		for i := range 5 {
			write(t, filepath.Join(at, fmt.Sprintf("side%d", i), "file"), 4096*(depth%3+1))
		}
		at = filepath.Join(at, "d")
		must(t, os.Mkdir(at, 0o755))
	}
	// Wide enough for several buffers, so that reading goes on at an offset.
	for i := range 3000 {
		must(t, os.Mkdir(filepath.Join(at, strings.Repeat("x", 40)+strconv.Itoa(i)), 0o755))
	}
	for i := range 50 {
		must(t, os.Symlink("nowhere", filepath.Join(at, "link"+strconv.Itoa(i))))
	}
	want := du(t, dir)
	if got := measure(t, NewWalker("/"), layerAt(dir)).Usage; got != want {
		t.Errorf("usage %+v, du says %+v", got, want)
	}
}

// TestWalkKeepsFewDescriptors walks 10,000 levels with room for some 100 open
// files.
func TestWalkKeepsFewDescriptors(t *testing.T) {
	dir := t.TempDir()
	deep(t, dir, 10_000)
	w := newWalk()
	w.reset(time.Time{})
	root, err := openLayer("/", dir)
	must(t, err)
	most := 0
	ctx := &countingContext{Context: t.Context(), each: func() {
		open := 0
		for _, f := range w.stack {
			if f.fd >= 0 {
				open++
			}
		}
		most = max(most, open)
	}}
	must(t, w.run(ctx, root))
	if w.usage.Inodes != 10_001 {
		t.Errorf("%d inodes, want 10001", w.usage.Inodes)
	}
	if most > openFolders+2 {
		t.Errorf("%d folders were open at once, the bound is %d", most, openFolders)
	}
}

// countingContext looks on at every step of a walk.
type countingContext struct {
	context.Context
	each func()
}

func (c *countingContext) Err() error {
	c.each()
	return c.Context.Err()
}

func TestWalkCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewWalker("/").Measure(ctx, layerAt(t.TempDir()))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

// TestWalkStartsOverWhenFoldersMove moves a deep folder away while the walk is
// below it, where ".." no longer leads back.
func TestWalkStartsOverWhenFoldersMove(t *testing.T) {
	dir := t.TempDir()
	deep(t, dir, openFolders+30)
	w := newWalk()
	w.reset(time.Time{})
	root, err := openLayer("/", dir)
	must(t, err)
	moved := false
	ctx := &countingContext{Context: t.Context(), each: func() {
		if moved || len(w.stack) < openFolders+25 {
			return
		}
		moved = true
		down := dir + strings.Repeat("/d", openFolders+10)
		must(t, os.Rename(down, filepath.Join(dir, "elsewhere")))
	}}
	if err := w.run(ctx, root); !errors.Is(err, errMoved) {
		t.Fatalf("error %v, want errMoved", err)
	}
	if got, want := measure(t, NewWalker("/"), layerAt(dir)).Usage, du(t, dir); got != want {
		t.Errorf("usage %+v, du says %+v", got, want)
	}
}

// TestWalkLeaksNothing counts this process's descriptors around good, failed
// and cancelled walks.
func TestWalkLeaksNothing(t *testing.T) {
	dir := t.TempDir()
	deep(t, dir, 300)
	before := descriptors(t)
	w := NewWalker("/")
	measure(t, w, layerAt(dir))
	_, _ = w.Measure(t.Context(), layerAt(filepath.Join(dir, "missing")))
	ctx, cancel := context.WithCancel(t.Context())
	steps := 0
	_, err := w.Measure(&countingContext{Context: ctx, each: func() {
		if steps++; steps == 200 {
			cancel()
		}
	}}, layerAt(dir))
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want context.Canceled", err)
	}
	leaksNothing(t, before)
}

// descriptors are those that this process has open, with what they lead to.
func descriptors(t *testing.T) map[string]bool {
	t.Helper()
	const dir = "/proc/self/fd"
	all, err := os.ReadDir(dir)
	must(t, err)
	found := map[string]bool{}
	for _, d := range all {
		if to, err := os.Readlink(filepath.Join(dir, d.Name())); err == nil { // the listing's own is closed
			found[d.Name()+" to "+to] = true
		}
	}
	return found
}

// leaksNothing wants none open that was not before. One of an earlier test that
// was closed meanwhile makes up for none.
func leaksNothing(t *testing.T, before map[string]bool) {
	t.Helper()
	for d := range descriptors(t) {
		if !before[d] {
			t.Errorf("descriptor %s was left open", d)
		}
	}
}

func TestWalkBelowHostRoot(t *testing.T) {
	host := t.TempDir()
	write(t, filepath.Join(host, "data/containerd/fs/file"), 8192)
	must(t, os.MkdirAll(filepath.Join(host, "var/lib"), 0o755))
	// On the host this link is absolute: it must lead below the host root.
	must(t, os.Symlink("/data/containerd", filepath.Join(host, "var/lib/containerd")))
	got := measure(t, NewWalker(host), layerAt("/var/lib/containerd/fs")).Usage
	if want := du(t, filepath.Join(host, "data/containerd/fs")); got != want {
		t.Errorf("usage %+v, du says %+v", got, want)
	}
}

func TestWalkEvidence(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 * evidenceKept {
		write(t, filepath.Join(dir, "old", strconv.Itoa(i)), 4096*(i+10))
	}
	past := time.Now().Add(-time.Hour)
	w := NewWalker("/")
	if look := measure(t, w, layerAt(dir)); len(look.Files) != evidenceKept {
		t.Errorf("first look: %d files, want the %d largest", len(look.Files), evidenceKept)
	}
	since := waitTick(t)
	write(t, filepath.Join(dir, "app/logs/debug.log"), 4096)
	must(t, os.Chtimes(filepath.Join(dir, "old/5"), past, past)) // ctime tells all the same
	look := measure(t, w, Target{Layer: runtime.Layer{Upper: dir}, Since: since})
	if n := len(look.Files); n != evidenceKept+2 {
		t.Errorf("%d files, want the %d largest and the 2 that changed", n, evidenceKept)
	}
	byPath := map[string]Item{}
	for _, it := range look.Files {
		byPath[it.Path] = it
	}
	if it := byPath["/app/logs/debug.log"]; it.Bytes != 4096 || !it.New {
		t.Errorf("debug.log is %+v, want 4096 bytes, new", it)
	}
	if it, ok := byPath["/old/5"]; !ok || it.New {
		t.Errorf("old/5 is %+v, want it, not new", it)
	}
	for _, it := range look.Folders {
		if it.Path == "/old" && it.Files == 2*evidenceKept {
			return
		}
	}
	t.Errorf("folder /old is not told: %+v", look.Folders)
}

// TestWalkShardedCache: very many small files in many folders are told as the
// folder that all of these lie in, also by a probe.
func TestWalkShardedCache(t *testing.T) {
	dir := t.TempDir()
	w := NewWalker("/")
	shardedCache(t, w, dir, dir)
	before := treeOf(t, measure(t, w, layerAt(dir)), "/cache")
	for _, f := range w.layers[dir].folders {
		if strings.HasPrefix(f.path, "/cache/") {
			grow(t, filepath.Join(dir, f.files[0].path()), 1<<20)
			write(t, filepath.Join(dir, f.path, "new"), 4096)
			break
		}
	}
	if got := treeOf(t, probe(t, w, dir), "/cache"); got.Files != before.Files+1 || got.Bytes < before.Bytes+1<<20 {
		t.Errorf("probed %+v, the walk before told %+v", got, before)
	}
}

// shardedCache fills a cache of 1,000 folders twice, with one file in each, while
// a log grows, and wants the meter to tell so of the layer. layer and upper are
// the same folder, or that through which it is written.
func shardedCache(t *testing.T, m Meter, layer, upper string) {
	t.Helper()
	fill := func(name string) {
		for i := range 1000 {
			write(t, filepath.Join(layer, "cache", strconv.Itoa(i%40), fmt.Sprintf("%03d", i), name), 4096)
		}
	}
	write(t, filepath.Join(layer, "app/app.log"), 64<<10) // so that it is known from the first look on
	fill("a")
	syncFilesystem(t, upper)
	var seen marks
	seen.look(epoch, measure(t, m, layerAt(upper)))
	since := waitTick(t)
	fill("b")
	grow(t, filepath.Join(layer, "app/app.log"), 1<<20)
	seen.look(epoch.Add(2*time.Second), measure(t, m, Target{Layer: runtime.Layer{Upper: upper}, Since: since}))
	all := seen.growths()
	if len(all) != 2 || all[0].Path != "/cache" || all[1].Path != "/app/app.log" {
		t.Fatalf("%d are told, want /cache and the log: %+v", len(all), all)
	}
	if g := all[0]; g.Files != 2000 || g.Grew < 1000*4096 || g.FileRate != 500 {
		t.Errorf("the cache is told as %+v", g)
	}
}

// treeOf is a folder as a look tells it with all below it.
func treeOf(t *testing.T, l Look, path string) Item {
	t.Helper()
	for _, it := range l.Folders {
		if it.Tree && it.Path == path {
			return it
		}
	}
	t.Fatalf("%s is not told with what is below it: %+v", path, l.Folders)
	return Item{}
}

// waitTick waits until the file system's clock has gone on by more than what a
// walk allows it to be behind, and returns the time then.
func waitTick(t *testing.T) time.Time {
	t.Helper()
	file := filepath.Join(t.TempDir(), "clock")
	changed := func() time.Time {
		write(t, file, 1)
		var st unix.Stat_t
		must(t, unix.Stat(file, &st))
		return time.Unix(st.Ctim.Unix())
	}
	start, now := changed(), time.Time{}
	for now.Sub(start) < 5*clockGrain {
		must(t, t.Context().Err())
		now = changed()
	}
	return now
}

func FuzzNextDirent(f *testing.F) {
	dir := f.TempDir()
	for _, name := range []string{"a", "new\nline", "\xff\xfe", strings.Repeat("n", 255)} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			f.Fatal(err)
		}
	}
	fd, err := unix.Open(dir, openFlags, 0)
	if err != nil {
		f.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := getdents(fd, buf)
	if err != nil {
		f.Fatal(err)
	}
	_ = unix.Close(fd)
	f.Add(buf[:n])
	f.Add(buf[:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		for rest := data; len(rest) > 0; {
			d, next, err := nextDirent(rest)
			if err != nil {
				return
			}
			if len(next) >= len(rest) {
				t.Fatal("an entry took nothing off the buffer")
			}
			if len(d.name) < 2 || bytes.IndexByte(d.name, 0) != len(d.name)-1 {
				t.Fatalf("name %q is not ended by its only NUL", d.name)
			}
			_ = d.dots()
			rest = next
		}
	})
}

// TestWalkHostileTree: each folder of a deep tree holds as many long names of
// sub-folders as fill a buffer. All of them waiting at once would take 100 times
// 128 KiB.
func TestWalkHostileTree(t *testing.T) {
	const levels, wide = 100, 280
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range levels {
		for i := range wide {
			must(t, unix.Mkdirat(fd, fmt.Sprintf("%0250d", i), 0o755))
		}
		next, err := unix.Openat(fd, fmt.Sprintf("%0250d", wide/2), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	want := du(t, dir)
	w := NewWalker("/")
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	look := measure(t, w, layerAt(dir))
	goruntime.ReadMemStats(&after)
	if look.Usage != want {
		t.Errorf("usage %+v, du says %+v", look.Usage, want)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 5<<20 {
		t.Errorf("the walk took %d KiB", n>>10)
	}
}
