package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	goruntime "runtime"
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
	// briefLook is the cost up to which a look is worth no account of what its
	// thread waited for.
	briefLook = time.Millisecond
	// relist is how often the list of containers is taken.
	relist = time.Second
	// stopGrace is how long Run waits for measures that are under way.
	stopGrace = 5 * time.Second
	// goneFor is how long a container may be listed whose layer is gone.
	goneFor = 10 * time.Second
	// offencesKept bounds what waits in Offences for a reader.
	offencesKept = 64
)

// Limiter tells the ephemeral-storage limits of a pod. It must not block, nor
// ask the Watcher.
type Limiter interface {
	Limits(podUID string) Limits
}

// Options are what a Watcher needs. Fields that say so have a default.
type Options struct {
	// Containers tells who runs here now. It is called once a second or more
	// often and must not block. The same slice means that nothing changed.
	Containers func() []runtime.Container
	// Storage tells what the snapshotters keep besides, likewise. Nil: images
	// and orphaned snapshots are unattributed.
	Storage func() []runtime.Storage
	Meter   Meter
	// Snapshots measures layers that are no folder of their own. Nil: they
	// are not measured.
	Snapshots Meter
	// OpenFiles finds deleted files that are still open. Nil: they are not
	// counted.
	OpenFiles OpenFilesMeter
	Limits    Limiter // nil: no limits are known
	Policy    Policy
	// Node is this node's name, for people who read of an offence. May be empty.
	Node string
	// HostRoot is where the host's root folder is mounted. Default "/".
	HostRoot string
	// Proc is where this process's own proc is mounted. Default "/proc".
	Proc string
	// Interval is the time between two looks at a place that cost little; they
	// may come a tenth of it sooner, with others. Default 2 s.
	Interval time.Duration
	// Share of one core that all looks together may take; it stretches the
	// interval of the costly ones. Default 0.05.
	Share float64
	// Repeat is how often an offence is told again while it lasts. Default 30 s.
	Repeat time.Duration
	// Recorder takes down what verdicts are made of. Nil: nobody does.
	Recorder *Recorder
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

// Watcher looks at all places that containers of this node write to again and
// again, paced by what it costs, and makes a verdict after each look. A figure that could not be taken
// stays the last good one with its age. Its methods may be called at any time
// by anyone.
type Watcher struct {
	opts      Options
	offences  chan Verdict
	durations *prometheus.HistogramVec
	failures  *prometheus.CounterVec
	errors    *prometheus.HistogramVec // in bytes, of figures that are followed or probed

	inodeErrors *prometheus.HistogramVec

	mu          sync.Mutex
	listed      time.Time
	tracks      map[key]*track
	places      map[placeID]*place
	containers  []runtime.Container
	mounts      mounts
	storage     []runtime.Storage
	filesystems map[uint64]*filesystem
	scanning    time.Time      // when the scan that runs was started; zero: none does
	unsupported map[string]int // by snapshotter
	ready       bool
	schedule    schedule  // of the places that are awake
	sleepers    schedule  // of the others
	listener    Listener  // nil: places do not sleep
	prober      Prober    // nil: there are only full looks
	heard       time.Time // until then it told of all that happened
	spent       bool      // since intervals were set
	awake       map[*place]bool

	// Of the goroutine of Run alone.
	groups map[uint64]*group
	// snapshotters are the groups of the layers that containerd tells of, by
	// snapshotter: one that hangs holds up no other.
	snapshotters map[string]*group
	queue        []*place // due, longest waiting first
	nextScan     time.Time
	nextFullScan time.Time // of all containers, calm ones as well
	timer        *time.Timer
	ticked       time.Time
	done         chan result
	scans        chan scanned
	stop         chan struct{}
}

// result is what came of one measure, or of one probe.
type result struct {
	place *place
	probe bool
	look  Look
	err   error
	took  time.Duration
	work  time.Duration // of that without the time in which others had the CPU
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
		places:      make(map[placeID]*place),
		filesystems: make(map[uint64]*filesystem),
		unsupported: make(map[string]int),
		groups:      make(map[uint64]*group), snapshotters: make(map[string]*group),
		awake: make(map[*place]bool),
		done:  make(chan result),
		scans: make(chan scanned),
		stop:  make(chan struct{}),
	}
	if l, listens := o.Meter.(Listener); listens && o.Recorder == nil { // a recording has every look
		w.listener = l
	}
	w.prober, _ = o.Meter.(Prober)
	if err := w.register(o.Registerer); err != nil {
		return nil, err
	}
	o.Recorder.head(o.Node, o.Policy, time.Now())
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
	w.timer = time.NewTimer(0)
	defer w.timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return w.drain()
		case <-w.timer.C:
			w.tick(ctx)
			w.wind()
		case r := <-w.done:
			w.finish(r)
			w.start(ctx)
			w.wind()
		case s := <-w.scans:
			w.finishScan(s)
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
			if r.probe {
				r.place.probing = time.Time{}
			} else {
				r.place.started = time.Time{}
			}
			w.mu.Unlock()
		case <-w.scans:
			w.mu.Lock()
			w.scanning = time.Time{}
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
	for _, p := range w.places {
		if !p.started.IsZero() || !p.probing.IsZero() {
			out = append(out, p.id.folder)
		}
	}
	if !w.scanning.IsZero() {
		out = append(out, "a process's list of open files")
	}
	return out
}

// tick takes the list of containers and what was heard of places, unless that
// was just done, and starts what is due.
func (w *Watcher) tick(ctx context.Context) {
	now := time.Now()
	w.ticked = now
	soon := now.Add(w.together())
	lists := now.Sub(w.listed) >= w.together()
	if lists {
		var storage []runtime.Storage
		if w.opts.Storage != nil {
			storage = w.opts.Storage()
		}
		w.list(now, w.opts.Containers(), storage)
		w.hear(now)
		w.scan(ctx, now)
	}
	w.mu.Lock()
	if lists {
		w.queue = w.sleepers.due(now, w.queue)
	}
	w.queue = w.schedule.due(soon, w.queue)
	w.ready = w.ready || w.allTried(now)
	w.mu.Unlock()
	w.start(ctx)
}

// together is within what time all that is due is done at once: each time the
// process wakes costs more than a look.
func (w *Watcher) together() time.Duration { return w.opts.Interval / 10 }

// wind sets the timer to when there is something to do.
func (w *Watcher) wind() {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := w.listed.Add(relist)
	if len(w.schedule) > 0 && w.schedule[0].due.Before(next) {
		next = w.schedule[0].due
	}
	if soonest := w.ticked.Add(w.together()); next.Before(soonest) {
		next = soonest
	}
	w.timer.Reset(time.Until(next))
}

// start starts the measures that are due and find a slot.
func (w *Watcher) start(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	rest := w.queue[:0]
	for _, p := range w.queue {
		p.queued = false
		if w.places[p.id] != p {
			continue // it went while it waited
		}
		looks := p.started.IsZero() && (!p.probes() || !now.Add(w.together()).Before(p.walked.Add(p.interval)))
		slow := p.cost >= slowLook
		switch {
		case looks && p.group.running < slots && (!slow || p.group.slow == 0):
			p.group.running++
			if slow {
				p.group.slow++
			}
			p.started, p.slow, p.woken = now, slow, false
			p.walked, p.probed = now, now
			brief := p.asleep || p.known() && p.cost < briefLook
			go w.measure(ctx, p, target(p), brief, false)
			w.plan(p) // its probes
		case p.group.running < slots && p.probeDue(now.Add(w.together())):
			p.group.running++
			p.probing, p.probed = now, now
			go w.measure(ctx, p, target(p), p.probeCost > 0 && p.probeCost < briefLook, true)
			w.plan(p)
		case looks || p.probeDue(now.Add(w.together())):
			p.queued = true
			rest = append(rest, p)
		default:
			w.plan(p)
		}
	}
	w.queue = rest
}

func target(p *place) Target { return Target{Layer: p.layer, Namespace: p.space, Since: p.since} }

// measure runs on a goroutine of its own: the kernel may not come back from a
// stuck file system. It touches nothing of the watcher.
func (w *Watcher) measure(ctx context.Context, p *place, target Target, brief, probe bool) {
	measure := w.opts.Meter.Measure
	switch {
	case probe:
		measure = w.prober.Probe
	case target.Layer.Upper == "":
		measure = w.opts.Snapshots.Measure
	}
	r, begun := result{place: p, probe: probe}, time.Now()
	var waited time.Duration
	if !brief {
		goruntime.LockOSThread() // whose waiting is told
		defer goruntime.UnlockOSThread()
		waited = waitedForCPU(w.opts.Proc)
	}
	r.look, r.err = measure(ctx, target)
	r.took = time.Since(begun)
	if brief {
		r.work = min(r.took, 2*briefLook) // more would be the waiting: the next look has an account
	} else {
		r.work = max(r.took-waitedForCPU(w.opts.Proc)+waited, r.took/100)
	}
	select {
	case w.done <- r:
	case <-w.stop:
	}
}

// finish takes in what a measure told, and judges.
func (w *Watcher) finish(r result) {
	p := r.place
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count(r)
	if r.probe {
		w.finishProbe(r)
		return
	}
	p.group.running--
	if p.slow {
		p.group.slow--
	}
	p.due = p.started.Add(p.interval)
	p.started, p.slow = time.Time{}, false
	p.hot = r.err == nil && r.look.Hot && w.prober != nil || p.hot && errors.Is(r.err, ErrLater)
	if r.err != nil || !r.look.Whole {
		p.paid(r.work)
		w.spent = true
	}
	if w.places[p.id] != p {
		return
	}
	if p.asleep && (r.err != nil || !r.look.Still || r.look.Usage != p.usage) {
		w.wake(p)
	}
	switch {
	case errors.Is(r.err, ErrLater):
	case errors.Is(r.err, ErrGone):
		w.gone(p, time.Now())
	case r.err != nil:
		w.fail(p, r.err)
	case p.id.part == PartEmptyDir && r.look.Filesystem.Memory:
		p.memory = true // medium: Memory
		delete(w.awake, p)
	case p.asleep:
		w.confirm(p, r.look)
	default:
		w.look(p, r.look)
		w.rest(p, r.look.Still)
	}
	switch {
	case p.asleep:
		w.sleepers.add(p)
	case p.measured():
		w.plan(p)
	}
}

// count tells the metrics of one look.
func (w *Watcher) count(r result) {
	method := cmp.Or(r.look.Method, r.place.method, w.opts.Meter.Method())
	w.failures.WithLabelValues(method) // an alert needs the 0 before the first
	if r.probe {
		w.durations.WithLabelValues(methodProbe).Observe(r.took.Seconds())
		return
	}
	w.durations.WithLabelValues(method).Observe(r.took.Seconds())
	if r.err == nil && r.look.Checked {
		wrong(w.errors, method, r.look.Error.Bytes)
		wrong(w.inodeErrors, method, r.look.Error.Inodes)
	}
	if r.err == nil {
		r.place.method = method
	}
}

// gone takes in that a folder was not there. Its container is about to be taken
// off the list; when it is not, somebody looks in the wrong place.
func (w *Watcher) gone(p *place, now time.Time) {
	if p.gone.IsZero() {
		p.gone = now
	}
	w.resign(p)
	// A folder of logs, or of a volume, may be missing for good.
	if p.id.part == PartLayer && now.Sub(p.gone) >= goneFor {
		w.fail(p, fmt.Errorf("its folder is not there below %s, but its container still is: %w", w.opts.HostRoot, ErrGone))
	}
}

func (w *Watcher) fail(p *place, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	w.failures.WithLabelValues(cmp.Or(p.method, w.opts.Meter.Method())).Inc()
	w.resign(p)
	p.failures++
	if p.failures == 1 { // once, until it works again
		w.opts.Logger.Warn("cannot measure, the last figure stays", "place", p, "err", err)
	}
}

// look takes in a good look, and judges every container that has the place.
func (w *Watcher) look(p *place, l Look) {
	if by, corrects := p.corrects(l); corrects {
		wrong(w.errors, methodProbe, by.Bytes)
		wrong(w.inodeErrors, methodProbe, by.Inodes)
	}
	p.look(l)
	p.fs = w.filesystem(p, l)
	for _, t := range p.tracks {
		w.judge(t, p.at)
	}
}

func (w *Watcher) judge(t *track, at time.Time) {
	if t.watched.IsZero() {
		t.watched = at
	}
	f := Facts{Container: t.container, Node: w.opts.Node, At: at, Watched: t.watched, Parts: t.holdings()}
	if w.opts.Limits != nil && t.container.Pod.UID != "" {
		f.Limits = w.opts.Limits.Limits(t.container.Pod.UID)
	}
	w.opts.Recorder.judged(t, at, f.Limits)
	if f.Limits.Pod > 0 {
		f.Siblings = w.siblings(t)
	}
	t.verdict, t.state = Judge(f, w.opts.Policy, t.state)
	if !t.state.Offender {
		t.told = time.Time{}
	}
	w.tell(t)
}

func (w *Watcher) filesystem(p *place, l Look) *filesystem {
	if l.Filesystem.Size == 0 {
		return &filesystem{} // not known: it bounds nothing, and is told nowhere
	}
	m := w.mounts.at(w.path(p.id.folder), l.Device)
	fs := w.filesystems[m.device]
	if fs == nil {
		fs = &filesystem{mount: strings.ToValidUTF8(hostPath(w.opts.HostRoot, m.point), "�")}
		w.filesystems[m.device] = fs
	}
	fs.look(p.at, l.Filesystem, w.opts.Interval*9/10)
	return fs
}

// tell puts an offence before its reader, without waiting for one.
func (w *Watcher) tell(t *track) {
	if !t.state.Offender || (!t.told.IsZero() && t.verdict.At.Sub(t.told) < w.opts.Repeat) {
		return
	}
	select {
	case w.offences <- t.verdict:
		t.told = t.verdict.At
	default:
	}
}

// Verdicts are those on all containers that were looked at, by namespace, pod
// and name. Verdict.At tells when that was.
func (w *Watcher) Verdicts() []Verdict {
	w.mu.Lock()
	out := make([]Verdict, 0, len(w.tracks))
	for _, t := range w.tracks {
		if t.known() {
			out = append(out, w.confirmed(t))
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

// Ready tells whether every place of every container that was there at first
// was looked at, or tried. Once it is true it stays: a container that comes
// later, or a file system that hangs, is told of by other means.
func (w *Watcher) Ready() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ready || w.allTried(time.Now())
}

func (w *Watcher) allTried(now time.Time) bool {
	if w.listed.IsZero() {
		return false
	}
	layers, gone := 0, 0
	for _, p := range w.places {
		if p.measured() && !p.tried(now) {
			return false
		}
		if p.id.part == PartLayer {
			layers++
			if !p.gone.IsZero() {
				gone++
			}
		}
	}
	return layers == 0 || gone < layers // else the host's folders are elsewhere
}
