package restart

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestNextTaint(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	sure, near, calm := Filling{Sure: true, Near: true}, Filling{Near: true}, Filling{}
	for _, test := range []struct {
		name    string
		was     taintState
		f       Filling
		enabled bool
		act     taintAction
		is      taintState
	}{
		{"off, at rest", taintState{}, calm, true, leaveTaint, taintState{}},
		{"off, perhaps full soon", taintState{}, near, true, leaveTaint, taintState{}},
		{"off, sure to be full soon", taintState{}, sure, true, putTaint, taintState{}},
		{"on, sure", taintState{on: true}, sure, true, leaveTaint, taintState{on: true}},
		{"on, sure though nothing of the disk says so", taintState{on: true, calm: ago(time.Hour)}, Filling{Sure: true}, true, leaveTaint, taintState{on: true}},
		{"on, near", taintState{on: true, calm: ago(time.Hour)}, near, true, leaveTaint, taintState{on: true}},
		{"on, calm at last", taintState{on: true}, calm, true, leaveTaint, taintState{on: true, calm: now}},
		{"on, calm for a while", taintState{on: true, calm: ago(taintCalm - 1)}, calm, true, leaveTaint, taintState{on: true, calm: ago(taintCalm - 1)}},
		{"on, calm for long", taintState{on: true, calm: ago(taintCalm)}, calm, true, takeTaint, taintState{on: true, calm: ago(taintCalm)}},
		{"not wanted, off, sure", taintState{}, sure, false, leaveTaint, taintState{}},
		{"not wanted, on, sure", taintState{on: true}, sure, false, takeTaint, taintState{on: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if is, act := test.was.next(test.f, test.enabled, now); is != test.is || act != test.act {
				t.Errorf("%+v, %v, want %+v, %v", is, act, test.is, test.act)
			}
		})
	}
}

// The fence is proved by its own refusal alone.
func TestRefusedByFence(t *testing.T) {
	node := schema.GroupResource{Resource: "nodes"}
	denied := func(policy string) error {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Node"}, nodeA, field.ErrorList{field.Forbidden(field.NewPath("spec"),
			"ValidatingAdmissionPolicy '"+policy+"' with binding '"+policy+"' denied request: an agent changes no taint")})
	}
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"by the fence":             {denied("nodeagent-nodes"), true},
		"by another policy":        {denied("public-nodes"), false},
		"for want of a role":       {apierrors.NewForbidden(node, nodeA, errors.New("cannot patch nodes")), false},
		"a dry run cannot be done": {apierrors.NewBadRequest("admission webhook nodeagent-nodes does not support dry run"), false},
		"a conflict":               {apierrors.NewConflict(node, nodeA, errors.New("nodeagent-nodes")), false},
	} {
		if got := refusedByFence(test.err); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestPreflightFilling(t *testing.T) {
	node := func(taints ...corev1.Taint) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: corev1.NodeSpec{Taints: taints}}
	}
	soft := corev1.Taint{Key: v1alpha1.TaintDiskFilling, Effect: corev1.TaintEffectPreferNoSchedule}
	hard := corev1.Taint{Key: v1alpha1.TaintDiskFilling, Effect: corev1.TaintEffectNoSchedule}
	for _, test := range []struct {
		name string
		kind string
		node *corev1.Node
		want bool
	}{
		{"tainted", KindDeployment, node(hard, soft), true},
		{"a set", KindStatefulSet, node(soft), true},
		{"a DaemonSet's pods come back where they were", KindDaemonSet, node(soft), false},
		{"not tainted", KindDeployment, node(), false},
		{"somebody else's taint", KindDeployment, node(hard), false},
		{"the node is not known", KindDeployment, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := World{Target: newTarget(v1alpha1.TargetReference{APIVersion: "apps/v1", Kind: test.kind}), NodeState: test.node}
			found := preflightFilling(w)
			if got := len(found) == 1 && found[0].Weight == Warns; got != test.want {
				t.Errorf("%v, want it said: %v", found, test.want)
			}
		})
	}
}
