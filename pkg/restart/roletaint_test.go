package restart

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestNextRoleTaint(t *testing.T) {
	taint := func(value string, effect corev1.TaintEffect, added *metav1.Time) corev1.Taint {
		return corev1.Taint{Key: v1alpha1.LabelRole, Value: value, Effect: effect, TimeAdded: added}
	}
	now := new(metav1.Now())
	agents, hand := taint("public", corev1.TaintEffectNoSchedule, now), taint("public", corev1.TaintEffectNoSchedule, nil)
	evicts, soft := taint("public", corev1.TaintEffectNoExecute, now), taint("public", corev1.TaintEffectPreferNoSchedule, nil)
	other := taint("gpu", corev1.TaintEffectNoSchedule, now)
	for _, test := range []struct {
		name    string
		role    string
		taints  []corev1.Taint
		enabled bool
		want    taintAction
	}{
		{"no label, no taint", "", nil, true, leaveTaint},
		{"public, no taint", "public", nil, true, putTaint},
		{"public, not wanted", "public", nil, false, leaveTaint},
		{"public, tainted", "public", []corev1.Taint{agents}, true, leaveTaint},
		{"public, tainted by hand", "public", []corev1.Taint{hand}, true, leaveTaint},
		{"public, a taint that evicts", "public", []corev1.Taint{evicts}, true, leaveTaint},
		{"public, a taint that keeps nobody off", "public", []corev1.Taint{soft}, true, putTaint},
		{"public, the taint of another role", "public", []corev1.Taint{other}, true, putTaint},
		{"no longer public", "", []corev1.Taint{agents}, true, takeTaint},
		{"of another role now", "gpu", []corev1.Taint{other, agents}, true, takeTaint},
		{"no longer public, nor wanted", "", []corev1.Taint{agents}, false, takeTaint},
		{"not public, tainted by hand", "", []corev1.Taint{hand, evicts, other}, true, leaveTaint},
		{"another role", "gpu", nil, true, leaveTaint},
	} {
		t.Run(test.name, func(t *testing.T) {
			node := &corev1.Node{Spec: corev1.NodeSpec{Taints: test.taints}}
			if test.role != "" {
				node.Labels = map[string]string{v1alpha1.LabelRole: test.role}
			}
			if got := nextRoleTaint(node, test.enabled); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}
