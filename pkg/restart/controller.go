package restart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Controller carries out the Restarts of one node, and where it is the leader
// of all agents also those that nobody else carries out. All that it knows
// stands in the API, so it can be killed at any moment: the next one goes on
// from there.
type Controller struct {
	client  client.WithWatch
	options Options
	layers  Layers
	events  *Events
	metrics *Metrics
	slots   *slots
	tempo   tempo
	log     *slog.Logger

	crew  crew
	looks chan struct{} // bounds how many worlds are held in memory at once

	whenLeading []func(context.Context) // what the leader does besides
	guarded     string                  // the namespace whose Restarts the leader looks after; empty: all
	poll        time.Duration           // the longest wait between two looks; 0: as the step says
	// boundary is called before and after each write, by tests that end the
	// controller right there. Nil otherwise.
	boundary func(moment string) error
}

const (
	relist      = 10 * time.Minute // whatever the watch says
	patience    = 30 * time.Second // of one look or one step
	giveWay     = 4                // failures in a row before it is left for a while
	shortWatch  = time.Second      // a watch that ends sooner counts as a failure
	firstRetry  = 200 * time.Millisecond
	longestWait = 15 * time.Second
	worlds      = 4
)

// errKilled is what a test's boundary answers to stop the controller dead.
var errKilled = errors.New("killed")

// NewController makes the controller of one node. Layers may be nil: then
// nothing is counted as freed.
func NewController(c client.WithWatch, o Options, layers Layers, events *Events, m *Metrics, log *slog.Logger) *Controller {
	o = o.withDefaults()
	return &Controller{
		client: c, options: o, layers: layers, events: events, metrics: m, log: log,
		slots: newSlots(c, o), tempo: defaultTempo(), looks: make(chan struct{}, worlds),
	}
}

// Run carries out Restarts until the context ends. At rest it costs the API
// server three watches, and two requests every ten minutes for each.
func (c *Controller) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	c.crew.open(func(key client.ObjectKey) { g.Go(func() error { return c.work(ctx, key) }) })
	election := newElection(c.client, c.options, c.tempo, c.log)
	g.Go(func() error {
		election.run(ctx, func(ctx context.Context) {
			c.metrics.leads.Set(1)
			defer c.metrics.leads.Set(0)
			c.asLeader(ctx)
		})
		return nil
	})
	for _, field := range []string{"spec.node", "status.holder"} {
		g.Go(func() error { c.follow(ctx, field); return nil })
	}
	err := g.Wait()
	c.crew.close()
	return err
}

// follow has this node's Restarts carried out: those that it is to take up,
// and those that were handed on to it.
func (c *Controller) follow(ctx context.Context, field string) {
	of := client.MatchingFields{field: c.options.Node}
	retry := newBackoff()
	for ctx.Err() == nil {
		err := c.round(ctx, of)
		if err == nil {
			retry = newBackoff()
			continue
		}
		if ctx.Err() == nil {
			c.log.Warn("restarts not looked after", "error", err)
			sleep(ctx, retry.Step())
		}
	}
}

// round has all carried out that is due, and what comes up until the watch
// ends or it is time to list again.
func (c *Controller) round(ctx context.Context, of client.ListOption) error {
	due, version, err := c.list(ctx, of)
	if err != nil {
		return err
	}
	for _, key := range due {
		c.carry(key)
	}
	return c.idle(ctx, of, version)
}

// list finds this node's Restarts that are to be carried out, the oldest
// wish first.
func (c *Controller) list(ctx context.Context, of client.ListOption) (due []client.ObjectKey, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var all v1alpha1.RestartList
	if err := c.client.List(ctx, &all, of); err != nil {
		return nil, "", fmt.Errorf("cannot list Restarts: %w", err)
	}
	slices.SortFunc(all.Items, func(a, b v1alpha1.Restart) int {
		return cmp.Or(
			a.Spec.RequestedAt.Compare(b.Spec.RequestedAt.Time),
			cmp.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name))
	})
	for i := range all.Items {
		if mine(&all.Items[i], c.options.Node) {
			due = append(due, client.ObjectKeyFromObject(&all.Items[i]))
		}
	}
	return due, all.ResourceVersion, nil
}

// idle follows this node's Restarts until the watch ends, or it is time to
// list again.
func (c *Controller) idle(ctx context.Context, of client.ListOption, version string) error {
	ctx, cancel := context.WithTimeout(ctx, relist)
	defer cancel()
	began := time.Now()
	var all v1alpha1.RestartList
	watcher, err := c.client.Watch(ctx, &all, of,
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true}})
	if err != nil {
		return fmt.Errorf("cannot watch Restarts: %w", err)
	}
	defer watcher.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case happened, open := <-watcher.ResultChan():
			if !open || happened.Type == watch.Error {
				return endOfWatch(time.Since(began))
			}
			if r, ok := happened.Object.(*v1alpha1.Restart); ok && happened.Type != watch.Deleted && happened.Type != watch.Bookmark {
				c.see(r)
			}
		}
	}
}

func (c *Controller) see(r *v1alpha1.Restart) {
	if mine(r, c.options.Node) {
		c.carry(client.ObjectKeyFromObject(r))
	}
	c.nudge(r)
}

// carry has a Restart carried out, if it is not already.
func (c *Controller) carry(key client.ObjectKey) { c.crew.send(key) }

// nudge has one that waits for a person looked at again.
func (c *Controller) nudge(r *v1alpha1.Restart) {
	if fresh(r) || r.Status.Phase == v1alpha1.PhaseApproval && approved(r) {
		c.crew.nudge(client.ObjectKeyFromObject(r))
	}
}

// endOfWatch is no failure where it lasted: API servers end watches now and
// then. One that never lasts must not make a busy loop.
func endOfWatch(lasted time.Duration) error {
	if lasted < shortWatch {
		return fmt.Errorf("the watch of Restarts ended after %s", lasted.Round(time.Millisecond))
	}
	return nil
}

func newBackoff() *wait.Backoff {
	return &wait.Backoff{Duration: firstRetry, Factor: 2, Jitter: 0.5, Steps: 32, Cap: longestWait}
}

// sleep waits, or until the context ends.
func sleep(ctx context.Context, d time.Duration) { sleepOr(ctx, d, nil) }

// sleepOr waits, or until it is woken, or the context ends.
func sleepOr(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}

// crew knows which Restarts are being carried out at this moment.
type crew struct {
	mu    sync.Mutex
	start func(client.ObjectKey) // nil: nothing is begun
	wake  map[client.ObjectKey]chan struct{}
}

func (c *crew) open(start func(client.ObjectKey)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start, c.wake = start, map[client.ObjectKey]chan struct{}{}
}

func (c *crew) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start = nil
}

// send begins to carry a Restart out.
func (c *crew) send(key client.ObjectKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.wake[key]; there || c.start == nil {
		return
	}
	c.wake[key] = make(chan struct{}, 1)
	c.start(key)
}

func (c *crew) nudge(key client.ObjectKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if wake, there := c.wake[key]; there {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// waker is what wakes the one that carries a Restart out; nil: nothing does.
func (c *crew) waker(key client.ObjectKey) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wake[key]
}

// leave ends the carrying out, unless there was a nudge since.
func (c *crew) leave(key client.ObjectKey) (left bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.wake[key]:
		return false
	default:
		delete(c.wake, key)
		return true
	}
}
