package restart

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Target is the workload that is restarted. Exactly one field is set.
type Target struct {
	Deployment            *appsv1.Deployment
	StatefulSet           *appsv1.StatefulSet
	DaemonSet             *appsv1.DaemonSet
	ReplicaSet            *appsv1.ReplicaSet
	ReplicationController *corev1.ReplicationController
	Job                   *batchv1.Job
	Pod                   *corev1.Pod
	Other                 *Other
}

// newTarget is an empty one to read the target into; nil where the kind is
// none of ours.
func newTarget(t v1alpha1.TargetReference) *Target {
	switch t.APIVersion + " " + t.Kind {
	case "apps/v1 Deployment":
		return &Target{Deployment: &appsv1.Deployment{}}
	case "apps/v1 StatefulSet":
		return &Target{StatefulSet: &appsv1.StatefulSet{}}
	case "apps/v1 DaemonSet":
		return &Target{DaemonSet: &appsv1.DaemonSet{}}
	case "apps/v1 ReplicaSet":
		return &Target{ReplicaSet: &appsv1.ReplicaSet{}}
	case "v1 ReplicationController":
		return &Target{ReplicationController: &corev1.ReplicationController{}}
	case "batch/v1 Job":
		return &Target{Job: &batchv1.Job{}}
	case "v1 Pod":
		return &Target{Pod: &corev1.Pod{}}
	}
	if other := newOther(t); other != nil {
		return &Target{Other: other}
	}
	return nil
}

func (t *Target) object() client.Object {
	switch {
	case t.Deployment != nil:
		return t.Deployment
	case t.StatefulSet != nil:
		return t.StatefulSet
	case t.DaemonSet != nil:
		return t.DaemonSet
	case t.ReplicaSet != nil:
		return t.ReplicaSet
	case t.ReplicationController != nil:
		return t.ReplicationController
	case t.Job != nil:
		return t.Job
	case t.Pod != nil:
		return t.Pod
	}
	return t.Other.object
}

// template is what the target's pods are made of; a pod's is the pod itself.
func (t *Target) template() corev1.PodTemplateSpec {
	switch {
	case t.Deployment != nil:
		return t.Deployment.Spec.Template
	case t.StatefulSet != nil:
		return t.StatefulSet.Spec.Template
	case t.DaemonSet != nil:
		return t.DaemonSet.Spec.Template
	case t.ReplicaSet != nil:
		return t.ReplicaSet.Spec.Template
	case t.ReplicationController != nil && t.ReplicationController.Spec.Template != nil:
		return *t.ReplicationController.Spec.Template
	case t.Job != nil:
		return t.Job.Spec.Template
	case t.Pod != nil:
		return corev1.PodTemplateSpec{ObjectMeta: t.Pod.ObjectMeta, Spec: t.Pod.Spec}
	case t.Other != nil:
		return t.Other.template()
	}
	return corev1.PodTemplateSpec{}
}

// selector is what finds the target's pods; nil for a pod.
func (t *Target) selector() *metav1.LabelSelector {
	switch {
	case t.Deployment != nil:
		return t.Deployment.Spec.Selector
	case t.StatefulSet != nil:
		return t.StatefulSet.Spec.Selector
	case t.DaemonSet != nil:
		return t.DaemonSet.Spec.Selector
	case t.ReplicaSet != nil:
		return t.ReplicaSet.Spec.Selector
	case t.ReplicationController != nil:
		return &metav1.LabelSelector{MatchLabels: t.ReplicationController.Spec.Selector}
	case t.Job != nil:
		return t.Job.Spec.Selector
	case t.Other != nil:
		return t.Other.selector()
	}
	return nil
}

// observed tells whether the target's controller has seen its last change.
func (t *Target) observed() bool {
	seen := t.object().GetGeneration()
	switch {
	case t.Deployment != nil:
		seen = t.Deployment.Status.ObservedGeneration
	case t.StatefulSet != nil:
		seen = t.StatefulSet.Status.ObservedGeneration
	case t.DaemonSet != nil:
		seen = t.DaemonSet.Status.ObservedGeneration
	case t.ReplicaSet != nil:
		seen = t.ReplicaSet.Status.ObservedGeneration
	case t.ReplicationController != nil:
		seen = t.ReplicationController.Status.ObservedGeneration
	}
	return seen >= t.object().GetGeneration()
}

func (t *Target) uid() types.UID { return t.object().GetUID() }
