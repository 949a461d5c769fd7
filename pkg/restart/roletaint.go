package restart

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// RoleTaint keeps ordinary pods off this node while its label says that it is a
// public one: the taint follows the label. What it has put on has timeAdded,
// which kubectl and the kubelet do not set with this effect: a taint that a
// person set is never taken off.
type RoleTaint struct {
	tainter
	enabled bool
}

// NewRoleTaint makes the keeper of one node's taint. Where it is not enabled it
// puts none on.
func NewRoleTaint(c client.Client, o Options, enabled bool, events *Events, m *Metrics, log *slog.Logger) *RoleTaint {
	return &RoleTaint{tainter: newTainter(c, o, "RoleTaint", events, m, log), enabled: enabled}
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
	r.note(ctx, r.look(ctx, node), "taint of the node's role not looked after")
}

func (r *RoleTaint) look(ctx context.Context, node *corev1.Node) error {
	act := nextRoleTaint(node, r.enabled)
	if act == leaveTaint {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, taintLook)
	defer cancel()
	if act == putTaint {
		if fenced, err := r.fenced(ctx, roleNotFenced); err != nil || !fenced {
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
	var act taintAction
	node, err := r.change(ctx, func(node *corev1.Node) ([]corev1.Taint, bool) {
		switch act = nextRoleTaint(node, r.enabled); act {
		case takeTaint:
			return slices.DeleteFunc(node.Spec.Taints, oursPublic), true
		case putTaint:
			return append(node.Spec.Taints, corev1.Taint{
				Key: v1alpha1.LabelRole, Value: v1alpha1.RolePublic, Effect: corev1.TaintEffectNoSchedule, TimeAdded: new(metav1.NewTime(r.now())),
			}), true
		}
		return nil, false
	})
	switch {
	case err != nil:
		return err
	case act == putTaint:
		r.tell(ctx, node, corev1.EventTypeNormal, EventPublic, fmt.Sprintf(
			"This node's label says that it is public: pods that do not tolerate its taint %s=%s:NoSchedule are kept off it from now on.", v1alpha1.LabelRole, v1alpha1.RolePublic))
	case act == takeTaint:
		r.tell(ctx, node, corev1.EventTypeNormal, EventNotPublic, fmt.Sprintf(
			"This node's label does not say any more that it is public: its taint %s=%s:NoSchedule was taken off.", v1alpha1.LabelRole, v1alpha1.RolePublic))
	}
	return nil
}

const roleNotFenced = "This node's label says that it is public, and ordinary pods are not kept off it: it has no taint " + v1alpha1.LabelRole + ", " + unfencedWhy
