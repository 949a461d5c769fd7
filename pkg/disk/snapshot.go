package disk

import (
	"maps"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// snapshot is the watcher's state as metrics tell it: one entry for each set
// of labels.
type snapshot struct {
	containers  map[seriesKey]*containerSeries
	filesystems map[string]filesystemSeries // by mount point
	unsupported map[string]int
	stuck       int
}

type seriesKey struct{ namespace, pod, container, uid string }

// containerSeries joins the containers of one name in one pod.
type containerSeries struct {
	parts    map[Part]partSeries
	places   map[*place]bool                 // that are in it: an emptyDir or a folder of logs once
	growth   struct{ bytes, inodes float64 } // a second
	until    Until                           // of the one that is full first
	bound    Bound
	resource Resource
	offender bool
	sandbox  bool
}

type partSeries struct {
	usage  Usage
	age    time.Duration // of the oldest figure in it
	method string        // of that one
}

type filesystemSeries struct {
	usage            FilesystemUsage
	reserve          int64 // bytes
	inodeReserve     int64
	attributed       int64 // bytes of the places on it, and of images
	kept             bool  // a snapshotter that told what it keeps is on it
	images, orphaned int64
	full, inodesFull time.Duration
}

func (w *Watcher) snapshot(now time.Time) snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := snapshot{
		containers:  make(map[seriesKey]*containerSeries, len(w.tracks)),
		filesystems: make(map[string]filesystemSeries, len(w.filesystems)),
		unsupported: make(map[string]int, len(w.unsupported)),
	}
	for name, n := range w.unsupported {
		s.unsupported[name] = n
	}
	for _, fs := range w.filesystems {
		s.filesystems[fs.mount] = w.filesystemSeries(fs)
	}
	for _, p := range w.places {
		if !p.started.IsZero() && now.Sub(p.started) > stuckAfter {
			s.stuck++
		}
		if !p.probing.IsZero() && now.Sub(p.probing) > stuckAfter {
			s.stuck++
		}
		if p.known() && p.fs.mount != "" {
			fs := s.filesystems[p.fs.mount]
			fs.attributed += p.usage.Bytes
			if p.id.part == partOrphan {
				fs.orphaned += p.usage.Bytes
			}
			s.filesystems[p.fs.mount] = fs
		}
	}
	w.images(s)
	if !w.scanning.IsZero() && now.Sub(w.scanning) > stuckAfter {
		s.stuck++
	}
	for _, t := range w.tracks {
		if t.known() { // else nothing is known yet: no series rather than a zero
			s.add(t, now, w.at)
		}
	}
	return s
}

// images adds what the snapshotters keep to the file systems that their layers
// are on.
func (w *Watcher) images(s snapshot) {
	for _, kept := range w.storage {
		mount := w.mountOf(kept)
		if mount == "" {
			continue
		}
		fs := s.filesystems[mount]
		fs.kept = true
		fs.images += kept.Images
		fs.attributed += kept.Images
		s.filesystems[mount] = fs
	}
}

// mountOf is where the file system is mounted that a snapshotter keeps its
// layers on: that of a layer, or else of its folder, where it is watched.
func (w *Watcher) mountOf(kept runtime.Storage) string {
	for _, p := range w.places {
		if p.layer.Snapshotter == kept.Snapshotter && p.known() && p.fs.mount != "" {
			return p.fs.mount
		}
	}
	if kept.Root == "" {
		return ""
	}
	if fs := w.filesystems[w.mounts.of(w.path(kept.Root)).device]; fs != nil {
		return fs.mount
	}
	return ""
}

func (w *Watcher) filesystemSeries(fs *filesystem) filesystemSeries {
	x := filesystemSeries{usage: fs.usage, inodesFull: Never}
	x.reserve, x.inodeReserve = fs.reserves(w.opts.Policy)
	bytes, inodes := fs.room(w.opts.Policy)
	x.full = timeFor(bytes, fs.trends.Bytes.Rate.Expected)
	if fs.usage.Inodes > 0 {
		x.inodesFull = timeFor(inodes, fs.trends.Inodes.Rate.Expected)
	}
	return x
}

func (s *snapshot) add(t *track, now time.Time, at func(*place) time.Time) {
	c := t.container
	k := seriesKey{c.Pod.Namespace, c.Pod.Name, ContainerName(c), c.Pod.UID}
	x := s.containers[k]
	if x == nil {
		x = &containerSeries{until: Until{Never, Never, Never}, sandbox: c.Sandbox, parts: make(map[Part]partSeries), places: make(map[*place]bool)}
		s.containers[k] = x
	}
	if u := t.verdict.Until; x.bound == "" || u.Expected < x.until.Expected {
		x.until, x.bound, x.resource = u, t.verdict.Bound, t.verdict.Resource
	}
	x.offender = x.offender || t.verdict.Offender
	for _, h := range t.holds {
		p := h.place
		if !p.known() || x.places[p] {
			continue
		}
		x.places[p] = true
		x.growth.bytes += p.trends.Bytes.Rate.Expected
		x.growth.inodes += p.trends.Inodes.Rate.Expected
		part := x.parts[p.id.part]
		part.usage = part.usage.plus(p.usage)
		if age := now.Sub(at(p)); age >= part.age {
			part.age, part.method = age, p.method
		}
		x.parts[p.id.part] = part
	}
}

// Filesystem is how a file system stands that holds what is watched.
type Filesystem struct {
	Mount        string // as the host sees it
	Usage        FilesystemUsage
	Reserve      int64         // bytes that have to stay free
	InodeReserve int64         // likewise
	Full         time.Duration // until the reserve of bytes is reached; Never when it does not grow
	InodesFull   time.Duration // until that of inodes is; Never also where it has no table of them
}

// Filesystems tells how the watched file systems stand, by mount point.
func (w *Watcher) Filesystems() []Filesystem {
	s := w.snapshot(time.Now())
	out := make([]Filesystem, 0, len(s.filesystems))
	for _, mount := range slices.Sorted(maps.Keys(s.filesystems)) {
		fs := s.filesystems[mount]
		out = append(out, Filesystem{
			Mount: mount, Usage: fs.usage, Reserve: fs.reserve, InodeReserve: fs.inodeReserve, Full: fs.full, InodesFull: fs.inodesFull,
		})
	}
	return out
}

// Method names the way a container's layer was measured the last time; empty
// before that.
func (w *Watcher) Method(c runtime.Container) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.tracks[keyOf(c)]; t != nil && len(t.holds) > 0 {
		return t.holds[0].place.method
	}
	return ""
}
