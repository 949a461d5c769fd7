package disk

import (
	"maps"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// orphanInterval is the least time between two looks at an orphaned snapshot:
// nobody writes to it. Where the snapshotter tells of it, which may walk over a
// whole image, it is orphanUsageInterval.
const (
	orphanInterval      = time.Minute
	orphanUsageInterval = 10 * time.Minute
)

// list brings tracks and places in line with the containers that are there.
func (w *Watcher) list(now time.Time, containers []runtime.Container, storage []runtime.Storage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listed = now
	if sameList(w.containers, containers) && sameList(w.storage, storage) {
		// Nothing came or went: the runtime makes a new list then.
		if w.spent {
			w.pace()
		}
		return
	}
	w.containers = containers
	clear(w.unsupported)
	there := make(map[key]bool, len(containers))
	changed := false
	for _, c := range containers {
		if c.Layer.Upper == "" && (w.opts.Snapshots == nil || c.Layer.Key == "") {
			w.unsupported[c.Layer.Snapshotter]++
		}
		k := keyOf(c)
		there[k] = true
		t := w.tracks[k]
		if t != nil && t.container.Equal(c) {
			continue
		}
		if t == nil {
			t = &track{}
			w.tracks[k] = t
		}
		if !changed {
			w.readMounts()
			changed = true
		}
		t.container = c
		w.hold(t, now)
	}
	for k := range w.tracks {
		if !there[k] {
			delete(w.tracks, k)
			w.opts.Recorder.gone(k)
			changed = true
		}
	}
	if w.orphans(now, storage) || changed {
		w.bind()
		w.spent = true
	}
	if w.spent {
		w.pace()
	}
}

// sameList tells whether it is the very list of before, and not one that is
// like it.
func sameList[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// hold gives a track its places, those that are there and new ones.
func (w *Watcher) hold(t *track, now time.Time) {
	var holds []hold
	for _, s := range spots(t.container) {
		id := placeID{part: s.part, folder: s.layer.Upper}
		if s.layer.Upper == "" {
			id = placeID{part: s.part, folder: s.layer.Source, owner: keyOf(t.container)}
		}
		if s.layer.Upper == "" && w.opts.Snapshots == nil {
			continue
		}
		p := w.places[id]
		if p == nil {
			p = &place{id: id, group: w.groupFor(s.layer), due: now, interval: w.opts.Interval}
			w.admit(p)
		}
		p.layer, p.space = s.layer, t.container.Namespace
		holds = append(holds, hold{place: p, shown: s.shown})
	}
	for _, h := range t.holds {
		if h.place.id.part == PartDeleted {
			holds = append(holds, h)
		}
	}
	t.holds = holds
}

// orphans makes a place of each orphaned snapshot. It tells whether there are
// others than before.
func (w *Watcher) orphans(now time.Time, storage []runtime.Storage) (changed bool) {
	there := make(map[placeID]bool)
	for _, s := range storage {
		for _, o := range s.Orphans {
			id := placeID{part: partOrphan, folder: o.Layer.Upper}
			if o.Layer.Upper == "" {
				id = placeID{part: partOrphan, folder: o.Layer.Source, owner: key{o.Namespace, o.Layer.Snapshotter + "/" + o.Layer.Key}}
			}
			if o.Layer.Upper == "" && w.opts.Snapshots == nil {
				continue
			}
			there[id] = true
			if w.places[id] == nil {
				w.admit(&place{id: id, layer: o.Layer, space: o.Namespace, group: w.groupFor(o.Layer), due: now, interval: orphanInterval})
				changed = true
			}
		}
	}
	for id := range w.places {
		if id.part == partOrphan && !there[id] {
			w.forget(id)
			changed = true
		}
	}
	w.storage = storage
	return changed
}

// bind tells the places who holds them, and lets go of those that nobody does.
func (w *Watcher) bind() {
	for _, p := range w.places {
		p.tracks = p.tracks[:0]
	}
	for _, t := range w.tracks {
		for _, h := range t.holds {
			h.place.tracks = append(h.place.tracks, t)
		}
	}
	used, groups := make(map[*filesystem]bool), make(map[*group]bool)
	for id, p := range w.places {
		if len(p.tracks) == 0 && id.part != partOrphan {
			w.forget(id)
			continue
		}
		used[p.fs] = true
		groups[p.group] = true
	}
	maps.DeleteFunc(w.groups, func(_ uint64, g *group) bool { return g.running == 0 && !groups[g] })
	maps.DeleteFunc(w.snapshotters, func(_ string, g *group) bool { return g.running == 0 && !groups[g] })
	for device, fs := range w.filesystems {
		if !used[fs] {
			delete(w.filesystems, device)
		}
	}
}

// admit takes in a new place that is to be measured.
func (w *Watcher) admit(p *place) {
	w.places[p.id] = p
	w.awake[p] = true
	w.schedule.add(p)
}

// forget lets go of a place, and so does a meter that remembers it.
func (w *Watcher) forget(id placeID) {
	p := w.places[id]
	delete(w.places, id)
	delete(w.awake, p)
	w.waiting(p).remove(p)
	w.resign(p)
	if m, remembers := w.opts.Meter.(interface{ Forget(upper string) }); remembers {
		m.Forget(id.folder)
	}
}

func (w *Watcher) readMounts() {
	m, err := readMounts(w.opts.Proc)
	if err != nil {
		w.opts.Logger.Warn("the mount table before is used", "err", err)
		return
	}
	w.mounts = m
}

// path is where this process sees a folder of the host.
func (w *Watcher) path(folder string) string {
	return hostJoin(w.opts.HostRoot, folder)
}

// groupFor is the group of what is measured with a layer: its mount's, or its
// snapshotter's where that tells of it.
func (w *Watcher) groupFor(l runtime.Layer) *group {
	if l.Upper != "" {
		return w.groupOf(l.Upper)
	}
	if w.snapshotters[l.Snapshotter] == nil {
		w.snapshotters[l.Snapshotter] = &group{}
	}
	return w.snapshotters[l.Snapshotter]
}

func (w *Watcher) groupOf(folder string) *group {
	device := w.mounts.of(w.path(folder)).device
	if w.groups[device] == nil {
		w.groups[device] = &group{}
	}
	return w.groups[device]
}

// pace sets the interval of every place that is awake by what they cost. Containers share
// the budget; the places of one share its part of it, so that a giant emptyDir
// is looked at seldom and the layer beside it is not. A cheap place that grows
// is looked at twice as often, so that a leak is sure a few seconds sooner.
// What probes take is taken off.
func (w *Watcher) pace() {
	w.spent = false
	w.paceLooks(w.opts.Share)
	if taken := w.paceProbes(); taken > 0 {
		w.paceLooks(w.opts.Share - taken)
	}
}

// paceLooks paces first what grows, which leaves a quarter to the others where
// they need as much: layers that were just unpacked, all of whose files are
// looked at, keep nobody from seeing what a log does.
func (w *Watcher) paceLooks(share float64) {
	purses := make(map[*track][]*place)
	for p := range w.awake {
		if !p.measured() {
			continue
		}
		var owner *track // orphans have none, and one purse
		if len(p.tracks) > 0 {
			owner = p.tracks[0] // a shared place is paid for once
		}
		purses[owner] = append(purses[owner], p)
	}
	var growing, others [][]*place
	needed := 0.0
	for _, places := range purses {
		if slices.ContainsFunc(places, func(p *place) bool { return p.growing() || p.stirs() }) {
			growing = append(growing, places)
		} else {
			others = append(others, places)
			needed += costOf(places).Seconds() / w.opts.Interval.Seconds()
		}
	}
	taken := w.pacePurses(growing, share-min(needed, share/4))
	w.pacePurses(others, share-taken)
}

// pacePurses tells what share of a core they take.
func (w *Watcher) pacePurses(purses [][]*place, share float64) (taken float64) {
	costs := make([]time.Duration, 0, len(purses))
	for _, places := range purses {
		costs = append(costs, costOf(places))
	}
	for i, interval := range pace(costs, w.opts.Interval, share) {
		part := costs[i].Seconds() / interval.Seconds()
		taken += part
		if interval <= w.opts.Interval {
			for _, p := range purses[i] {
				p.pace(interval, w.opts.Interval)
			}
			continue
		}
		var each []time.Duration
		for _, p := range purses[i] {
			each = append(each, p.cost)
		}
		for j, interval := range pace(each, w.opts.Interval, part) {
			purses[i][j].pace(interval, w.opts.Interval)
		}
	}
	return taken
}

func costOf(places []*place) time.Duration {
	var sum time.Duration
	for _, p := range places {
		sum += p.cost
	}
	return sum
}

func (p *place) pace(interval, least time.Duration) {
	if interval == least && p.growing() {
		interval /= 2
	}
	switch {
	case p.id.part != partOrphan:
	case p.layer.Upper == "":
		interval = max(interval, orphanUsageInterval)
	default:
		interval = max(interval, orphanInterval)
	}
	p.interval = interval
}

// siblings is what the other containers of a pod hold that counts against its
// limit. What t shares with them is its own.
func (w *Watcher) siblings(t *track) Siblings {
	var s Siblings
	seen := make(map[*place]bool)
	for _, h := range t.holds {
		seen[h.place] = true
	}
	for _, o := range w.tracks {
		if o == t || o.container.Pod.UID != t.container.Pod.UID {
			continue
		}
		for _, h := range o.holds {
			p := h.place
			if seen[p] || !p.known() || !countsForPod(Holding{Part: p.id.part}) {
				continue
			}
			seen[p] = true
			s.Usage = s.Usage.plus(p.usage)
			s.Rate = sum(s.Rate, p.trends.Bytes.Rate)
		}
	}
	return s
}

// holdings are the places of a container that are known.
func (t *track) holdings() []Holding {
	var out []Holding
	for _, h := range t.holds {
		p := h.place
		if !p.known() {
			continue
		}
		out = append(out, Holding{
			Part: p.id.part, Usage: p.usage, Trends: p.trends,
			Mount: p.fs.mount, Filesystem: p.fs.usage, Evidence: p.growths(h.shown),
		})
	}
	return out
}

// Used is what the containers of a pod hold, all that their end frees, by the
// last looks; what they share is counted once. containers is how many there
// are, looked at or not, without those whose layer cannot be measured. The
// sandbox is left out: it holds nothing of its own.
func (w *Watcher) Used(podUID string) (bytes int64, containers int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var seen []*place
	for _, t := range w.tracks {
		if t.container.Pod.UID != podUID || t.container.Sandbox {
			continue
		}
		if len(t.holds) > 0 && t.holds[0].place.id.part == PartLayer {
			containers++
		}
		for _, h := range t.holds {
			if !slices.Contains(seen, h.place) {
				seen = append(seen, h.place)
				bytes += h.place.usage.Bytes
			}
		}
	}
	return bytes, containers
}
