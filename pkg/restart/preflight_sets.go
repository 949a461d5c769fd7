package restart

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// preflightDeploymentPod is about one pod of a Deployment. A pause does not
// matter: it holds up rollouts, and this is none.
func preflightDeploymentPod(d *appsv1.Deployment) []Finding {
	replicas := wanted(d.Spec.Replicas)
	switch {
	case replicas == 0:
		return []Finding{{Forbids, "The Deployment is scaled to 0: there is nothing to restart."}}
	case inRollout(d):
		return []Finding{rolloutInProgress(d)}
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		return []Finding{{Interrupts, "The Deployment's strategy is Recreate: its pods are not to run side by side, so the old one goes before the new one starts."}}
	}
	return missing(replicas, d.Status.AvailableReplicas)
}

// preflightRelease is about pods that are taken from a controller.
func preflightRelease(w World) []Finding {
	var found []Finding
	for _, p := range w.controlled() {
		if !hasToGo(w.Restart.Spec, &p) {
			continue
		}
		switch key, dips := releaseKey(w, &p); {
		case key == "":
			return []Finding{{Forbids, fmt.Sprintf("Pod %s has no label without which its controller would let go of it.", p.Name)}}
		case dips && w.wanted() < 2:
			return []Finding{{Interrupts, fmt.Sprintf("Its one pod leaves its Services as soon as its controller lets go of it, for both select it by %s alone.", key)}}
		case dips:
			return []Finding{{Warns, fmt.Sprintf("One pod less serves meanwhile: controller and Services select by the same labels (%s), so an old pod leaves the endpoints before its next is Ready.", key)}}
		}
	}
	return found
}

func preflightReplicaSet(s *appsv1.ReplicaSet) []Finding {
	if s.Status.ObservedGeneration < s.Generation {
		return []Finding{{Forbids, "The ReplicaSet was changed just now, and its controller has not seen it yet."}}
	}
	return preflightReplicas(KindReplicaSet, wanted(s.Spec.Replicas), s.Status.AvailableReplicas)
}

func preflightReplicationController(s *corev1.ReplicationController) []Finding {
	if s.Status.ObservedGeneration < s.Generation {
		return []Finding{{Forbids, "The ReplicationController was changed just now, and its controller has not seen it yet."}}
	}
	return preflightReplicas(KindReplicationController, wanted(s.Spec.Replicas), s.Status.AvailableReplicas)
}

func preflightReplicas(kind string, replicas, available int32) []Finding {
	if replicas == 0 {
		return []Finding{{Forbids, fmt.Sprintf("The %s is scaled to 0: there is nothing to restart.", kind)}}
	}
	return missing(replicas, available)
}

// owned is about a ReplicaSet or pod that was named although it belongs to
// another workload: that one would undo or double what is done here.
func owned(kind, owner, name string) []Finding {
	return []Finding{{Forbids, fmt.Sprintf("This %s belongs to %s %s: that is what to restart.", kind, owner, name)}}
}

func missing(replicas, available int32) []Finding {
	if down := replicas - available; down > 0 {
		return []Finding{{Warns, fmt.Sprintf("%d of %d pods are not available even now.", down, replicas)}}
	}
	return nil
}
