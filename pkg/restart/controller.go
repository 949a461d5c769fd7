package restart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Controller carries out the Restarts of one node, one at a time. All that it
// knows stands in the API, so it can be killed at any moment: the next one
// goes on from there.
type Controller struct {
	client  client.WithWatch
	options Options
	layers  Layers
	events  *Events
	metrics *Metrics
	log     *slog.Logger

	poll time.Duration // between two looks at what is only waited for
	// boundary is called before and after each write, by tests that end the
	// controller right there. Nil otherwise.
	boundary func(moment string) error
}

const (
	pollActive  = time.Second
	relist      = 10 * time.Minute // whatever the watch says
	patience    = 30 * time.Second // of one look or one step
	giveWay     = 4                // failures in a row before others get their turn
	shortWatch  = time.Second      // a watch that ends sooner counts as a failure
	firstRetry  = 200 * time.Millisecond
	longestWait = 15 * time.Second
)

// errKilled is what a test's boundary answers to stop the controller dead.
var errKilled = errors.New("killed")

// NewController makes the controller of one node. Layers may be nil: then
// nothing is counted as freed.
func NewController(c client.WithWatch, o Options, layers Layers, events *Events, m *Metrics, log *slog.Logger) *Controller {
	return &Controller{
		client: c, options: o.withDefaults(), layers: layers, events: events, metrics: m, log: log, poll: pollActive,
	}
}

// Run carries out this node's Restarts until the context ends. At rest it
// costs the API server one watch, and a list every ten minutes.
func (c *Controller) Run(ctx context.Context) error {
	retry := newBackoff()
	for ctx.Err() == nil {
		err := c.round(ctx)
		if errors.Is(err, errKilled) {
			return err
		}
		if err == nil {
			retry = newBackoff()
			continue
		}
		if ctx.Err() == nil {
			c.log.Warn("restarts not looked after", "error", err)
			sleep(ctx, retry.Step())
		}
	}
	return nil
}

// round carries out all that is due, or waits until something may be.
func (c *Controller) round(ctx context.Context) error {
	due, version, err := c.list(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, key := range due { // one that fails does not hold up the others
		if err := c.carryOut(ctx, key); err != nil {
			failed = append(failed, err)
		}
		if err := errors.Join(failed...); ctx.Err() != nil || errors.Is(err, errKilled) {
			return err
		}
	}
	if len(due) > 0 {
		return errors.Join(failed...)
	}
	return c.idle(ctx, version)
}

// list finds this node's Restarts that are to be carried out, the oldest
// wish first.
func (c *Controller) list(ctx context.Context) (due []client.ObjectKey, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var all v1alpha1.RestartList
	if err := c.client.List(ctx, &all, c.ofThisNode()); err != nil {
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

func (c *Controller) ofThisNode() client.ListOption {
	return client.MatchingFields{"spec.node": c.options.Node}
}

// idle waits until a Restart of this node is to be carried out, the watch
// ends, or it is time to list again.
func (c *Controller) idle(ctx context.Context, version string) error {
	ctx, cancel := context.WithTimeout(ctx, relist)
	defer cancel()
	began := time.Now()
	var all v1alpha1.RestartList
	watcher, err := c.client.Watch(ctx, &all, c.ofThisNode(),
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
			if r, ok := happened.Object.(*v1alpha1.Restart); ok && happened.Type != watch.Deleted && mine(r, c.options.Node) {
				return nil
			}
		}
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
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
