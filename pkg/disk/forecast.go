package disk

import (
	"math"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// Limits are the ephemeral-storage limits of a pod in bytes; 0 is none.
type Limits struct {
	Pod        int64
	Containers map[string]int64 // by container name
}

// Siblings is what the other containers of a pod hold and how they grow.
type Siblings struct {
	Usage Usage
	Rate  Rate
}

// Holding is one of the places that a container has its bytes in.
type Holding struct {
	Part   Part
	Usage  Usage
	Trends Trends // Other… is all else on its file system
	// Mount is where its file system is mounted, as the host sees it.
	Mount      string
	Filesystem FilesystemUsage
	Evidence   []Growth
}

// Facts is all that a verdict on one container depends on.
type Facts struct {
	Container runtime.Container
	Node      string // its name, for the message; may be empty
	At        time.Time
	Watched   time.Time // since when it is looked at; zero: for long
	Parts     []Holding // those that are known, at least one; the layer first
	Siblings  Siblings
	Limits    Limits
}

// forecast is how near one bound is.
type forecast struct {
	bound    Bound
	resource Resource
	mount    string // of the file system; for a limit, of the first part's
	room     int64
	limit    int64 // what was to be kept: the limit, or the file system's reserve
	held     int64 // by this container, of the resource
	own      Trend // of this container
	rate     Rate  // at which the room shrinks
	until    Until
	counts   func(Holding) bool
}

// of is the file system that the bound is about; none for a limit.
func (b forecast) of() string {
	if b.bound != BoundFilesystem {
		return ""
	}
	return b.mount
}

// evidence is what grew of what counts against the bound, fastest first.
func (b forecast) evidence(f Facts) []Growth {
	var all []Growth
	for _, h := range f.Parts {
		if !b.counts(h) {
			continue
		}
		for _, g := range h.Evidence {
			g.Part = h.Part
			all = append(all, g)
		}
	}
	sortGrowths(all)
	return all[:min(len(all), evidenceTold)]
}

// countsForContainer: a container's ephemeral-storage limit is on its layer
// and its logs. (The kubelet leaves the layer out where containerd has a disk
// of its own, containerEphemeralStorageLimitEviction in
// pkg/kubelet/eviction/eviction_manager.go; here it counts all the same: it is
// what the limit was set for.)
func countsForContainer(h Holding) bool {
	return h.Part == PartLayer || h.Part == PartLogs
}

// countsForPod: the pod's limit is on the emptyDirs too
// (podEphemeralStorageLimitEviction there, and calcEphemeralStorage in
// pkg/kubelet/stats/helper.go). Neither counts image VOLUMEs and deleted files.
func countsForPod(h Holding) bool {
	return countsForContainer(h) || h.Part == PartEmptyDir
}

// forecasts tells how near each bound is that the container has: each file
// system that it has a part on, whatever the part, since the pod's end frees
// all of them; and the limits. The bytes of the first part's file system come
// first and are always there.
func forecasts(f Facts, p Policy) []forecast {
	out := make([]forecast, 0, 4)
	add := func(b forecast) {
		b.until = untilFull(b.room, b.rate)
		out = append(out, b)
	}
	seen := make(map[string]bool, 2)
	for _, h := range f.Parts {
		if seen[h.Mount] {
			continue
		}
		seen[h.Mount] = true
		here := func(o Holding) bool { return o.Mount == h.Mount }
		fs, reserves := h.Filesystem, p.reserves(h.Mount)
		b := forecast{bound: BoundFilesystem, resource: Bytes, mount: h.Mount, limit: reserves.Bytes.Of(fs.Size), counts: here}
		b.held, b.own, b.rate = together(f.Parts, here, ofBytes)
		b.room = fs.Avail - b.limit
		if fs.Size == 0 { // not known, as of a device
			b.room = math.MaxInt64
		}
		add(b)
		if fs.Inodes > 0 {
			b := forecast{bound: BoundFilesystem, resource: Inodes, mount: h.Mount, limit: reserves.Inodes.Of(fs.Inodes), counts: here}
			b.held, b.own, b.rate = together(f.Parts, here, ofInodes)
			b.room = fs.InodesFree - b.limit
			add(b)
		}
	}
	if limit := f.Limits.Containers[f.Container.Name]; limit > 0 {
		b := forecast{bound: BoundContainer, resource: Bytes, mount: f.Parts[0].Mount, limit: limit, counts: countsForContainer}
		b.held, b.own, _ = together(f.Parts, countsForContainer, ofBytes)
		b.room, b.rate = limit-b.held, b.own.Rate
		add(b)
	}
	if limit := f.Limits.Pod; limit > 0 {
		b := forecast{bound: BoundPod, resource: Bytes, mount: f.Parts[0].Mount, limit: limit, counts: countsForPod}
		b.held, b.own, _ = together(f.Parts, countsForPod, ofBytes)
		b.room, b.rate = limit-b.held-f.Siblings.Usage.Bytes, plus(b.own.Rate, f.Siblings.Rate)
		add(b)
	}
	return out
}

// figure is one resource of a holding.
type figure func(Holding) (held int64, own, others Trend)

func ofBytes(h Holding) (int64, Trend, Trend) {
	return h.Usage.Bytes, h.Trends.Bytes, h.Trends.OtherBytes
}

func ofInodes(h Holding) (int64, Trend, Trend) {
	return h.Usage.Inodes, h.Trends.Inodes, h.Trends.OtherInodes
}

// together adds the parts that count. Each has a trend of its own, since they
// are looked at at different times: a file that goes from one to another is
// no growth that is sure. How long it has been rising, and how fast all that is
// on the file system grows, is told by the part that surely grows fastest.
func together(parts []Holding, counts func(Holding) bool, of figure) (held int64, own Trend, all Rate) {
	var lead Trend
	anew, grows := false, false
	peak := 0.0
	for _, h := range parts {
		if !counts(h) {
			continue
		}
		n, t, others := of(h)
		held += n
		own.Rate = sum(own.Rate, t.Rate)
		if !grows || t.Rate.Low > lead.Rate.Low || (t.Rate.Low == lead.Rate.Low && t.Rate.Expected > lead.Rate.Expected) {
			lead, all, grows = t, plus(t.Rate, others.Rate), true
		}
		switch {
		case t.Rate.Expected <= 0:
			peak += float64(n)
		case outgrew(float64(n), t.Peak):
			anew = true
		default:
			peak += t.Peak
		}
	}
	own.Rising, own.Looks, own.Began = lead.Rising, lead.Looks, lead.Began
	if !anew && own.Rate.Expected > 0 {
		own.Peak = peak
	}
	return held, own, all
}

func (u Usage) plus(o Usage) Usage {
	return Usage{Bytes: u.Bytes + o.Bytes, Inodes: u.Inodes + o.Inodes}
}

func sum(a, b Rate) Rate {
	return Rate{Low: a.Low + b.Low, Expected: a.Expected + b.Expected, High: a.High + b.High}
}

// plus adds the growth of others, when this one grows. That others shrink at
// the moment does not help: they cannot go on with it.
func plus(own, others Rate) Rate {
	if own.High <= 0 {
		return own
	}
	return Rate{Low: own.Low + others.Low, Expected: own.Expected + others.Expected, High: own.High + others.High}
}

// untilFull is the time until room is used up at a rate.
func untilFull(room int64, r Rate) Until {
	return Until{
		Soonest:  timeFor(room, r.High),
		Expected: timeFor(room, r.Expected),
		Latest:   timeFor(room, r.Low),
	}
}

func timeFor(room int64, rate float64) time.Duration {
	if rate <= 0 {
		return Never
	}
	if room <= 0 {
		return 0
	}
	ns := float64(room) / rate * float64(time.Second)
	if ns >= math.MaxInt64 {
		return Never
	}
	return time.Duration(ns)
}
