package disk

import (
	"log/slog"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// key names a container: its id is unique within its containerd namespace.
type key struct{ namespace, id string }

func (k key) String() string { return k.namespace + "/" + k.id }

func keyOf(c runtime.Container) key { return key{c.Namespace, c.ID} }

// track is what the watcher knows of one container.
type track struct {
	container runtime.Container
	holds     []hold // the layer first
	blind     bool   // its open files could not be looked at the last time
	scanned   bool   // they were looked at

	watched time.Time // when it was first judged
	verdict Verdict   // zero before the first good look at any of its places
	state   State
	told    time.Time
}

// hold is a place that a container has.
type hold struct {
	place *place
	shown string // where the container sees it; empty: paths are as they are
}

// known tells whether there is a figure of it.
func (t *track) known() bool { return !t.verdict.At.IsZero() }

// group is what may hang as one: the places on one mount.
type group struct {
	running, slow int
}

// filesystem is one that places are on.
type filesystem struct {
	mount string // as the host sees it
	// witness is the place that is looked at for the file system's own figures
	// though it is calm. The others may sleep.
	witness *place
	usage   FilesystemUsage
	scanned int64 // what was used at the last scan of all open files
	at      time.Time
	series  Series
	trends  Trends
}

// reserves is what has to stay free of it.
func (f *filesystem) reserves(p Policy) (bytes, inodes int64) {
	r := p.reserves(f.mount)
	return r.Bytes.Of(f.usage.Size), r.Inodes.Of(f.usage.Inodes)
}

// room is what is left of it until its reserves are reached.
func (f *filesystem) room(p Policy) (bytes, inodes int64) {
	bytes, inodes = f.reserves(p)
	return f.usage.Avail - bytes, f.usage.InodesFree - inodes
}

// look takes in what a look at one of its places saw of the file system.
func (f *filesystem) look(at time.Time, u FilesystemUsage, least time.Duration) {
	if at.Before(f.at) {
		return
	}
	f.usage, f.at = u, at
	if n := len(f.series); n > 0 && at.Sub(f.series[n-1].At) < least {
		return // several places tell of it
	}
	f.series = f.series.Add(Sample{At: at, Usage: Usage{Bytes: u.Used, Inodes: u.InodesUsed}})
	f.trends = f.series.Trends()
}

// LogValue names the place in a log, with a container that has it.
func (p *place) LogValue() slog.Value {
	values := []slog.Attr{slog.String("part", string(p.id.part)), slog.String("folder", p.id.folder)}
	if len(p.tracks) > 0 {
		c := p.tracks[0].container
		values = append(values, slog.String("container", Name(c)), slog.String("podNamespace", c.Pod.Namespace))
	}
	return slog.GroupValue(values...)
}
