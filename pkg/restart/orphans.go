package restart

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// signs are by what the leader sees that somebody is at work on a Restart:
// while one of them changes, somebody is.
type signs struct {
	generation, observed int64
	phase                v1alpha1.Phase
	holder               string
	renewed              time.Time
}

func signsOf(r *v1alpha1.Restart) signs {
	s := signs{r.Generation, r.Status.ObservedGeneration, r.Status.Phase, r.Status.Holder, time.Time{}}
	if r.Status.Renewed != nil {
		s.renewed = r.Status.Renewed.Time
	}
	return s
}

// watched is a Restart that is to be carried out, as the leader last saw it.
type watched struct {
	restart *v1alpha1.Restart
	signs   signs
	since   time.Time // by the leader's own clock
}

// orphan tells whether nobody carries it out: it was asked for for no node, or
// its node or holder gave no sign for long.
func (s watched) orphan(me string, now time.Time, t tempo) bool {
	age := now.Sub(s.since)
	switch r := s.restart; {
	case fresh(r) && r.Spec.Node == "":
		return true
	case fresh(r):
		return r.Spec.Node != me && age >= t.orphan
	case !known(r.Status.Phase) || r.Status.Holder == me:
		return false
	case queued(r):
		return age >= t.waiting
	default:
		return age >= t.orphan
	}
}

// guardian is what the leader does: it follows all Restarts and takes those
// that nobody carries out.
type guardian struct {
	controller *Controller
	known      map[client.ObjectKey]watched
}

// guard runs until the context ends.
func (c *Controller) guard(ctx context.Context) {
	retry := newBackoff()
	for ctx.Err() == nil {
		g := &guardian{c, map[client.ObjectKey]watched{}}
		if err := g.round(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("restarts without a holder not looked after", "error", err)
			sleep(ctx, retry.Step())
			continue
		}
		retry = newBackoff()
	}
}

// round lists all Restarts and follows them until the watch ends.
func (g *guardian) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, relist)
	defer cancel()
	version, err := g.list(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	var all v1alpha1.RestartList
	watcher, err := g.controller.client.Watch(ctx, &all, client.InNamespace(g.controller.guarded),
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true}})
	if err != nil {
		return fmt.Errorf("cannot watch all Restarts: %w", err)
	}
	defer watcher.Stop()
	tick := time.NewTicker(g.controller.tempo.look)
	defer tick.Stop()
	for {
		g.takeOrphans(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case happened, open := <-watcher.ResultChan():
			if !open || happened.Type == watch.Error {
				return endOfWatch(time.Since(began))
			}
			if r, ok := happened.Object.(*v1alpha1.Restart); ok && happened.Type != watch.Bookmark {
				g.see(r, happened.Type == watch.Deleted)
			}
		}
	}
}

// list sees all that are there, a page at a time: each brings its history.
func (g *guardian) list(ctx context.Context) (version string, err error) {
	for token := ""; ; {
		var page v1alpha1.RestartList
		if err := g.controller.client.List(ctx, &page, client.InNamespace(g.controller.guarded), client.Limit(podPage), client.Continue(token)); err != nil {
			return "", fmt.Errorf("cannot list all Restarts: %w", err)
		}
		for i := range page.Items {
			g.see(&page.Items[i], false)
		}
		if token = page.Continue; token == "" {
			return page.ResourceVersion, nil
		}
	}
}

func (g *guardian) see(r *v1alpha1.Restart, gone bool) {
	key := client.ObjectKeyFromObject(r)
	if gone || r.DeletionTimestamp != nil || !active(r) {
		delete(g.known, key)
		return
	}
	now, s := g.controller.options.Now(), signsOf(r)
	last, ok := g.known[key]
	if !ok || last.signs != s {
		last.signs, last.since = s, now
	}
	last.restart = r
	g.known[key] = last
	g.controller.nudge(r)
}

// takeOrphans writes itself into those that nobody carries out. Whoever is at
// work on one all the same finds that it is no longer the holder.
func (g *guardian) takeOrphans(ctx context.Context) {
	c := g.controller
	for key, s := range g.known {
		held := !fresh(s.restart) && known(s.restart.Status.Phase) && s.restart.Status.Holder == c.options.Node
		if held {
			c.carry(key) // its own from a former life, perhaps
			continue
		}
		if !s.orphan(c.options.Node, c.options.Now(), c.tempo) {
			continue
		}
		if err := c.adopt(ctx, s.restart); err != nil {
			c.log.Debug("restart not taken over", "restart", key, "error", err)
		}
		delete(g.known, key) // the watch tells what became of it
	}
}

// adopt makes this agent the holder of a Restart. It is refused by the API
// server when anybody wrote the Restart since it was read.
func (c *Controller) adopt(ctx context.Context, r *v1alpha1.Restart) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	after, now := r.DeepCopy(), c.options.Now()
	if fresh(r) {
		after.Status = queueStatus(r, now)
		after.Status.Phase, after.Status.Message = v1alpha1.PhasePending, "Taken up by "+c.options.Node+", the leader of the agents."
	} else {
		c.log.Info("restart taken over", "restart", r.Namespace+"/"+r.Name, "from", r.Status.Holder)
		c.metrics.takenOver.Inc()
	}
	after.Status.Holder, after.Status.Renewed = c.options.Node, new(metav1.NewMicroTime(now))
	patch := client.MergeFromWithOptions(r, client.MergeFromWithOptimisticLock{})
	if err := c.client.Status().Patch(ctx, after, patch); err != nil {
		return fmt.Errorf("cannot take over Restart %s/%s: %w", r.Namespace, r.Name, err)
	}
	c.carry(client.ObjectKeyFromObject(r))
	return nil
}
