package restart

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// tell says a restart's begin and end, in the log, in Events on the Restart,
// its workload and its pod, and in the metrics.
func (c *Controller) tell(ctx context.Context, w World, s Step, r *v1alpha1.Restart) {
	reason, kind := EventStarted, corev1.EventTypeNormal
	switch s.Action {
	case Begin:
	case Queue:
		reason = EventWaits
	case End:
		reason, kind = endReason(s.Phase)
		c.metrics.end(r)
	default:
		return
	}
	c.log.Info("restart "+string(r.Status.Phase), "restart", r.Namespace+"/"+r.Name, "reason", r.Spec.Reason, "message", s.Message)
	message := s.Message
	if s.Action == Begin && r.Spec.Message != "" {
		message += " Reason: " + r.Spec.Message
	}
	for _, about := range affected(w, r) {
		c.events.tell(ctx, event{
			about: about, kind: kind, reason: reason, message: message,
			once: string(r.UID) + strconv.FormatInt(r.Generation, 10),
		})
	}
}

func endReason(p v1alpha1.Phase) (reason, kind string) {
	switch p {
	case v1alpha1.PhaseSucceeded:
		return EventSucceeded, corev1.EventTypeNormal
	case v1alpha1.PhaseStalled:
		return EventStalled, corev1.EventTypeWarning
	case v1alpha1.PhaseIneffective:
		return EventIneffective, corev1.EventTypeWarning
	case v1alpha1.PhaseObserved:
		return EventObserved, corev1.EventTypeNormal
	case v1alpha1.PhaseRefused:
		return EventRefused, corev1.EventTypeWarning
	}
	return EventFailed, corev1.EventTypeWarning
}

// affected are the objects whose `kubectl describe` should tell the story.
func affected(w World, r *v1alpha1.Restart) []corev1.ObjectReference {
	target := r.Spec.Target
	all := []corev1.ObjectReference{{
		APIVersion: v1alpha1.GroupVersion().String(), Kind: "Restart",
		Namespace: r.Namespace, Name: r.Name, UID: r.UID,
	}, {
		APIVersion: target.APIVersion, Kind: target.Kind,
		Namespace: r.Namespace, Name: target.Name, UID: targetUID(w, r),
	}}
	if r.Spec.Pod != "" && r.Spec.PodUID != "" && target.Kind != KindPod {
		all = append(all, podReference(r.Namespace, r.Spec.Pod, types.UID(r.Spec.PodUID)))
	}
	return all
}

func targetUID(w World, r *v1alpha1.Restart) types.UID {
	if w.Target != nil {
		return w.Target.uid()
	}
	for _, ref := range r.OwnerReferences {
		if ref.Kind == r.Spec.Target.Kind && ref.Name == r.Spec.Target.Name {
			return ref.UID
		}
	}
	return ""
}
