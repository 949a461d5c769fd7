package restart

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// The kinds of workload that are dealt with by name.
const (
	KindPod         = "Pod"
	KindDeployment  = "Deployment"
	KindReplicaSet  = "ReplicaSet"
	KindStatefulSet = "StatefulSet"
	KindDaemonSet   = "DaemonSet"
	KindJob         = "Job"
	KindCronJob     = "CronJob"

	KindReplicationController = "ReplicationController"
)

// owner is the workload that a pod belongs to: what a restart has to be asked
// of. Whether it can be restarted is not said by it.
type owner struct {
	target v1alpha1.TargetReference
	uid    string
}

// scope is how much of the owner one bad pod is a reason to replace. A
// DaemonSet's pods are bound to their nodes: the others have no part in it.
func (o owner) scope() v1alpha1.Scope {
	if o.target.Kind == KindDaemonSet && o.target.APIVersion == appsv1.SchemeGroupVersion.String() {
		return v1alpha1.ScopePod
	}
	return v1alpha1.ScopeWorkload
}

// reference makes the owner own its Restart, so that the Restart goes with it.
// It does not block the owner's deletion.
func (o owner) reference() metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: o.target.APIVersion, Kind: o.target.Kind, Name: o.target.Name, UID: uidOf(o.uid),
	}
}

// findOwner goes from a pod up to its workload: Pod, ReplicaSet, Deployment;
// Pod, ReplicationController, DeploymentConfig.
func findOwner(ctx context.Context, c client.Reader, pod *corev1.Pod) (owner, error) {
	direct := directOwner(pod)
	var set client.Object
	switch {
	case isReplicaSet(direct.target):
		set = &appsv1.ReplicaSet{}
	case direct.target.APIVersion == "v1" && direct.target.Kind == KindReplicationController:
		set = &corev1.ReplicationController{}
	default:
		return direct, nil
	}
	key := client.ObjectKey{Namespace: pod.Namespace, Name: direct.target.Name}
	if err := c.Get(ctx, key, set); err != nil {
		return owner{}, fmt.Errorf("cannot read the %s %s of pod %s: %w", direct.target.Kind, key, pod.Name, err)
	}
	return ownerOfSet(direct, set), nil
}

// directOwner is the pod's controller, or the pod itself where it has none. A
// static pod's controller is its Node; it too stands for itself.
func directOwner(pod *corev1.Pod) owner {
	ref := metav1.GetControllerOf(pod)
	if ref == nil || static(pod) {
		return owner{
			target: v1alpha1.TargetReference{APIVersion: "v1", Kind: KindPod, Name: pod.Name},
			uid:    string(pod.UID),
		}
	}
	return ownerFrom(ref)
}

// ownerOfSet is what stands above a ReplicaSet or ReplicationController, or
// that itself.
func ownerOfSet(direct owner, set client.Object) owner {
	if ref := metav1.GetControllerOf(set); ref != nil {
		return ownerFrom(ref)
	}
	return direct
}

func ownerFrom(ref *metav1.OwnerReference) owner {
	return owner{
		target: v1alpha1.TargetReference{APIVersion: ref.APIVersion, Kind: ref.Kind, Name: ref.Name},
		uid:    string(ref.UID),
	}
}

func isReplicaSet(t v1alpha1.TargetReference) bool {
	return t.Kind == KindReplicaSet && t.APIVersion == appsv1.SchemeGroupVersion.String()
}

// NodeUID is the uid by which a pod's own node knows it, the kubelet and
// containerd. A static pod's is made of its file, and its mirror in the API
// has one of its own.
func NodeUID(pod *corev1.Pod) string {
	if static(pod) {
		return pod.Annotations[corev1.MirrorPodAnnotationKey]
	}
	return string(pod.UID)
}

// static tells whether the kubelet runs this pod from a file: the API shows
// only its mirror, and deleting that changes nothing.
func static(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror
}
