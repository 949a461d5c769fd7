package restart

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func preflightDaemonSet(w World) []Finding {
	d := w.Target.DaemonSet
	onDelete := d.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType
	behind := d.Status.UpdatedNumberScheduled < d.Status.DesiredNumberScheduled
	switch {
	case onDelete && behind:
		return []Finding{{Forbids, "The DaemonSet's update strategy is OnDelete and its template was changed: a pod that is restarted would come back with the new one."}}
	case d.Status.ObservedGeneration < d.Generation, behind:
		return []Finding{{Forbids, fmt.Sprintf("A rollout is in progress: %d of %d pods are of the newest template.",
			d.Status.UpdatedNumberScheduled, d.Status.DesiredNumberScheduled)}}
	case w.Restart.Spec.Scope == v1alpha1.ScopePod && w.Restart.Spec.Pod == "" && len(w.Pods) == 0:
		return []Finding{{Forbids, fmt.Sprintf("The DaemonSet has no pod on node %s.", w.Restart.Spec.Node)}}
	case w.Restart.Spec.Scope == v1alpha1.ScopePod:
		return nil
	case d.Status.DesiredNumberScheduled == 0:
		return []Finding{{Forbids, "The DaemonSet runs on no node: there is nothing to restart."}}
	case !daemonSurges(d):
		return []Finding{{Warns, "Each node's pod goes before its next starts."}}
	}
	return missing(d.Status.DesiredNumberScheduled, d.Status.NumberAvailable)
}

// daemonSurges tells whether a DaemonSet's rollout starts a node's new pod
// before the old one goes.
func daemonSurges(d *appsv1.DaemonSet) bool {
	r := d.Spec.UpdateStrategy.RollingUpdate
	if r == nil || r.MaxSurge == nil || d.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return false
	}
	surge, err := intstr.GetScaledValueFromIntOrPercent(r.MaxSurge, int(d.Status.DesiredNumberScheduled), true)
	return err == nil && surge > 0
}
