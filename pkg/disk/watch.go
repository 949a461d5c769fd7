package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

const (
	// slots bounds the measures that run at once on one mount; all but one
	// are for layers whose look is quick.
	slots = 3
	// slowLook is the cost from which a look is not quick.
	slowLook = 200 * time.Millisecond
	// relist is how often the list of containers is taken.
	relist = time.Second
	// stopGrace is how long Run waits for measures that are under way.
	stopGrace = 5 * time.Second
	// offencesKept bounds what waits in Offences for a reader.
	offencesKept = 64
)

// Limiter tells the ephemeral-storage limits of a pod. It must not block.
type Limiter interface {
	Limits(podUID string) Limits
}

// Options are what a Watcher needs. Fields that say so have a default.
type Options struct {
	// Containers tells who runs here now. It is called once a second and
	// must not block.
	Containers func() []runtime.Container
	Meter      Meter
	Limits     Limiter // nil: no limits are known
	Policy     Policy
	// Node is this node's name, for people who read of an offence. May be empty.
	Node string
	// HostRoot is where the host's root folder is mounted. Default "/".
	HostRoot string
	// Proc is where this process's own proc is mounted. Default "/proc".
	Proc string
	// Interval is the least time between two looks at a layer. Default 2 s.
	Interval time.Duration
	// Share of one core that all looks together may take; it stretches the
	// interval of the costly ones. Default 0.05.
	Share float64
	// Repeat is how often an offence is told again while it lasts. Default 30 s.
	Repeat time.Duration
	// Registerer takes the metrics. Nil: none.
	Registerer prometheus.Registerer
	Logger     *slog.Logger // nil: silent
}

func (o *Options) complete() error {
	if o.Containers == nil || o.Meter == nil {
		return errors.New("cannot watch disks: Containers and Meter are needed")
	}
	o.HostRoot = cmp.Or(o.HostRoot, "/")
	o.Proc = cmp.Or(o.Proc, "/proc")
	o.Interval = cmp.Or(o.Interval, 2*time.Second)
	o.Share = cmp.Or(o.Share, 0.05)
	o.Repeat = cmp.Or(o.Repeat, 30*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Interval < 100*time.Millisecond || o.Share <= 0 || o.Share > 1 || o.Repeat < 0 {
		return errors.New("cannot watch disks: the interval must be at least 100ms, the share from above 0 to 1, repeat not below 0")
	}
	if err := o.Policy.Validate(); err != nil {
		return fmt.Errorf("cannot watch disks: %w", err)
	}
	return nil
}

// Watcher looks at all layers of this node again and again, paced by what it
// costs, and makes a verdict after each look. A figure that could not be taken
// stays the last good one with its age. Its methods may be called at any time
// by anyone.
type Watcher struct {
	opts      Options
	offences  chan Verdict
	durations *prometheus.HistogramVec
	failures  *prometheus.CounterVec

	mu          sync.Mutex
	listed      time.Time
	tracks      map[key]*track
	filesystems map[uint64]*filesystem
	unsupported map[string]int // by snapshotter

	// Of the goroutine of Run alone.
	groups map[uint64]*group
	mounts mounts
	queue  []*track // due, longest waiting first
	done   chan result
	stop   chan struct{}
}

// result is what came of one measure.
type result struct {
	track *track
	look  Look
	err   error
	took  time.Duration
}

// NewWatcher makes a Watcher and registers its metrics.
func NewWatcher(o Options) (*Watcher, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	w := &Watcher{
		opts:        o,
		offences:    make(chan Verdict, offencesKept),
		tracks:      make(map[key]*track),
		filesystems: make(map[uint64]*filesystem),
		unsupported: make(map[string]int),
		groups:      make(map[uint64]*group),
		done:        make(chan result),
		stop:        make(chan struct{}),
	}
	if err := w.register(o.Registerer); err != nil {
		return nil, err
	}
	return w, nil
}

// Offences tells of a container when it becomes an offender and every Repeat
// while it is one, each time right after a good look. What finds no room is
// told after the next look. It is closed when Run ends.
func (w *Watcher) Offences() <-chan Verdict { return w.offences }

// Run watches until ctx ends. It may be called once. It returns nil, or an
// error when measures still hang in the kernel some seconds after.
func (w *Watcher) Run(ctx context.Context) error {
	defer close(w.offences)
	ticker := time.NewTicker(w.opts.Interval / 10)
	defer ticker.Stop()
	w.tick(ctx)
	for {
		select {
		case <-ctx.Done():
			return w.drain()
		case <-ticker.C:
			w.tick(ctx)
		case r := <-w.done:
			w.finish(r)
			w.start(ctx)
		}
	}
}

// drain waits for the measures under way; ctx has told them to end.
func (w *Watcher) drain() error {
	defer close(w.stop)
	timeout := time.NewTimer(stopGrace)
	defer timeout.Stop()
	for {
		hang := w.running()
		if len(hang) == 0 {
			return nil
		}
		select {
		case r := <-w.done:
			w.mu.Lock()
			r.track.started = time.Time{}
			w.mu.Unlock()
		case <-timeout.C:
			return fmt.Errorf("cannot stop measuring: %s does not answer", strings.Join(hang, ", "))
		}
	}
}

func (w *Watcher) running() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, t := range w.tracks {
		if !t.started.IsZero() {
			out = append(out, t.container.Layer.Upper)
		}
	}
	return out
}

// tick takes the list of containers when it is time, and starts what is due.
func (w *Watcher) tick(ctx context.Context) {
	now := time.Now()
	if w.listed.IsZero() || now.Sub(w.listed) >= relist {
		w.list(now, w.opts.Containers())
	}
	w.queue = w.queue[:0]
	w.mu.Lock()
	for _, t := range w.tracks {
		if t.started.IsZero() && !t.due.After(now) {
			w.queue = append(w.queue, t)
		}
	}
	w.mu.Unlock()
	slices.SortFunc(w.queue, func(a, b *track) int { return a.due.Compare(b.due) })
	w.start(ctx)
}

// list brings the tracks in line with the containers that are there.
func (w *Watcher) list(now time.Time, containers []runtime.Container) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listed = now
	clear(w.unsupported)
	there := make(map[key]bool, len(containers))
	fresh := false
	for _, c := range containers {
		if c.Layer.Upper == "" {
			w.unsupported[c.Layer.Snapshotter]++
			continue
		}
		k := keyOf(c)
		there[k] = true
		if t := w.tracks[k]; t != nil {
			t.container = c
			continue
		}
		if !fresh {
			w.readMounts()
			fresh = true
		}
		w.tracks[k] = &track{container: c, group: w.groupOf(c), due: now, interval: w.opts.Interval}
	}
	for k := range w.tracks {
		if !there[k] {
			delete(w.tracks, k)
		}
	}
	w.dropFilesystems()
	w.pace()
}

func (w *Watcher) readMounts() {
	m, err := readMounts(w.opts.Proc)
	if err != nil {
		w.opts.Logger.Warn("the mount table before is used", "err", err)
		return
	}
	w.mounts = m
}

// path is where this process sees a layer.
func (w *Watcher) path(c runtime.Container) string {
	return filepath.Join(w.opts.HostRoot, c.Layer.Upper)
}

func (w *Watcher) groupOf(c runtime.Container) *group {
	device := w.mounts.of(w.path(c)).device
	if w.groups[device] == nil {
		w.groups[device] = &group{}
	}
	return w.groups[device]
}

func (w *Watcher) dropFilesystems() {
	used := make(map[*filesystem]bool)
	for _, t := range w.tracks {
		used[t.fs] = true
	}
	for device, fs := range w.filesystems {
		if !used[fs] {
			delete(w.filesystems, device)
		}
	}
}

// pace sets the interval of every layer by what they cost. A cheap layer that
// grows is looked at twice as often, so that a leak is sure a few seconds
// sooner.
func (w *Watcher) pace() {
	all := make([]*track, 0, len(w.tracks))
	costs := make([]time.Duration, 0, len(w.tracks))
	for _, t := range w.tracks {
		all, costs = append(all, t), append(costs, t.cost)
	}
	for i, interval := range pace(costs, w.opts.Interval, w.opts.Share) {
		if interval == w.opts.Interval && all[i].growing() {
			interval /= 2
		}
		all[i].interval = interval
	}
}

// start starts the measures that are due and find a slot.
func (w *Watcher) start(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := w.queue[:0]
	for _, t := range w.queue {
		slow := t.cost >= slowLook
		if t.group.running >= slots || (slow && t.group.slow > 0) {
			rest = append(rest, t)
			continue
		}
		t.group.running++
		if slow {
			t.group.slow++
		}
		t.started = time.Now()
		go w.measure(ctx, t, Target{Layer: t.container.Layer, Since: t.since})
	}
	w.queue = rest
}

// measure runs on a goroutine of its own: the kernel may not come back from a
// stuck file system. It touches nothing of the watcher.
func (w *Watcher) measure(ctx context.Context, t *track, target Target) {
	begun := time.Now()
	look, err := w.opts.Meter.Measure(ctx, target)
	select {
	case w.done <- result{track: t, look: look, err: err, took: time.Since(begun)}:
	case <-w.stop:
	}
}

// finish takes in what a measure told, and judges.
func (w *Watcher) finish(r result) {
	t := r.track
	method := w.opts.Meter.Method()
	w.durations.WithLabelValues(method).Observe(r.took.Seconds())
	limits := Limits{}
	if w.opts.Limits != nil && t.container.Pod.UID != "" {
		limits = w.opts.Limits.Limits(t.container.Pod.UID)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	t.group.running--
	if t.cost >= slowLook {
		t.group.slow--
	}
	t.due = t.started.Add(t.interval)
	t.started = time.Time{}
	t.took(r.took)
	if w.tracks[keyOf(t.container)] != t || errors.Is(r.err, ErrGone) {
		return // the container is gone, or is about to be taken off the list
	}
	if r.err != nil {
		w.fail(t, r.err)
		return
	}
	w.look(t, r.look, limits)
}

func (w *Watcher) fail(t *track, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	w.failures.WithLabelValues(w.opts.Meter.Method()).Inc()
	t.failures++
	if t.failures == 1 { // once, until it works again
		w.opts.Logger.Warn("cannot measure, the last figure stays", "layer", t, "err", err)
	}
}

func (w *Watcher) look(t *track, l Look, limits Limits) {
	t.look(l)
	t.fs = w.filesystem(t, l)
	v, state := Judge(w.facts(t, limits), w.opts.Policy, t.state)
	if !state.Offender {
		t.told = time.Time{}
	}
	t.verdict, t.state = v, state
	w.tell(t)
}

func (w *Watcher) filesystem(t *track, l Look) *filesystem {
	m := w.mounts.at(w.path(t.container), l.Device)
	fs := w.filesystems[m.device]
	if fs == nil {
		fs = &filesystem{mount: strings.ToValidUTF8(w.hostPath(m.point), "�")}
		w.filesystems[m.device] = fs
	}
	fs.look(t.at, l.Filesystem, w.opts.Interval*9/10)
	return fs
}

// hostPath is a path of this process as the host sees it.
func (w *Watcher) hostPath(p string) string {
	if w.opts.HostRoot == "/" || !below(p, w.opts.HostRoot) {
		return p
	}
	return cmp.Or(strings.TrimPrefix(p, w.opts.HostRoot), "/")
}

func (w *Watcher) facts(t *track, limits Limits) Facts {
	f := Facts{
		Container: t.container, Node: w.opts.Node, At: t.at, Usage: t.usage, Trends: t.trends,
		Mount: t.fs.mount, Filesystem: t.fs.usage, Limits: limits,
	}
	if t.growing() {
		f.Evidence = t.marks.growths()
	}
	if limits.Pod == 0 {
		return f
	}
	for _, o := range w.tracks {
		if o == t || o.container.Pod.UID != t.container.Pod.UID {
			continue
		}
		r := o.trends.Bytes.Rate
		f.Siblings.Usage.Bytes += o.usage.Bytes
		f.Siblings.Usage.Inodes += o.usage.Inodes
		f.Siblings.Rate.Low += r.Low
		f.Siblings.Rate.Expected += r.Expected
		f.Siblings.Rate.High += r.High
	}
	return f
}

// tell puts an offence before its reader, without waiting for one.
func (w *Watcher) tell(t *track) {
	if !t.state.Offender || (!t.told.IsZero() && t.at.Sub(t.told) < w.opts.Repeat) {
		return
	}
	select {
	case w.offences <- t.verdict:
		t.told = t.at
	default:
	}
}

// Verdicts are those on all containers that were looked at, by namespace, pod
// and name. Verdict.At tells when that was.
func (w *Watcher) Verdicts() []Verdict {
	w.mu.Lock()
	out := make([]Verdict, 0, len(w.tracks))
	for _, t := range w.tracks {
		if !t.at.IsZero() {
			out = append(out, t.verdict)
		}
	}
	w.mu.Unlock()
	slices.SortFunc(out, func(a, b Verdict) int {
		x, y := a.Container, b.Container
		return cmp.Or(
			strings.Compare(x.Pod.Namespace, y.Pod.Namespace), strings.Compare(x.Pod.Name, y.Pod.Name),
			strings.Compare(x.Name, y.Name), strings.Compare(x.Namespace, y.Namespace), strings.Compare(x.ID, y.ID))
	})
	return out
}

// Used is what the containers of a pod hold in their layers by the last look
// at each, and how many there are, looked at or not. The sandbox is left out:
// it holds nothing of its own.
func (w *Watcher) Used(podUID string) (bytes int64, containers int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.tracks {
		if t.container.Pod.UID == podUID && !t.container.Sandbox {
			bytes += t.usage.Bytes
			containers++
		}
	}
	return bytes, containers
}

// Ready tells whether every container that is there was looked at, or tried.
func (w *Watcher) Ready() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listed.IsZero() {
		return false
	}
	for _, t := range w.tracks {
		if t.at.IsZero() && t.failures == 0 && t.cost == 0 {
			return false
		}
	}
	return true
}
