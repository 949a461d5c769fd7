package restart

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// rollout says how far the target's own controller has come.
type rollout struct {
	complete bool
	sentence string
}

func (w World) rollout() rollout {
	switch {
	case w.Target.Deployment != nil:
		return rolloutDeployment(w.Target.Deployment)
	case w.Target.StatefulSet != nil:
		return rolloutStatefulSet(w.Target.StatefulSet)
	}
	return rolloutDaemonSetPod(w)
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

// rolloutDaemonSetPod is complete when the DaemonSet has put a Ready pod in
// the old one's place on this node.
func rolloutDaemonSetPod(w World) rollout {
	fresh := w.newPods()
	if len(filterPods(fresh, func(p *corev1.Pod) bool { return ready(p) })) > 0 {
		return rollout{complete: true, sentence: "The new pod is Ready."}
	}
	if len(fresh) > 0 {
		return rollout{sentence: fmt.Sprintf("The new pod %s is not Ready yet.", fresh[0].Name)}
	}
	return rollout{sentence: "The old pod is going, a new one is not there yet."}
}
