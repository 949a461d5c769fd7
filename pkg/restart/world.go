package restart

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// World is all that one step is decided from, read at one moment. It is never
// changed after it was read.
type World struct {
	Now     time.Time
	Node    string // this agent's
	Restart *v1alpha1.Restart
	Target  *Target      // nil: it is not there
	Pods    []corev1.Pod // the target's, terminating ones too; of a DaemonSet those on spec.node
	// ReplicaSets are a Deployment's, old and new.
	ReplicaSets []appsv1.ReplicaSet
	// Claims are the PersistentVolumeClaims the pod template names, by name.
	Claims map[string]corev1.PersistentVolumeClaim
	// Written is what is known of the old pods' layers on this node, by uid.
	Written map[string]Written
	// Trouble is the last step's error, while it is being tried again.
	Trouble string
}

// Written is what a pod's containers have written.
type Written struct {
	Bytes int64 // when last known
	Held  bool  // it is still there
}

// Target is the workload that is restarted. Exactly one field is set.
type Target struct {
	Deployment  *appsv1.Deployment
	StatefulSet *appsv1.StatefulSet
	DaemonSet   *appsv1.DaemonSet
}

func (t *Target) object() client.Object {
	switch {
	case t.Deployment != nil:
		return t.Deployment
	case t.StatefulSet != nil:
		return t.StatefulSet
	}
	return t.DaemonSet
}

func (t *Target) template() corev1.PodTemplateSpec {
	switch {
	case t.Deployment != nil:
		return t.Deployment.Spec.Template
	case t.StatefulSet != nil:
		return t.StatefulSet.Spec.Template
	}
	return t.DaemonSet.Spec.Template
}

func (t *Target) selector() *metav1.LabelSelector {
	switch {
	case t.Deployment != nil:
		return t.Deployment.Spec.Selector
	case t.StatefulSet != nil:
		return t.StatefulSet.Spec.Selector
	}
	return t.DaemonSet.Spec.Selector
}

func (t *Target) uid() types.UID { return t.object().GetUID() }

// oldPods are the pods that were there when the restart began and still are.
func (w World) oldPods() []corev1.Pod {
	old := map[string]bool{}
	for _, p := range w.Restart.Status.OldPods {
		old[p.UID] = true
	}
	return filterPods(w.Pods, func(p *corev1.Pod) bool { return old[string(p.UID)] })
}

// newPods are the pods that came since.
func (w World) newPods() []corev1.Pod {
	old := map[string]bool{}
	for _, p := range w.Restart.Status.OldPods {
		old[p.UID] = true
	}
	return filterPods(w.Pods, func(p *corev1.Pod) bool { return !old[string(p.UID)] && p.DeletionTimestamp == nil })
}

func filterPods(pods []corev1.Pod, keep func(*corev1.Pod) bool) []corev1.Pod {
	var kept []corev1.Pod
	for i := range pods {
		if keep(&pods[i]) {
			kept = append(kept, pods[i])
		}
	}
	return kept
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// overdue tells whether the deadline is over, counted from the start.
func (w World) overdue() bool {
	started := w.Restart.Status.Started
	return started != nil && !w.Now.Before(started.Add(deadline(w.Restart)))
}

func deadline(r *v1alpha1.Restart) time.Duration {
	if d := r.Spec.Deadline; d != nil && d.Duration > 0 {
		return d.Duration
	}
	return defaultDeadline
}
