package disk

import (
	"context"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

const (
	// scanInterval is the least time between two looks at open files.
	scanInterval = 10 * time.Second
	// scanAll is the most time between two looks at those of all containers.
	// In between only containers are looked at in which something happens, or
	// that hold deleted files.
	scanAll = time.Minute
	// scanGrowth is by how much a file system's usage grows before all are
	// looked at sooner: a file that never had a name raises no event.
	scanGrowth = 16 << 20
	// scanShare bounds what they take of the budget.
	scanShare = 0.25
	// layerDevice stands for the layer's file system in OpenFiles: what a
	// container sees of it has a device number of overlayfs' own.
	layerDevice = 0
)

// OpenFilesMeter finds what containers hold of files that were deleted and are
// still open.
type OpenFilesMeter interface {
	// Scan looks once at all processes. It tells of every holder, in order.
	// An error means that nothing was learnt.
	Scan(ctx context.Context, holders []Holder) ([]OpenFiles, error)
	// Method names the way in metrics.
	Method() string
}

// Holder is a container whose open files are to be looked at.
type Holder struct {
	Container runtime.Container
	// Devices are those of the file systems that its volumes and logs are on.
	Devices []uint64
}

// OpenFiles is what one container holds of deleted files.
type OpenFiles struct {
	Err   error            // it could not be looked at whole: the rest means nothing
	Held  map[uint64]Usage // by device; 0 is the layer's file system
	Files []Item           // the largest; paths as the process that has them open sees them
}

// scanned is what came of one scan.
type scanned struct {
	at      time.Time
	took    time.Duration
	holders []Holder
	found   []OpenFiles
	err     error
}

// scan starts a look at all open files when it is time.
func (w *Watcher) scan(ctx context.Context, now time.Time) {
	if w.opts.OpenFiles == nil || !w.scanning.IsZero() || now.Before(w.nextScan) || ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.listener == nil || !now.Before(w.nextFullScan) || w.swelled()
	holders := w.holders(all)
	if len(holders) == 0 {
		if !all {
			w.nextScan = now.Add(scanInterval)
		}
		return
	}
	if all {
		w.nextFullScan = now.Add(scanAll)
		for _, fs := range w.filesystems {
			fs.scanned = fs.usage.Used
		}
	}
	w.scanning = now
	go func() { // of its own: the kernel may not come back
		s := scanned{at: time.Now(), holders: holders}
		s.found, s.err = w.opts.OpenFiles.Scan(ctx, holders)
		s.took = time.Since(s.at)
		select {
		case w.scans <- s:
		case <-w.stop:
		}
	}()
}

func (w *Watcher) swelled() bool {
	for _, fs := range w.filesystems {
		if fs.usage.Used-fs.scanned > scanGrowth {
			return true
		}
	}
	return false
}

// stirs tells whether open files of a container may have changed since they
// were looked at, as far as is known.
func (t *track) stirs() bool {
	if !t.scanned || t.blind {
		return true
	}
	for _, h := range t.holds {
		if p := h.place; p.measured() && !p.calm || p.id.part == PartDeleted && p.usage != (Usage{}) {
			return true
		}
	}
	return false
}

// holders are the containers of which a place is known, and whose processes can
// be told: all, or those that stir.
func (w *Watcher) holders(all bool) []Holder {
	var out []Holder
	for _, t := range w.tracks {
		if !all && !t.stirs() {
			continue
		}
		h := Holder{Container: t.container}
		for _, o := range t.holds {
			if o.place.known() && o.place.device != 0 && !slices.Contains(h.Devices, o.place.device) {
				h.Devices = append(h.Devices, o.place.device)
			}
		}
		if !t.container.Sandbox && cgroupName(t.container) != "" && t.base() != nil {
			out = append(out, h)
		}
	}
	return out
}

// finishScan takes in what a scan found, and judges.
func (w *Watcher) finishScan(s scanned) {
	w.durations.WithLabelValues(w.opts.OpenFiles.Method()).Observe(s.took.Seconds())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scanning = time.Time{}
	w.nextScan = s.at.Add(max(scanInterval, time.Duration(s.took.Seconds()/(scanShare*w.opts.Share)*float64(time.Second))))
	if s.err != nil {
		w.nextFullScan = time.Time{}
		w.scanFailed(nil, s.err)
		return
	}
	for i, h := range s.holders {
		t := w.tracks[keyOf(h.Container)]
		switch {
		case t == nil:
		case s.found[i].Err != nil:
			w.scanFailed(t, s.found[i].Err)
		default:
			t.blind, t.scanned = false, true
			w.deleted(t, s, s.found[i])
		}
	}
}

func (w *Watcher) scanFailed(t *track, err error) {
	if context.Canceled == err { //nolint:errorlint // the scanner tells it as it is
		return
	}
	w.failures.WithLabelValues(w.opts.OpenFiles.Method()).Inc()
	if t == nil {
		w.opts.Logger.Warn("cannot look at open files, the last figures stay", "err", err)
		return
	}
	if !t.blind { // once, until it works again
		t.blind = true
		w.opts.Logger.Warn("cannot look at a container's open files, the last figure stays", "container", Name(t.container), "err", err)
	}
}

// deleted gives each file system its part of what was found. A file system on
// which nothing is held any more has a figure of 0.
func (w *Watcher) deleted(t *track, s scanned, found OpenFiles) {
	base := t.base()
	if base == nil {
		return
	}
	held := map[*filesystem]Usage{base: {}}
	for _, h := range t.holds {
		if h.place.id.part == PartDeleted {
			held[h.place.fs] = Usage{}
		}
	}
	for device, u := range found.Held {
		fs := t.filesystemOf(device)
		if device == layerDevice || fs == nil {
			fs = base
		}
		held[fs] = held[fs].plus(u)
	}
	for fs, u := range held {
		p := w.deletedOn(t, fs)
		p.sample(s.at.Add(s.took), u, fs.usage)
		if fs == base { // what is evidence on one is not asked of each
			p.mark(Look{Files: found.Files})
		}
	}
	w.judge(t, s.at.Add(s.took))
}

// base is the file system that the layer is on, or else the first that is known.
func (t *track) base() *filesystem {
	for _, h := range t.holds {
		if h.place.known() && h.place.id.part != PartDeleted {
			return h.place.fs
		}
	}
	return nil
}

func (t *track) filesystemOf(device uint64) *filesystem {
	for _, h := range t.holds {
		if h.place.known() && h.place.device == device {
			return h.place.fs
		}
	}
	return nil
}

// deletedOn is the place of what a container holds of deleted files on a file
// system.
func (w *Watcher) deletedOn(t *track, fs *filesystem) *place {
	id := placeID{part: PartDeleted, owner: keyOf(t.container), mount: fs.mount}
	p := w.places[id]
	if p == nil {
		p = &place{id: id, fs: fs, tracks: []*track{t}}
		w.places[id] = p
		t.holds = append(t.holds, hold{place: p})
	}
	return p
}
