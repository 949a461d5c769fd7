//go:build linux

package disk

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

func TestOverlayContract(t *testing.T) {
	for name, open := range map[string]func(*testing.T) Meter{
		"walk":   func(*testing.T) Meter { return NewWalker("/") },
		"events": func(t *testing.T) Meter { return openEvents(t) },
		"events that cool at once": func(t *testing.T) Meter {
			e := openEvents(t)
			e.quiet = time.Millisecond
			return e
		},
	} {
		t.Run(name, func(t *testing.T) { overlayContract(t, open) })
	}
}

func TestEventsRandom(t *testing.T) {
	overlayRandom(t, func(t *testing.T) Meter { return openEvents(t) })
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
