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
	return rollout{
		complete: s.ObservedGeneration >= d.Generation &&
			s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want,
		sentence: counts(s.ObservedGeneration, d.Generation, s.UpdatedReplicas, s.AvailableReplicas, want),
	}
}

func rolloutStatefulSet(set *appsv1.StatefulSet) rollout {
	want, s := wanted(set.Spec.Replicas), set.Status
	return rollout{
		complete: s.ObservedGeneration >= set.Generation && s.CurrentRevision == s.UpdateRevision &&
			s.UpdatedReplicas == want && s.Replicas == want && s.ReadyReplicas == want && s.AvailableReplicas == want,
		sentence: counts(s.ObservedGeneration, set.Generation, s.UpdatedReplicas, s.ReadyReplicas, want),
	}
}

// counts says how far a rollout is. Until the workload's controller has seen
// the new template its status counts the old one's pods.
func counts(observed, generation int64, updated, available, want int32) string {
	if observed < generation {
		updated = 0
	}
	return fmt.Sprintf("%d of %d pods are new, %d are available.", min(updated, want), want, available)
}

// rolloutDaemonSet is complete when `kubectl rollout status` says so.
func rolloutDaemonSet(d *appsv1.DaemonSet) rollout {
	want, s := d.Status.DesiredNumberScheduled, d.Status
	return rollout{
		complete: s.ObservedGeneration >= d.Generation && s.UpdatedNumberScheduled == want && s.NumberAvailable == want,
		sentence: counts(s.ObservedGeneration, d.Generation, s.UpdatedNumberScheduled, s.NumberAvailable, want),
	}
}
