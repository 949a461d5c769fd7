package disk

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// Part is what a container's bytes on disk are counted as.
type Part string

// The parts. Each is counted by itself, and no byte in two of them.
const (
	PartLayer    Part = "layer"    // its writable layer
	PartLogs     Part = "logs"     // what it wrote to stdout and stderr, rotated and compressed files included
	PartEmptyDir Part = "emptydir" // the pod's emptyDirs that it mounts, those on disk
	PartVolume   Part = "volume"   // the VOLUMEs of its image
	PartDeleted  Part = "deleted"  // files that are deleted and still open
)

// partOrphan is no container's part: a snapshot that nobody uses.
const partOrphan Part = "orphan"

// Parts are all of them, in the order in which people are told.
func Parts() []Part {
	return []Part{PartLayer, PartLogs, PartEmptyDir, PartVolume, PartDeleted}
}

// spot is a folder that a container writes into.
type spot struct {
	part  Part
	layer runtime.Layer // of a part that is no layer the folder alone, as Upper
	shown string        // where the container sees the folder; the host's own path for logs
}

// spots tells where a container writes. The layer may have no folder, then its
// snapshotter tells of it. A volume that is mounted twice is told once.
func spots(c runtime.Container) []spot {
	var out []spot
	if c.Layer.Upper != "" || c.Layer.Key != "" {
		out = append(out, spot{part: PartLayer, layer: c.Layer})
	}
	if c.Sandbox {
		return out
	}
	if c.Logs != "" {
		out = append(out, spot{part: PartLogs, layer: runtime.Layer{Upper: c.Logs}, shown: c.Logs})
	}
	for _, m := range c.Mounts {
		s, ok := volume(c, m)
		if ok && !slices.ContainsFunc(out, func(o spot) bool { return o.layer.Upper == s.layer.Upper }) {
			out = append(out, s)
		}
	}
	return out
}

// volume recognises by its source what is mounted: an emptyDir of the
// container's own pod (k8s.io/kubernetes, pkg/volume/emptydir), or a VOLUME of
// its image, which the CRI plugin keeps below containerd's root
// (internal/cri/server/container_create.go, volumeMounts). Everything else
// outlives the container.
func volume(c runtime.Container, m runtime.Mount) (spot, bool) {
	dir, name := filepath.Split(m.Source)
	folder := func(part Part, path, shown string) (spot, bool) {
		return spot{part: part, layer: runtime.Layer{Upper: path}, shown: shown}, true
	}
	pod := "/pods/" + c.Pod.UID + "/"
	if c.Pod.UID != "" && strings.HasSuffix(dir, pod+"volumes/kubernetes.io~empty-dir/") {
		return folder(PartEmptyDir, m.Source, m.Destination)
	}
	if c.Pod.UID != "" && strings.Contains(m.Source, pod+"volume-subpaths/") {
		// One folder of a volume (subPath): pods/UID/volume-subpaths/VOLUME/CONTAINER/INDEX
		// (pkg/volume/util/subpath). The kubelet counts the whole volume. Is it
		// no emptyDir, then that folder is not there.
		kubelet, rest, _ := strings.Cut(m.Source, pod+"volume-subpaths/")
		name, _, _ = strings.Cut(rest, "/")
		if path := kubelet + pod + "volumes/kubernetes.io~empty-dir/" + name; name != ".." {
			return folder(PartEmptyDir, path, path)
		}
		return spot{}, false
	}
	if name != "" && strings.HasSuffix(dir, "/io.containerd.grpc.v1.cri/containers/"+c.ID+"/volumes/") {
		return folder(PartVolume, m.Source, m.Destination)
	}
	return spot{}, false
}

// placeID names a place: a folder, or what a container holds of deleted files
// on one file system.
type placeID struct {
	part   Part
	folder string
	owner  key    // of deleted files, and of a layer without a folder of its own, an orphan too
	mount  string // likewise
}

// place is what the watcher knows of one place that is measured. An emptyDir
// that several containers mount is one place, and so is the log folder of
// several attempts of one container.
type place struct {
	id     placeID
	layer  runtime.Layer
	space  string   // containerd's namespace, of a layer
	group  *group   // whose slots its measures take
	tracks []*track // of the containers that hold it

	// Of the measuring.
	since    time.Time     // start of the last good look
	cost     time.Duration // of a look, the last weighing half
	lastCost time.Duration // of the last alone
	interval time.Duration // between the starts of two looks
	due      time.Time
	slot     int       // in the schedule, from 1; 0: it is not in it
	started  time.Time // of the measure that runs; zero: none does
	slow     bool      // that one is expected to take long
	calm     bool      // nothing changes, and whatever will be told of
	asleep   bool      // so it is left alone
	woken    bool      // something happened since the measure was started
	failures int       // in a row
	gone     time.Time // since when its folder is not there
	method   string    // of the last good look
	memory   bool      // it is in memory and no disk's matter
	queued   bool      // due, and without a slot

	// Of probes; see probes.go.
	walked     time.Time     // start of the last look that was none
	hot        bool          // that one said that there may be some
	blind      bool          // it found more than they had seen
	foretold   bool          // the figure is a probe's
	base       Usage         // its figure
	baseAt     time.Time     // when that was true
	probing    time.Time     // start of the probe that runs; zero: none does
	probed     time.Time     // start of the last one, or of the last look
	probeCost  time.Duration // as cost
	probeEvery time.Duration // 0: there are none
	takenBack  int           // samples of them, by the last look

	// Of the last good look.
	at     time.Time // zero: there was none
	device uint64
	usage  Usage
	fs     *filesystem
	series Series
	trends Trends
	marks  marks
	// evidence is what grew, by its path within the place; none while it
	// does not grow.
	evidence []Growth
}

// measured tells whether it is looked at by a Meter; the others are told of.
func (p *place) measured() bool { return p.id.part != PartDeleted && !p.memory }

// known tells whether there is a figure.
func (p *place) known() bool { return !p.at.IsZero() }

// tried tells whether it was looked at, or cannot be.
func (p *place) tried(now time.Time) bool {
	stuck := !p.started.IsZero() && now.Sub(p.started) > stuckAfter
	return p.known() || p.failures > 0 || p.cost > 0 || stuck
}

// look takes in a good look.
func (p *place) look(l Look) {
	if p.takenBack = 0; !l.Probed {
		p.since = l.Started
		p.rebase(l)
	} else {
		p.foretold = true
	}
	p.device = l.Device
	p.sample(l.Started.Add(l.Took), l.Usage, l.Filesystem)
	p.mark(l)
}

// mark takes in which files a look saw.
func (p *place) mark(l Look) {
	if p.moves() {
		p.marks.look(p.at, l)
	} else {
		p.marks.rest(p.at)
	}
	p.evidence = nil
	if p.growing() {
		p.evidence = p.marks.growths()
	}
}

func (p *place) sample(at time.Time, u Usage, fs FilesystemUsage) {
	p.at, p.usage, p.failures, p.gone = at, u, 0, time.Time{}
	p.series = p.series.Add(Sample{At: at, Usage: u, Filesystem: Usage{Bytes: fs.Used, Inodes: fs.InodesUsed}})
	p.trends = p.series.Trends().remembering(p.trends, u)
}

// paid takes in what a look has cost. A single costly one among others is the
// machine's doing (a cold cache, a disk that stalls, a host that gives no CPU),
// and by it alone what grows would not be looked at for half a minute: so of two
// in a row the cheaper counts.
func (p *place) paid(work time.Duration) {
	last := p.lastCost
	p.lastCost = work
	switch {
	case last > 0:
		work = min(work, last)
	case p.known():
		return // the first after a whole one, which says nothing of it
	}
	p.cost = smoothed(p.cost, work)
}

// smoothed is what a measure is expected to cost once another took d, good or not.
func smoothed(cost, d time.Duration) time.Duration {
	if cost == 0 {
		return d
	}
	return (cost + d) / 2
}

// moves tells whether anything changed in the last minutes. Of an idle place
// nothing but its figure is remembered.
func (p *place) moves() bool {
	return len(p.series) < seriesLeast || slices.ContainsFunc(p.series, func(x Sample) bool { return x.Usage != p.usage })
}

// growing tells whether the last looks saw it grow.
func (p *place) growing() bool {
	return p.trends.Bytes.Rate.High > 0 || p.trends.Inodes.Rate.High > 0
}

// growths are its evidence, with paths as the container sees them that has
// the place at shown.
func (p *place) growths(shown string) []Growth {
	out := slices.Clone(p.evidence)
	for i := range out {
		if shown != "" {
			out[i].Path = strings.TrimSuffix(strings.TrimSuffix(shown, "/")+out[i].Path, "/")
		}
	}
	return out
}
