//go:build linux

package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// openEvents is an Events that looks at its queue each time it is asked.
func openEvents(t testing.TB) *Events {
	t.Helper()
	e, err := NewEvents(EventsOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, e.Close()) })
	e.every = 0
	return e
}

func TestProbeEvents(t *testing.T) {
	o := newOverlay(t, "ext4", nil)
	if s := ProbeEvents("/", o.upper); !s.OK || s.Why == "" {
		t.Errorf("%+v, want events to work here", s)
	}
	if s := ProbeEvents("/", "/proc"); s.OK {
		t.Errorf("%+v, want proc refused", s)
	}
}

// TestProbeOverlay compares what the probe finds out with what is known of
// kernels: 6.5 is the first that tells ("ovl: enable fsnotify events on
// underlying real files").
func TestProbeOverlay(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	var u unix.Utsname
	must(t, unix.Uname(&u))
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	must(t, err)
	own, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	switch err := tryOverlay(); {
	case major > 6 || (major == 6 && minor >= 5):
		must(t, err)
	case !errors.Is(err, errSilent):
		t.Errorf("error %v, want %v", err, errSilent)
	}
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		t.Errorf("the probe's mount is seen outside: %v", err)
	}
	for range 20 { // of which the first thread would soon be one
		_ = tryOverlay()
		if now, err := os.Readlink("/proc/self/ns/mnt"); err != nil || now != own {
			t.Fatalf("the process reads the mounts of %s since the probe, before of %s: %v", now, own, err)
		}
	}
}

// TestProbeOwnFile: a program in a container finds out by reading itself.
func TestProbeOwnFile(t *testing.T) {
	o := newOverlay(t, "ext4", func(t testing.TB, lower string) { write(t, filepath.Join(lower, "usr/program"), 10) })
	dir, err := os.Open(o.backing)
	must(t, err)
	defer dir.Close()
	must(t, overlayTells(int(dir.Fd()), filepath.Join(o.merged, "usr/program")))
	other, err := os.Open(t.TempDir())
	must(t, err)
	defer other.Close()
	if err := overlayTells(int(other.Fd()), filepath.Join(o.merged, "usr/program")); !errors.Is(err, errSilent) {
		t.Errorf("error %v from a file system that is not below, want %v", err, errSilent)
	}
	if err := overlayTells(int(dir.Fd()), filepath.Join(o.lower, "usr/program")); err == nil || errors.Is(err, errSilent) {
		t.Errorf("error %v for a file on no overlay", err)
	}
}

// TestEventsSpares: the writer of a file that stays open pays for events only
// until it was noticed, and no figure is wrong for it.
func TestEventsSpares(t *testing.T) {
	o := newOverlay(t, "ext4", nil)
	e := openEvents(t)
	open := func(name string) *os.File {
		f, err := os.Create(filepath.Join(o.merged, name))
		must(t, err)
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	log, cold := open("log"), open("cold")
	put := func(f *os.File, n int) {
		t.Helper()
		_, err := f.Write(make([]byte, n))
		must(t, err)
	}
	agrees(t, e, o.upper)
	root := func() *folder { return e.layers[o.upper].tree.root }
	if !root().heard || root().spared {
		t.Fatalf("%s, want the folder heard", state(root()))
	}
	until := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !done(); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not after a minute: %s", what, state(root()))
			}
			agrees(t, e, o.upper)
		}
	}
	until("spared", func() bool { put(log, 5000); return root().spared })
	if root().heard || e.pinned.Load() != 0 {
		t.Errorf("%s, %d pinned: want it spared and not heard", state(root()), e.pinned.Load())
	}
	for range 5 {
		put(log, 100_000)
		put(cold, 100_000) // nobody hears it
		agrees(t, e, o.upper)
	}
	e.quiet = 200 * time.Millisecond
	until("heard again", func() bool { return root().heard })
	if root().spared {
		t.Errorf("%s, want the quiet folder heard and not spared", state(root()))
	}
	put(cold, 100_000)
	put(log, 100_000)
	agrees(t, e, o.upper)
	e.quiet = quietAfter
	until("spared again", func() bool { put(log, 5000); return root().spared })
	for i := range sparedNames + 1 { // too many to be looked at each time
		write(t, filepath.Join(o.merged, strconv.Itoa(i)), 0)
	}
	until("heard, as it has too many files", func() bool { return root().heard })
	put(log, 100_000)
	put(cold, 100_000)
	agrees(t, e, o.upper)
}

// TestSparedPause: a look that had to wait for the processor does not make quiet
// files wait for long.
func TestSparedPause(t *testing.T) {
	for _, c := range []struct {
		took  time.Duration
		files int
		want  time.Duration
	}{
		{100 * time.Microsecond, 100, 20 * time.Millisecond},
		{4 * time.Millisecond, sparedNames, 800 * time.Millisecond},
		{time.Second, 10, 10 * time.Millisecond},
		{time.Minute, sparedNames, 4096 * time.Millisecond},
	} {
		if got := sparedPause(c.took, c.files); got != c.want {
			t.Errorf("a look at %d files that took %v: they are left alone for %v, want %v", c.files, c.took, got, c.want)
		}
	}
}

// TestEventsSparesAfterUnpacking: a layer full of files that were just written
// has room left for its log.
func TestEventsSparesAfterUnpacking(t *testing.T) {
	o := newOverlay(t, "ext4", nil)
	e := openEvents(t)
	for i := range 2 * hotKept {
		write(t, filepath.Join(o.merged, "share", strconv.Itoa(i)), 10)
	}
	agrees(t, e, o.upper)
	log, err := os.Create(filepath.Join(o.merged, "log"))
	must(t, err)
	defer log.Close()
	for deadline := time.Now().Add(time.Minute); !e.layers[o.upper].tree.root.spared; {
		if time.Now().After(deadline) {
			t.Fatalf("not spared after a minute: %s", state(e.layers[o.upper].tree.root))
		}
		_, err := log.Write(make([]byte, 5000))
		must(t, err)
		agrees(t, e, o.upper)
	}
}

func TestOverlayContract(t *testing.T) {
	for name, open := range map[string]func(*testing.T) Meter{
		"walk":   func(*testing.T) Meter { return NewWalker("/") },
		"events": func(t *testing.T) Meter { return openEvents(t) },
	} {
		t.Run(name, func(t *testing.T) { overlayContract(t, open, "ext4", "xfs") })
	}
	// XFS takes back what it reserved without an event: there a file must stay hot.
	t.Run("events that cool at once", func(t *testing.T) {
		overlayContract(t, func(t *testing.T) Meter {
			e := openEvents(t)
			e.quiet = time.Millisecond
			return e
		}, "ext4")
	})
}

func TestEventsRandom(t *testing.T) {
	overlayRandom(t, true, func(t *testing.T) Meter { return openEvents(t) })
}

// resting leaves a layer alone after each look. Writing it back changes what is
// allocated without an event, which is why files stay hot until that is over:
// so it is over before each look. What others of this machine write is not waited
// for.
type resting struct {
	*Events
	t *testing.T
}

func (r resting) Measure(ctx context.Context, t Target) (Look, error) {
	syncFilesystem(r.t, t.Layer.Upper)
	look, err := r.Events.Measure(ctx, t)
	r.Rest(t.Layer.Upper)
	return look, err
}

// TestEventsRandomAtRest has no hard links: what is written through one whose
// other name was removed long ago is found by the full check alone
// (docs/decisions/0008-file-events.md).
func TestEventsRandomAtRest(t *testing.T) {
	overlayRandom(t, false, func(t *testing.T) Meter {
		e := openEvents(t)
		e.quiet = time.Millisecond
		return resting{e, t}
	})
}

// TestEventsRest: of a layer that is left alone no name is kept, and what grows
// in it afterwards is named as before.
func TestEventsRest(t *testing.T) {
	o := newOverlay(t, "ext4", nil)
	shell(`mkdir a; for i in $(seq 50); do head -c 4096 /dev/zero > a/$i; done`)(t, o.merged)
	e := openEvents(t)
	e.quiet = time.Hour // what is new is hot, however long the machine took to make it
	agrees(t, e, o.upper)
	e.Rest(o.upper)
	if e.names.Load() == 0 {
		t.Error("a layer with hot files was let go of")
	}
	e.quiet = 0
	agrees(t, e, o.upper)
	e.Rest(o.upper)
	if l := e.layers[o.upper]; e.names.Load() != 0 || len(l.tree.noted.items) != 0 || len(l.tree.awake) != 0 || l.files != nil {
		t.Errorf("%d names, %d notes, %d folders, %d files stay", e.names.Load(), len(l.tree.noted.items), len(l.tree.awake), len(l.files))
	}
	e.quiet = time.Hour
	target := layerAt(o.upper)
	target.Since = waitTick(t)
	shell(`head -c 8192 /dev/zero >> a/7; rm a/8; head -c 4096 /dev/zero > a/new`)(t, o.merged)
	look := measure(t, e, target)
	found := map[string]Item{}
	for _, it := range look.Files {
		found[it.Path] = it
	}
	if found["/a/7"].Bytes != 12288 || !found["/a/new"].New {
		t.Errorf("files %+v, want what grew and what is new", look.Files)
	}
	agrees(t, e, o.upper)
}

// TestContractOnFileSystems is what every Meter must do on a plain folder, on
// each kind of file system. Each is one of its own: marking this machine's would
// slow all who work on it.
func TestContractOnFileSystems(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			o := newOverlay(t, kind, nil)
			t.Setenv("TMPDIR", o.backing)
			t.Run("walk", func(t *testing.T) {
				meterContract(t, func(*testing.T) Meter { return NewWalker("/") })
			})
			t.Run("events", func(t *testing.T) {
				meterContract(t, func(t *testing.T) Meter { return openEvents(t) })
			})
		})
	}
}

// TestEventsNeverWrong is the contract's files that vanish, through an overlay.
func TestEventsNeverWrong(t *testing.T) {
	o := newOverlay(t, "ext4", nil)
	all := contractTrees()
	c := all[slices.IndexFunc(all, func(c contractTree) bool { return c.during != nil })]
	c.make(t, o.merged)
	through := c
	through.during = func(t *testing.T, _ string, stop <-chan struct{}) { c.during(t, o.merged, stop) }
	meterNeverWrong(t, openEvents(t), o.upper, layerAt(o.upper), through, nil)
}

// TestEventsOverflow has more events than the queue takes.
func TestEventsOverflow(t *testing.T) {
	limit, err := os.ReadFile("/proc/sys/fs/fanotify/max_queued_events")
	must(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	must(t, err)
	o := newOverlay(t, "ext4", nil)
	e := openEvents(t)
	agrees(t, e, o.upper)
	for i := range n + 2000 {
		write(t, filepath.Join(o.merged, strconv.Itoa(i)), 1)
	}
	before := e.layers[o.upper].tree
	agrees(t, e, o.upper)
	if e.layers[o.upper].tree == before {
		t.Error("the queue did not overflow, or the layer was not read again")
	}
}

// TestEventsForget: what was known of a layer goes with it.
func TestEventsForget(t *testing.T) {
	o := newOverlay(t, "ext4", nil)
	e := openEvents(t)
	fill := func() {
		shell(`mkdir -p a/b/c; for i in 1 2 3; do echo x > a/b/$i; ln a/b/$i a/$i; done`)(t, o.merged)
		agrees(t, e, o.upper)
		shell(`echo y >> a/b/1; mv a/b a/d`)(t, o.merged)
		agrees(t, e, o.upper)
		if len(e.index) == 0 || e.names.Load() == 0 {
			t.Fatal("nothing is known")
		}
	}
	empty := func(when string) {
		t.Helper()
		if len(e.index) != 0 || e.names.Load() != 0 || len(e.layers) != 0 {
			t.Errorf("%s: %d folders, %d names, %d layers stay", when, len(e.index), e.names.Load(), len(e.layers))
		}
	}
	fill()
	e.Forget(o.upper)
	empty("forgotten")
	shell(`rm -r a`)(t, o.merged)
	fill()
	must(t, os.Rename(o.upper, o.upper+"x"))
	if _, err := e.Measure(t.Context(), layerAt(o.upper)); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want ErrGone", err)
	}
	empty("gone")
	before := descriptors(t)
	must(t, os.Rename(o.upper+"x", o.upper))
	agrees(t, e, o.upper)
	leaksNothing(t, before)
}

// TestEventsUnfollowed: a file system without file handles is walked.
func TestEventsUnfollowed(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	look, err := openEvents(t).Measure(t.Context(), layerAt("/proc/self/task"))
	if err == nil && look.Method != "walk" {
		t.Errorf("method %s, want walk: %+v", look.Method, look)
	}
}

// TestEventsEvidence names what grew, as a walk does.
func TestEventsEvidence(t *testing.T) {
	o := newOverlay(t, "ext4", nil)
	shell(`mkdir old; for i in $(seq 200); do head -c $((i*4096)) /dev/zero > old/$i; done; touch -d '1 hour ago' old/*`)(t, o.merged)
	e := openEvents(t)
	first := agrees(t, e, o.upper)
	since := waitTick(t)
	shell(`mkdir -p app/logs; head -c 4096 /dev/zero > app/logs/debug.log; head -c 4096 /dev/zero >> old/5`)(t, o.merged)
	target := layerAt(o.upper)
	target.Since = since
	look := measure(t, e, target)
	byPath := map[string]Item{}
	for _, it := range look.Files {
		byPath[it.Path] = it
	}
	if it := byPath["/app/logs/debug.log"]; it.Bytes != 4096 || !it.New {
		t.Errorf("debug.log is %+v, want 4096 bytes, new; first %v", it, first.Usage)
	}
	if it := byPath["/old/5"]; it.Bytes != 6*4096 || it.New {
		t.Errorf("old/5 is %+v, want 24 KiB, not new", it)
	}
	if it := byPath["/old/200"]; it.Bytes != 200*4096 {
		t.Errorf("old/200 is %+v, want it as the largest", it)
	}
	for _, it := range look.Folders {
		if it.Path == "/old" && it.Files == 200 {
			return
		}
	}
	t.Errorf("folder /old is not told: %+v", look.Folders)
}

// TestEventsShardedCache: as by a walk.
func TestEventsShardedCache(t *testing.T) {
	o := newOverlay(t, "ext4", nil)
	e := openEvents(t)
	shardedCache(t, e, o.merged, o.upper)
	if look := agrees(t, e, o.upper); look.Method != "events" {
		t.Errorf("measured by %s", look.Method)
	}
}

func state(f *folder) string {
	return fmt.Sprintf("a folder of %d files, %d hot, heard %v, spared %v", f.count, f.hot, f.heard, f.spared)
}

func FuzzParseEvents(f *testing.F) {
	meta := func(mask uint64, info []byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(eventMetadata+len(info)))
		b = append(b, unix.FANOTIFY_METADATA_VERSION, 0, eventMetadata, 0)
		b = binary.NativeEndian.AppendUint64(b, mask)
		b = append(b, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0)
		return append(b, info...)
	}
	fid := []byte{
		unix.FAN_EVENT_INFO_TYPE_DFID_NAME, 0, 32, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 0, 0, 0, 1, 0, 0, 0,
		9, 9, 9, 9, 7, 7, 7, 7, 'a', 'b', 0, 0,
	}
	f.Add(append(meta(unix.FAN_MODIFY, fid), meta(unix.FAN_Q_OVERFLOW, nil)...))
	f.Add(meta(unix.FAN_CREATE|unix.FAN_ONDIR, fid)[:40])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		for rest := data; len(rest) > 0; {
			e, next, err := nextEvent(rest)
			if err != nil {
				return
			}
			if len(next) >= len(rest) {
				t.Fatal("an event took nothing off the buffer")
			}
			if n := len(e.folder); n != 0 && (n < 16 || n > 16+maxHandle || int(binary.NativeEndian.Uint32(e.folder[8:])) != n-16) {
				t.Fatalf("folder key of %d bytes is no handle", n)
			}
			if bytes.IndexByte(e.name, 0) >= 0 {
				t.Fatalf("name %q has a NUL", e.name)
			}
			rest = next
		}
	})
}

// TestEventsChecksByItself: the full check comes when it is due, and the metric
// tells what a write through a mapping had escaped by.
func TestEventsChecksByItself(t *testing.T) {
	o := newOverlay(t, "ext4", nil)
	path := filepath.Join(o.merged, "mapped")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(1<<20))
	e, err := NewEvents(EventsOptions{HostRoot: "/", CheckEvery: 2 * time.Second})
	must(t, err)
	e.quiet = 0 // no file is looked at for another reason than an event
	t.Cleanup(func() { must(t, e.Close()) })
	c := container("web-0", "u-1", "app", "1")
	c.Layer = layerAt(o.upper).Layer
	all := []runtime.Container{c}
	registry := prometheus.NewRegistry()
	w, err := NewWatcher(Options{
		Containers: func() []runtime.Container { return all }, Meter: e, Policy: DefaultPolicy(), Interval: 100 * time.Millisecond, Share: 1, Registerer: registry,
	})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { e.Run(ctx) })
	running.Go(func() { _ = w.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	until := func(what string, so func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, w.Verdicts())
			}
		}
	}
	holds := func() bool {
		v := w.Verdicts()
		return len(v) == 1 && v[0].Usage == du(t, o.upper)
	}
	until("the first figure", holds)
	data, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	for i := range data {
		data[i] = 1
	}
	must(t, unix.Munmap(data))
	checks := func() (n uint64, sum float64) {
		for _, m := range gather(t, registry)["nodeagent_disk_measure_error_bytes"] {
			n += m.GetHistogram().GetSampleCount()
			sum += m.GetHistogram().GetSampleSum()
		}
		return n, sum
	}
	until("a check that finds the megabyte", func() bool { _, sum := checks(); return sum >= 1<<20 })
	until("the right figure", holds)
	for _, m := range gather(t, registry)["nodeagent_disk_measure_error_inodes"] {
		if m.GetHistogram().GetSampleSum() != 0 {
			t.Errorf("inodes that were missed: %v", m)
		}
	}
	if above := gather(t, registry)["nodeagent_disk_measure_error_bytes"]; above[0].GetHistogram().GetSampleSum() != 0 { // above comes before below
		t.Errorf("told as too high: %v", above[0])
	}
}

// TestEventsWriteThroughMapping: a write to a mapping raises no event; the slow
// full check finds it, and tells by how much the figure was wrong.
func TestEventsWriteThroughMapping(t *testing.T) {
	o := newOverlay(t, "ext4", nil)
	f, err := os.Create(filepath.Join(o.merged, "mapped"))
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(1<<20))
	e := openEvents(t)
	e.quiet = 0 // no file is looked at for another reason than an event
	before := agrees(t, e, o.upper)
	measure(t, e, layerAt(o.upper))
	data, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer func() { must(t, unix.Munmap(data)) }()
	for i := range data {
		data[i] = 1
	}
	want := du(t, o.upper)
	if got := measure(t, e, layerAt(o.upper)); got.Usage != before.Usage || got.Checked {
		t.Fatalf("%+v: the mapping's write was seen; is the check of it still needed?", got)
	}
	e.layers[o.upper].check = time.Time{}
	got := measure(t, e, layerAt(o.upper))
	if !got.Checked || got.Usage != want || got.Error.Bytes != want.Bytes-before.Usage.Bytes || got.Error.Inodes != 0 {
		t.Errorf("%+v, want %+v and the error found", got, want)
	}
	e.layers[o.upper].check = time.Time{}
	if got := measure(t, e, layerAt(o.upper)); !got.Checked || got.Error != (Usage{}) {
		t.Errorf("%+v, want a check that finds no error", got)
	}
}
