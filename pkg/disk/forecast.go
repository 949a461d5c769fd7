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

// Facts is all that a verdict on one container depends on.
type Facts struct {
	Container runtime.Container
	Node      string // its name, for the message; may be empty
	At        time.Time
	Usage     Usage
	Trends    Trends
	// Mount is where the layer's file system is mounted, as the host sees it.
	Mount      string
	Filesystem FilesystemUsage
	Siblings   Siblings
	Limits     Limits
	Evidence   []Growth
}

// forecast is how near one bound is.
type forecast struct {
	bound    Bound
	resource Resource
	room     int64
	limit    int64 // what was to be kept: the limit, or the file system's reserve
	held     int64 // by this container, of the resource
	own      Trend // of this container
	rate     Rate  // at which the room shrinks
	until    Until
}

// forecasts tells how near each bound is that the container has. The file
// system's bytes are always there.
func forecasts(f Facts, p Policy) []forecast {
	t, fs := f.Trends, f.Filesystem
	out := make([]forecast, 0, 4)
	add := func(b Bound, r Resource, limit, room, held int64, own Trend, rate Rate) {
		out = append(out, forecast{
			bound: b, resource: r, limit: limit, room: room, held: held,
			own: own, rate: rate, until: untilFull(room, rate),
		})
	}
	reserve := p.Reserve.Of(fs.Size)
	add(BoundFilesystem, Bytes, reserve, fs.Avail-reserve, f.Usage.Bytes, t.Bytes, plus(t.Bytes.Rate, t.OtherBytes.Rate))
	if fs.Inodes > 0 {
		reserve := p.InodeReserve.Of(fs.Inodes)
		add(BoundFilesystem, Inodes, reserve, fs.InodesFree-reserve, f.Usage.Inodes, t.Inodes, plus(t.Inodes.Rate, t.OtherInodes.Rate))
	}
	if limit := f.Limits.Containers[f.Container.Name]; limit > 0 {
		add(BoundContainer, Bytes, limit, limit-f.Usage.Bytes, f.Usage.Bytes, t.Bytes, t.Bytes.Rate)
	}
	if limit := f.Limits.Pod; limit > 0 {
		room := limit - f.Usage.Bytes - f.Siblings.Usage.Bytes
		add(BoundPod, Bytes, limit, room, f.Usage.Bytes, t.Bytes, plus(t.Bytes.Rate, f.Siblings.Rate))
	}
	return out
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
