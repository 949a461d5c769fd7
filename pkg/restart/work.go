package restart

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// carryOut looks, decides and applies until there is nothing more for this
// agent to do about one Restart. What fails is tried again, until the deadline
// turns it into a stall; what cannot even be begun, or not even be ended as
// stalled, gives way to others.
func (c *Controller) carryOut(ctx context.Context, key client.ObjectKey) error {
	c.metrics.active.Inc()
	defer c.metrics.active.Dec()
	looker := newLooker(c.client, c.options, c.layers)
	retry, tries, trouble := newBackoff(), 0, ""
	for ctx.Err() == nil {
		step, err := c.step(ctx, looker, key, trouble)
		switch {
		case errors.Is(err, errKilled):
			return err
		case err != nil:
			if tries++; tries >= giveWay && looker.mayGiveWay() {
				return err
			}
			trouble = c.note(step.Action, err)
			sleep(ctx, retry.Step())
			continue
		case step.Action == Rest:
			return nil
		case step.Action == Wait:
			sleep(ctx, c.poll)
		}
		retry, tries, trouble = newBackoff(), 0, ""
	}
	return ctx.Err()
}

// step is one turn: read the world, decide, write.
func (c *Controller) step(ctx context.Context, l *looker, key client.ObjectKey, trouble string) (Step, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w, err := l.look(ctx, key)
	if err != nil {
		return Step{Action: "Look"}, err
	}
	if w == nil {
		return Step{Action: Rest}, nil
	}
	w.Trouble = trouble
	s := Next(*w)
	if s.Action == Rest || s.Action == Wait {
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
	if apierrors.IsConflict(err) {
		c.log.Debug("step lost a race", "step", a, "error", err)
		return ""
	}
	c.log.Warn("step failed and is tried again", "step", a, "error", err)
	return err.Error()
}
