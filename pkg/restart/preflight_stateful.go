package restart

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func preflightStatefulSet(w World) []Finding {
	s, replicas := w.Target.StatefulSet, wanted(w.Target.StatefulSet.Spec.Replicas)
	switch {
	case replicas == 0:
		return []Finding{{Forbids, "The StatefulSet is scaled to 0: there is nothing to restart."}}
	case statefulSetInRollout(s):
		return []Finding{{Forbids, "A rollout of the StatefulSet is in progress."}}
	case pendingTemplate(w):
		return []Finding{{Forbids, "The StatefulSet's update strategy is OnDelete and its template was changed: a pod that is restarted would come back with the new one."}}
	case broken(w) > 0 && s.Spec.PodManagementPolicy != appsv1.ParallelPodManagement:
		// With OrderedReady the controller waits for a broken pod before it
		// touches the next, and does not replace the broken one itself
		// (kubernetes #67250): the restart would hang on it.
		return []Finding{{Forbids, fmt.Sprintf("Only %d of %d pods are Ready: the StatefulSet would wait for the others and stay half restarted.", s.Status.ReadyReplicas, replicas)}}
	case replicas == 1:
		return []Finding{{Interrupts, "The StatefulSet has one replica: its pod goes before the new one starts."}}
	case w.method() == v1alpha1.MethodEvict:
		return []Finding{{Warns, "Each pod goes before its next starts: its ordinal is down until that is Ready."}}
	}
	return nil
}

// statefulSetInRollout: with a partition the revisions differ for good, and
// with OnDelete the current one is never brought up to date.
func statefulSetInRollout(s *appsv1.StatefulSet) bool {
	replicas := wanted(s.Spec.Replicas)
	if s.Status.ObservedGeneration < s.Generation || s.Status.Replicas < replicas {
		return true
	}
	switch {
	case s.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType:
		return false
	case partition(s) > 0:
		return s.Status.CurrentRevision != s.Status.UpdateRevision && s.Status.UpdatedReplicas < replicas-partition(s)
	}
	return s.Status.CurrentRevision != s.Status.UpdateRevision
}

// pendingTemplate tells whether a pod that has to go is of an older template
// than its next would be.
func pendingTemplate(w World) bool {
	s := w.Target.StatefulSet
	if s.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType {
		return false
	}
	for i := range w.Pods {
		p := &w.Pods[i]
		revision := p.Labels[appsv1.ControllerRevisionHashLabelKey]
		if hasToGo(w.Restart.Spec, p) && revision != "" && revision != s.Status.UpdateRevision {
			return true
		}
	}
	return false
}

// broken counts the pods that are not Ready. One that is itself to be
// restarted alone is no hindrance: its eviction is what mends the set.
func broken(w World) int32 {
	s := w.Target.StatefulSet
	down := wanted(s.Spec.Replicas) - s.Status.ReadyReplicas
	for i := range w.Pods {
		p := &w.Pods[i]
		if w.Restart.Spec.Scope == v1alpha1.ScopePod && hasToGo(w.Restart.Spec, p) && !ready(p) {
			down--
		}
	}
	return down
}
