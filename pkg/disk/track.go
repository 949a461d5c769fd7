package disk

import (
	"log/slog"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// key names a container: its id is unique within its containerd namespace.
type key struct{ namespace, id string }

func keyOf(c runtime.Container) key { return key{c.Namespace, c.ID} }

// track is what the watcher knows of one layer.
type track struct {
	container runtime.Container
	group     *group // whose slots its measures take

	// Of the measuring.
	since    time.Time     // start of the last good look
	cost     time.Duration // of a look, the last weighing half
	interval time.Duration // between the starts of two looks
	due      time.Time
	started  time.Time // of the measure that runs; zero: none does
	failures int       // in a row

	// Of the last good look.
	at      time.Time // zero: there was none
	usage   Usage
	fs      *filesystem
	series  Series
	trends  Trends
	marks   marks
	verdict Verdict
	state   State
	told    time.Time
}

// group is what may hang as one: the layers on one mount.
type group struct {
	running, slow int
}

// filesystem is one that layers are on.
type filesystem struct {
	mount  string // as the host sees it
	usage  FilesystemUsage
	at     time.Time
	series Series
	trends Trends
}

// look takes in a good look, and tells when the layer's figure was true.
func (t *track) look(l Look) {
	t.at = l.Started.Add(l.Took)
	t.since = l.Started
	t.usage = l.Usage
	t.series = t.series.Add(Sample{
		At: t.at, Usage: l.Usage,
		Filesystem: Usage{Bytes: l.Filesystem.Used, Inodes: l.Filesystem.InodesUsed},
	})
	t.trends = t.series.Trends()
	t.marks.look(t.at, l)
	t.failures = 0
}

// took adds what a measure cost, good or not, to what it is expected to cost.
func (t *track) took(d time.Duration) {
	if t.cost == 0 {
		t.cost = d
		return
	}
	t.cost = (t.cost + d) / 2
}

// look takes in what a look at one of its layers saw of the file system.
func (f *filesystem) look(at time.Time, u FilesystemUsage, least time.Duration) {
	if at.Before(f.at) {
		return
	}
	f.usage, f.at = u, at
	if n := len(f.series); n > 0 && at.Sub(f.series[n-1].At) < least {
		return // several layers tell of it
	}
	f.series = f.series.Add(Sample{At: at, Usage: Usage{Bytes: u.Used, Inodes: u.InodesUsed}})
	f.trends = f.series.Trends()
}

// LogValue names the layer in a log.
func (t *track) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("container", Name(t.container)),
		slog.String("podNamespace", t.container.Pod.Namespace),
		slog.String("upper", t.container.Layer.Upper),
	)
}

// growing tells whether the last looks saw it grow.
func (t *track) growing() bool {
	return t.trends.Bytes.Rate.High > 0 || t.trends.Inodes.Rate.High > 0
}
