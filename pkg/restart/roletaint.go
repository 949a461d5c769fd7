package restart

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// RoleTaint keeps ordinary pods off this node while its label says that it is a
// public one: the taint follows the label. What it has put on has timeAdded,
// which kubectl and the kubelet do not set with this effect: a taint that a
// person set is never taken off.
type RoleTaint struct {
	client  client.Client
	node    string
	enabled bool
	events  *Events
	metrics *Metrics
	log     *slog.Logger
	now     func() time.Time

	trouble  string    // the last look's error, which is logged once
	unfenced time.Time // when it was last found to have no fence; zero: it has one, or was not asked
}

// NewRoleTaint makes the keeper of one node's taint. Where it is not enabled it
// puts none on.
func NewRoleTaint(c client.Client, o Options, enabled bool, events *Events, m *Metrics, log *slog.Logger) *RoleTaint {
	o = o.withDefaults()
	return &RoleTaint{client: c, node: o.Node, enabled: enabled, events: events, metrics: m, log: log, now: o.Now}
}

// Run looks after the taint until ctx ends: when the node has moved, and now and
// then for what failed. node is what is known of this node, nil where nothing
// is. At rest it costs the API server nothing.
func (r *RoleTaint) Run(ctx context.Context, moved <-chan struct{}, node func() *corev1.Node) {
	tick := time.NewTicker(taintLook)
	defer tick.Stop()
	for {
		if n := node(); n != nil {
			r.Look(ctx, n)
		}
		select {
		case <-ctx.Done():
			return
		case <-moved:
		case <-tick.C:
		}
	}
}

// Look makes the taint what the label of this node asks for.
func (r *RoleTaint) Look(ctx context.Context, node *corev1.Node) {
	err := r.look(ctx, node)
	switch {
	case err == nil || ctx.Err() != nil:
		r.trouble = ""
		return
	case err.Error() != r.trouble:
		r.log.Warn("taint of the node's role not looked after", "node", r.node, "error", err)
	}
	r.trouble = err.Error()
	r.metrics.errors.WithLabelValues("RoleTaint").Inc()
}

func (r *RoleTaint) look(ctx context.Context, node *corev1.Node) error {
	act := nextRoleTaint(node, r.enabled)
	if act == leaveTaint {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, taintLook)
	defer cancel()
	if act == putTaint {
		if fenced, err := r.fenced(ctx, node); err != nil || !fenced {
			return err
		}
	}
	return r.write(ctx)
}

// nextRoleTaint decides.
func nextRoleTaint(node *corev1.Node, enabled bool) taintAction {
	public := node.Labels[v1alpha1.LabelRole] == v1alpha1.RolePublic
	switch {
	case public && enabled && !slices.ContainsFunc(node.Spec.Taints, keepsPublic):
		return putTaint
	case !public && slices.ContainsFunc(node.Spec.Taints, oursPublic):
		return takeTaint
	}
	return leaveTaint
}

// keepsPublic tells a taint that keeps ordinary pods off a public node, whoever
// put it on.
func keepsPublic(t corev1.Taint) bool {
	return t.Key == v1alpha1.LabelRole && t.Value == v1alpha1.RolePublic && t.Effect != corev1.TaintEffectPreferNoSchedule
}

// oursPublic tells the one that an agent has put on.
func oursPublic(t corev1.Taint) bool {
	return t.Key == v1alpha1.LabelRole && t.Value == v1alpha1.RolePublic && t.Effect == corev1.TaintEffectNoSchedule && t.TimeAdded != nil
}

// write does what the node asks for as it is now, and tells.
func (r *RoleTaint) write(ctx context.Context) error {
	var node corev1.Node
	var act taintAction
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := r.client.Get(ctx, client.ObjectKey{Name: r.node}, &node); err != nil {
			return err
		}
		after := node.DeepCopy()
		switch act = nextRoleTaint(&node, r.enabled); act {
		case leaveTaint:
			return nil
		case takeTaint:
			after.Spec.Taints = slices.DeleteFunc(after.Spec.Taints, oursPublic)
		case putTaint:
			after.Spec.Taints = append(after.Spec.Taints, corev1.Taint{
				Key: v1alpha1.LabelRole, Value: v1alpha1.RolePublic, Effect: corev1.TaintEffectNoSchedule, TimeAdded: new(metav1.NewTime(r.now())),
			})
		}
		return r.client.Patch(ctx, after, client.MergeFromWithOptions(&node, client.MergeFromWithOptimisticLock{}))
	})
	switch {
	case err != nil:
		return fmt.Errorf("cannot change the taints of node %s: %w", r.node, err)
	case act == putTaint:
		r.tell(ctx, &node, corev1.EventTypeNormal, EventPublic, fmt.Sprintf(
			"This node's label says that it is public: pods that do not tolerate its taint %s=%s:NoSchedule are kept off it from now on.", v1alpha1.LabelRole, v1alpha1.RolePublic))
	case act == takeTaint:
		r.tell(ctx, &node, corev1.EventTypeNormal, EventNotPublic, fmt.Sprintf(
			"This node's label does not say any more that it is public: its taint %s=%s:NoSchedule was taken off.", v1alpha1.LabelRole, v1alpha1.RolePublic))
	}
	return nil
}

// fenced proves that the API server refuses this agent all but its own taints.
// Where it does not that is told, once.
func (r *RoleTaint) fenced(ctx context.Context, node *corev1.Node) (bool, error) {
	if !r.unfenced.IsZero() && r.now().Before(r.unfenced.Add(fenceAgain)) {
		return false, nil
	}
	fenced, err := proveFence(ctx, r.client, node)
	if err != nil {
		return false, err
	}
	if fenced {
		r.unfenced = time.Time{}
		return true, nil
	}
	if r.unfenced.IsZero() {
		r.tell(ctx, node, corev1.EventTypeWarning, EventNotFenced, "This node's label says that it is public, and ordinary pods are not kept off it: "+
			"it has no taint "+v1alpha1.LabelRole+", "+unfencedWhy)
	}
	r.unfenced = r.now()
	r.metrics.errors.WithLabelValues("RoleTaint").Inc()
	return false, nil
}

func (r *RoleTaint) tell(ctx context.Context, node *corev1.Node, kind, reason, message string) {
	level := slog.LevelInfo
	if kind == corev1.EventTypeWarning {
		level = slog.LevelWarn
	}
	r.log.Log(ctx, level, "node "+reason, "node", r.node, "message", message)
	r.events.tell(ctx, event{
		about: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID},
		kind:  kind, reason: reason, message: message, once: r.now().UTC().Format(time.RFC3339Nano),
	})
}
