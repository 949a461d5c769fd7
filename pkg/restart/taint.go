package restart

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// tainter is what those have in common who keep a taint of this node: how it is
// written, how its fence is proved and what is told. Its zero state remembers
// nothing.
type tainter struct {
	client  client.Client
	node    string
	step    string // as the metric of errors has it
	events  *Events
	metrics *Metrics
	log     *slog.Logger
	now     func() time.Time

	trouble  string    // the last look's error, which is logged once
	unfenced time.Time // when it was last found to have no fence; zero: it has one, or was not asked
}

// taintLook is how often a keeper looks by itself.
const taintLook = 15 * time.Second

func newTainter(c client.Client, o Options, step string, events *Events, m *Metrics, log *slog.Logger) tainter {
	o = o.withDefaults()
	return tainter{client: c, node: o.Node, step: step, events: events, metrics: m, log: log, now: o.Now}
}

// note takes in how a look ended: an error is logged once, until another comes,
// as what says.
func (t *tainter) note(ctx context.Context, err error, what string) {
	switch {
	case err == nil || ctx.Err() != nil:
		t.trouble = ""
		return
	case err.Error() != t.trouble:
		t.log.Warn(what, "node", t.node, "error", err)
	}
	t.trouble = err.Error()
	t.metrics.errors.WithLabelValues(t.step).Inc()
}

func (t *tainter) get(ctx context.Context) (*corev1.Node, error) {
	var node corev1.Node
	if err := t.client.Get(ctx, client.ObjectKey{Name: t.node}, &node); err != nil {
		return nil, fmt.Errorf("cannot read node %s: %w", t.node, err)
	}
	return &node, nil
}

// change writes the taints that next wants of the node as it is now, unless it
// wants none. Of those who write a node at once one has to read it again. The
// node is returned as it was read.
func (t *tainter) change(ctx context.Context, next func(*corev1.Node) (want []corev1.Taint, wanted bool)) (node *corev1.Node, err error) {
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() (err error) {
		if node, err = t.get(ctx); err != nil {
			return err
		}
		after := node.DeepCopy()
		want, wanted := next(after)
		if !wanted {
			return nil
		}
		after.Spec.Taints = want
		return t.client.Patch(ctx, after, client.MergeFromWithOptions(node, client.MergeFromWithOptimisticLock{}))
	})
	if err != nil {
		return nil, fmt.Errorf("cannot change the taints of node %s: %w", t.node, err)
	}
	return node, nil
}

func (t *tainter) tell(ctx context.Context, node *corev1.Node, kind, reason, message string) {
	level := slog.LevelInfo
	if kind == corev1.EventTypeWarning {
		level = slog.LevelWarn
	}
	t.log.Log(ctx, level, "node "+reason, "node", t.node, "message", message)
	t.events.tell(ctx, event{
		about: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID},
		kind:  kind, reason: reason, message: message, once: t.now().UTC().Format(time.RFC3339Nano),
	})
}
