package restart

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// method is how this restart replaces pods: what was settled when it began,
// or what follows from the target as it is now.
func (w World) method() v1alpha1.Method {
	if m := w.Restart.Status.Method; m != "" && !fresh(w.Restart) {
		return m
	}
	return methodOf(w.Target, w.Restart.Spec.Scope)
}

// methodOf is the table of targets: what each asks for.
func methodOf(t *Target, scope v1alpha1.Scope) v1alpha1.Method {
	one := scope == v1alpha1.ScopePod
	switch {
	case t == nil:
		return v1alpha1.MethodTemplate
	case t.Deployment != nil && one && t.Deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		return v1alpha1.MethodEvict // two of its pods are never to run at once
	case t.Deployment != nil && one, t.ReplicaSet != nil, t.ReplicationController != nil:
		return v1alpha1.MethodRelease
	case t.StatefulSet != nil && (one || byHand(t.StatefulSet)):
		return v1alpha1.MethodEvict
	case t.DaemonSet != nil && (one || t.DaemonSet.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType):
		return v1alpha1.MethodEvict
	case t.Job != nil:
		return v1alpha1.MethodEvict
	case t.Pod != nil:
		return v1alpha1.MethodCopy
	}
	return v1alpha1.MethodTemplate
}

// byHand tells whether a StatefulSet's own controller would not replace all
// pods for a new template.
func byHand(s *appsv1.StatefulSet) bool {
	return s.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType || partition(s) > 0
}

func partition(s *appsv1.StatefulSet) int32 {
	if r := s.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		return *r.Partition
	}
	return 0
}

// besides tells whether a new pod runs beside an old one.
func (w World) besides() bool {
	switch w.method() {
	case v1alpha1.MethodRelease, v1alpha1.MethodCopy:
		return true
	case v1alpha1.MethodTemplate:
		return surges(w.Target)
	}
	return false
}

// wanted is how many pods the target's controller keeps, of those that are
// listed here.
func (w World) wanted() int32 {
	switch t := w.Target; {
	case t.Deployment != nil:
		return wanted(t.Deployment.Spec.Replicas)
	case t.StatefulSet != nil:
		return wanted(t.StatefulSet.Spec.Replicas)
	case t.ReplicaSet != nil:
		return wanted(t.ReplicaSet.Spec.Replicas)
	case t.ReplicationController != nil:
		return wanted(t.ReplicationController.Spec.Replicas)
	case t.DaemonSet != nil && w.Restart.Spec.Scope != v1alpha1.ScopePod:
		return t.DaemonSet.Status.DesiredNumberScheduled
	case t.Job != nil:
		return wantedByJob(t.Job)
	}
	return 1
}

// controlled are the pods that the target's controller counts: not those on
// their way out, those taken from it, and copies.
func (w World) controlled() []corev1.Pod {
	return filterPods(w.Pods, func(p *corev1.Pod) bool {
		return p.DeletionTimestamp == nil && !w.handled(p)
	})
}

// handled tells whether this restart took the pod from its controller, or
// made it.
func (w World) handled(p *corev1.Pod) bool {
	uid := string(w.Restart.UID)
	return uid != "" && p.Labels[v1alpha1.LabelRestart] == uid
}

// capacity is how many controlled pods are Ready, with those that have to go
// counted as Ready.
func (w World) capacity(toGo func(*corev1.Pod) bool) int32 {
	return int32(len(filterPods(w.controlled(), func(p *corev1.Pod) bool { return ready(p) || toGo(p) })))
}

// whole tells whether as many pods are Ready as when the restart began, or as
// many as there have to be where that has become fewer. The pod in hand,
// which may be nil, counts as Ready as long as it was not touched.
func (w World) whole(inHand *corev1.Pod) bool {
	now := w.capacity(func(p *corev1.Pod) bool { return inHand != nil && p.UID == inHand.UID })
	return now >= min(w.wanted(), w.Restart.Status.Capacity)
}
