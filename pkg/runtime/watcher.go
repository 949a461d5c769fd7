package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/containerd/errdefs"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says where containerd is and which of its containers are ours.
type Config struct {
	Socket     string   // of containerd; required
	Namespaces []string // of containerd, such as k8s.io; required, need not exist yet
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Relist is the time between two full lists while events are followed:
	// the net under them. It asks for no more of what is known than whether
	// it is there. Default 2 minutes.
	Relist time.Duration
	// Timeout is the deadline of each call to containerd. Default 10 seconds.
	Timeout time.Duration

	orphanAge time.Duration // default orphanAge
}

const (
	defaultRelist  = 2 * time.Minute
	defaultTimeout = 10 * time.Second

	// lookTimeout bounds a look at many containers, each with deadlines of its
	// own: past it containerd is taken for hung.
	lookTimeout = 6 // times Timeout

	// settleTime is when a second list follows the first one of a connection.
	// containerd does not say when a subscription has begun, so an event
	// between the first list and that moment may be lost.
	settleTime = 3 * time.Second

	// retryTime is when a container that could not be looked at is tried again.
	retryTime = 5 * time.Second

	// usageTimeout bounds the wait for a layer's usage: it may be a walk over
	// millions of files.
	usageTimeout = 12 // times Timeout

	firstPause = 200 * time.Millisecond
	maxPause   = 10 * time.Second
)

// Watcher keeps the set of this node's containers.
type Watcher struct {
	config  Config
	log     *slog.Logger
	metrics *metrics
	board   *board
	now     func() time.Time
	daemon  atomic.Pointer[daemon] // while containerd answers

	// Of Run's goroutine alone.
	known     set
	confirmed time.Time
	storage   []Storage
	sizes     map[committed]int64 // of the image layers that are known
}

// NewWatcher returns a Watcher that knows nothing until Run was called. It
// registers its metrics.
func NewWatcher(config Config) (*Watcher, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	return &Watcher{
		config:  config,
		log:     config.Logger,
		metrics: newMetrics(config.Registerer),
		board:   newBoard(),
		now:     time.Now,
		known:   set{},
	}, nil
}

func (c Config) complete() (Config, error) {
	if c.Socket == "" {
		return c, fmt.Errorf("cannot watch containers: no containerd socket is given")
	}
	if len(c.Namespaces) == 0 {
		return c, fmt.Errorf("cannot watch containers: no containerd namespace is given")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Relist <= 0 {
		c.Relist = defaultRelist
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.orphanAge <= 0 {
		c.orphanAge = orphanAge
	}
	return c, nil
}

// Containers returns what is known now. It never waits.
func (w *Watcher) Containers() Snapshot { return w.board.read() }

// ErrNoLayer tells that a layer's snapshot is gone.
var ErrNoLayer = errors.New("layer is gone")

// Usage asks a layer's snapshotter for the bytes and inodes that it takes, with
// what is the image's where the snapshotter copies that. It may take as long as
// containerd needs for a walk, and ErrNoLayer (wrapped) is told of a layer that
// is gone.
func (w *Watcher) Usage(ctx context.Context, namespace string, layer Layer) (size, inodes int64, err error) {
	d := w.daemon.Load()
	if d == nil {
		return 0, 0, errors.New("cannot ask for a layer's usage: containerd is away")
	}
	usage, err := d.usage(ctx, namespace, layer)
	if errdefs.IsNotFound(err) {
		err = fmt.Errorf("%w: %w", ErrNoLayer, err)
	}
	return usage.Size, usage.Inodes, err
}

// Changed returns a channel that is closed at the next change. Take it before
// reading Containers, and no change is missed however slow the reader is:
// several become one. Any number of readers may wait.
func (w *Watcher) Changed() <-chan struct{} { return w.board.wait() }

// Run keeps the set until ctx ends; it returns nil then, and never before.
// While containerd is away it tries again and the last set stays.
func (w *Watcher) Run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = firstPause, maxPause
	for {
		followed, err := w.session(ctx)
		w.post(false)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // err says no more than that ctx ended
		}
		if followed {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		w.log.Warn("containerd is away, the last containers known are kept",
			"error", err, "containers", len(w.known), "confirmed", w.confirmed, "retry", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// session is one connection from beginning to end. It subscribes, then lists,
// then follows. followed tells whether it came as far as to follow.
func (w *Watcher) session(ctx context.Context) (followed bool, err error) {
	d, err := connect(ctx, w.config.Socket, w.config.Timeout)
	if err != nil {
		w.metrics.failed(callConnect)
		return false, err
	}
	w.daemon.Store(d)
	defer w.daemon.Store(nil)
	ctx, cancel := context.WithCancel(ctx)
	backlog := newBacklog()
	lost := make(chan error, 1)
	gathered := make(chan struct{})
	go func() {
		defer close(gathered)
		lost <- w.gather(ctx, d, backlog)
	}()
	defer func() {
		cancel()
		<-gathered
		if cerr := d.close(); cerr != nil {
			w.log.Debug("cannot close the connection to containerd", "error", cerr)
		}
	}()

	again, err := w.relist(ctx, d, nil)
	if err != nil {
		return false, err
	}
	w.log.Info("following containerd", "version", d.version, "containers", len(w.known))
	return true, w.follow(ctx, d, backlog, lost, again)
}

// gather takes in events as they come, so that containerd never has to queue
// them for us, and notes what they concern.
func (w *Watcher) gather(ctx context.Context, d *daemon, backlog *backlog) error {
	envelopes, errs := d.events(ctx, w.config.Namespaces)
	for {
		select {
		case envelope := <-envelopes:
			w.metrics.events.Inc()
			if r, ok := toReload(envelope); ok {
				backlog.add(r)
			}
		case err := <-errs: // nil when it was closed: ctx is over
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			w.metrics.failed(callEvents)
			return fmt.Errorf("cannot follow containerd's events: %w", err)
		}
	}
}

// follow works off the backlog until the connection is lost. again is what
// could not be looked at and waits for another try.
func (w *Watcher) follow(ctx context.Context, d *daemon, backlog *backlog, lost <-chan error, again []ref) error {
	relist := time.NewTimer(settleTime)
	defer relist.Stop()
	settled := false
	retry := time.NewTicker(retryTime)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-lost:
			return err
		case <-relist.C:
			var known set // of what happened before the subscription nobody told
			if settled {
				known = w.known
			}
			failed, err := w.relist(ctx, d, known)
			if err != nil {
				return err
			}
			again, settled = append(again, failed...), true
			relist.Reset(w.config.Relist)
		case <-retry.C:
			for _, r := range again {
				backlog.add(reload{one: r})
			}
			again = nil
		case <-backlog.wake:
			failed, err := w.workOff(ctx, d, backlog)
			if err != nil {
				return err
			}
			again = append(again, failed...)
		}
	}
}

func (w *Watcher) workOff(ctx context.Context, d *daemon, backlog *backlog) (failed []ref, err error) {
	refs, all := backlog.take()
	if all {
		return w.relist(ctx, d, nil)
	}
	return w.reload(ctx, d, refs)
}

// relist makes the set anew, of a list and of what is known for sure. With an
// error it stays as it was.
func (w *Watcher) relist(ctx context.Context, d *daemon, known set) (failed []ref, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout*w.config.Timeout)
	defer cancel()
	findings, err := lookAtAll(ctx, d, w.metrics, w.config.Namespaces, known)
	if err != nil {
		return nil, err
	}
	w.known = w.known.relisted(findings)
	w.confirmed = w.now()
	w.metrics.relists.Inc()
	w.post(true) // the containers first: the rest is for orientation
	bare := w.lookAtStorage(ctx, d)
	w.post(true)
	return append(w.failed(findings), bare...), nil
}

// lookAtStorage asks for what the snapshotters keep besides, and tells which
// containers stand there without their layer.
func (w *Watcher) lookAtStorage(ctx context.Context, d *daemon) (bare []ref) {
	storage, err := lookAtStorage(ctx, d, w.config.Namespaces, w.known, w.storage, w.sizes, w.config.orphanAge)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		w.metrics.failed(callSnapshots)
		w.log.Debug("cannot tell all that the snapshotters keep", "error", err)
	}
	w.storage, w.sizes = storage.all, storage.sizes
	return storage.bare
}

// reload looks at some containers again. With an error the set stays as it was.
func (w *Watcher) reload(ctx context.Context, d *daemon, refs []ref) (failed []ref, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout*w.config.Timeout)
	defer cancel()
	findings, err := lookAt(ctx, d, w.metrics, refs)
	if err != nil {
		return nil, err
	}
	w.known = w.known.reloaded(findings)
	w.post(true)
	return w.failed(findings), nil
}

func (w *Watcher) failed(findings []finding) []ref {
	var refs []ref
	for _, f := range findings {
		if err := f.err(); err != nil {
			w.log.Debug("a container could not be looked at whole", "error", err, "retry", retryTime)
			refs = append(refs, f.ref)
		}
	}
	return refs
}

func (w *Watcher) post(connected bool) {
	s := Snapshot{Containers: w.known.sorted(), Storage: w.storage, Confirmed: w.confirmed, Connected: connected}
	w.metrics.posted(s, w.config.Namespaces) // first: whoever reads s finds its figures
	w.board.post(s)
}
