package restart

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// rollout says how far the target's own controller has come.
type rollout struct {
	complete bool
	sentence string

	updated, available, wanted int32 // pods; with method Template alone
}

func (w World) rollout() rollout {
	switch {
	case w.method() != v1alpha1.MethodTemplate:
		return rolloutPods(w)
	case w.Target.Deployment != nil:
		return rolloutDeployment(w.Target.Deployment)
	case w.Target.StatefulSet != nil:
		return rolloutStatefulSet(w.Target.StatefulSet)
	case w.Target.DaemonSet != nil:
		return rolloutDaemonSet(w.Target.DaemonSet)
	}
	return rolloutOther(w.Target.Other)
}

// rolloutDeployment is complete when `kubectl rollout status` says so and,
// beyond that, no pod of an older template is left in the count.
func rolloutDeployment(d *appsv1.Deployment) rollout {
	want, s := wanted(d.Spec.Replicas), d.Status
	complete := s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
	return newRollout(complete, s.ObservedGeneration >= d.Generation, s.UpdatedReplicas, s.AvailableReplicas, want)
}

func rolloutStatefulSet(set *appsv1.StatefulSet) rollout {
	want, s := wanted(set.Spec.Replicas), set.Status
	complete := s.CurrentRevision == s.UpdateRevision &&
		s.UpdatedReplicas == want && s.Replicas == want && s.ReadyReplicas == want && s.AvailableReplicas == want
	return newRollout(complete, s.ObservedGeneration >= set.Generation, s.UpdatedReplicas, s.ReadyReplicas, want)
}

// newRollout says how far a rollout is. Until the workload's controller has seen
// the new template its status counts the old one's pods.
func newRollout(complete, seen bool, updated, available, want int32) rollout {
	if !seen {
		updated = 0
	}
	updated = min(updated, want)
	return rollout{
		complete: complete && seen, updated: updated, available: available, wanted: want,
		sentence: fmt.Sprintf("%d of %d pods are new, %d are available.", updated, want, available),
	}
}

// rolloutDaemonSet is complete when `kubectl rollout status` says so.
func rolloutDaemonSet(d *appsv1.DaemonSet) rollout {
	want, s := d.Status.DesiredNumberScheduled, d.Status
	complete := s.UpdatedNumberScheduled == want && s.NumberAvailable == want
	return newRollout(complete, s.ObservedGeneration >= d.Generation, s.UpdatedNumberScheduled, s.NumberAvailable, want)
}
