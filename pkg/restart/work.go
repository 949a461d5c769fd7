package restart

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// work carries one Restart out. Where that fails for long before anything was
// begun it is left alone for a while.
func (c *Controller) work(ctx context.Context, key client.ObjectKey) error {
	for ctx.Err() == nil {
		err := c.carryOut(ctx, key)
		switch {
		case errors.Is(err, errKilled):
			return err
		case err != nil && ctx.Err() == nil:
			c.log.Warn("restart left for a while", "restart", key, "error", err)
			sleep(ctx, longestWait)
		case c.crew.leave(key):
			return nil
		}
	}
	return nil
}

// carryOut looks, decides and applies until there is nothing more for this
// agent to do about one Restart. What fails is tried again, until the deadline
// turns it into a stall; what cannot even be begun, or not even be ended as
// stalled, is an error.
func (c *Controller) carryOut(ctx context.Context, key client.ObjectKey) error {
	c.metrics.active.Inc()
	defer c.metrics.active.Dec()
	looker := newLooker(c.client, c.options, c.layers)
	looker.slots = c.slots
	retry, tries, trouble := newBackoff(), 0, ""
	for ctx.Err() == nil {
		step, err := c.step(ctx, looker, key, trouble)
		switch {
		case errors.Is(err, errKilled):
			return err
		case err != nil:
			if tries++; tries >= giveWay && looker.mayGiveWay() && !apierrors.IsConflict(err) {
				return err
			}
			trouble = c.note(step.Action, err)
			sleep(ctx, retry.Step())
			continue
		case step.Action == Rest:
			return nil
		case step.Action == Wait:
			sleepOr(ctx, c.pause(step), c.crew.waker(key))
		}
		retry, tries, trouble = newBackoff(), 0, ""
	}
	return ctx.Err()
}

func (c *Controller) pause(s Step) time.Duration {
	if c.poll > 0 {
		return min(s.Again, c.poll)
	}
	return s.Again
}

// step is one turn: read the world, decide, write.
func (c *Controller) step(ctx context.Context, l *looker, key client.ObjectKey, trouble string) (Step, error) {
	select {
	case <-ctx.Done():
		return Step{Action: "Look"}, ctx.Err()
	case c.looks <- struct{}{}:
		defer func() { <-c.looks }()
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w, err := l.look(ctx, key)
	if err != nil {
		return Step{Action: "Look"}, err
	}
	if w == nil {
		return Step{Action: Rest}, c.deleted(ctx, l)
	}
	l.last = w.Restart
	w.Trouble = trouble
	s := Next(*w)
	if s.Action == Rest {
		return s, nil
	}
	c.keepSlot(ctx, l, *w)
	if s.Action == Wait {
		return s, nil
	}
	if err := c.pass("before " + string(s.Action)); err != nil {
		return s, err
	}
	if err := c.apply(ctx, *w, s); err != nil {
		return s, err
	}
	return s, c.pass("after " + string(s.Action))
}

// deleted gives back the slot of a Restart that somebody deleted.
func (c *Controller) deleted(ctx context.Context, l *looker) error {
	if l.last == nil {
		return nil
	}
	return c.slots.keep(ctx, l.last, true)
}

// keepSlot tells now and then that a Restart's slot is alive. What fails is
// done at the next step.
func (c *Controller) keepSlot(ctx context.Context, l *looker, w World) {
	if begun := !fresh(w.Restart) && w.Restart.Status.Started != nil; !begun || w.Now.Before(l.kept.Add(slotRenew)) {
		return
	}
	if err := c.slots.keep(ctx, w.Restart, false); err != nil {
		c.log.Warn("slot not renewed", "restart", w.Restart.Name, "error", err)
		return
	}
	l.kept = w.Now
}

func (c *Controller) pass(moment string) error {
	if c.boundary == nil {
		return nil
	}
	return c.boundary(moment)
}

// note counts a failed step. A conflict is no trouble: somebody else wrote
// first, and the next look sees what.
func (c *Controller) note(a Action, err error) (trouble string) {
	c.metrics.errors.WithLabelValues(string(a)).Inc()
	if apierrors.IsConflict(err) || a == Admit && apierrors.IsAlreadyExists(err) {
		c.log.Debug("step lost a race", "step", a, "error", err)
		return ""
	}
	c.log.Warn("step failed and is tried again", "step", a, "error", err)
	return err.Error()
}
