package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/disk"
)

const byUID = "uid"

// nodePods knows what the API says of this node's pods and containerd does
// not: their ephemeral-storage limits. It costs the API server one watch, and
// while the API is away the last answer holds.
type nodePods struct {
	informer cache.SharedIndexInformer
}

// newNodePods follows the pods that are bound to node.
func newNodePods(c client.WithWatch, node string) (*nodePods, error) {
	onNode := client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("spec.nodeName", node)}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &corev1.PodList{}
			return list, c.List(ctx, list, &client.ListOptions{Raw: &o}, onNode)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.Watch(ctx, &corev1.PodList{}, &client.ListOptions{Raw: &o}, onNode)
		},
	}
	informer := cache.NewSharedIndexInformer(lw, &corev1.Pod{}, 0, cache.Indexers{byUID: podUID})
	if err := informer.SetTransform(onlyLimits); err != nil {
		return nil, err
	}
	return &nodePods{informer: informer}, nil
}

func podUID(obj any) ([]string, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, nil
	}
	return []string{string(pod.UID)}, nil
}

// onlyLimits drops what is not asked for here, which is most of a pod.
func onlyLimits(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	slim := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}}
	for _, c := range pod.Spec.Containers {
		if limit, ok := c.Resources.Limits[corev1.ResourceEphemeralStorage]; ok {
			slim.Spec.Containers = append(slim.Spec.Containers, corev1.Container{Name: c.Name, Resources: corev1.ResourceRequirements{
				Limits: corev1.ResourceList{corev1.ResourceEphemeralStorage: limit},
			}})
		}
	}
	return slim, nil
}

// run follows the pods until ctx ends.
func (p *nodePods) run(ctx context.Context) error {
	p.informer.RunWithContext(ctx)
	return nil
}

// Limits returns a pod's ephemeral-storage limits. The pod's own is the sum of
// its containers', as the kubelet counts it: containers without a limit add
// nothing to the limit, but what they write counts against it.
func (p *nodePods) Limits(uid string) disk.Limits {
	pods, err := p.informer.GetIndexer().ByIndex(byUID, uid)
	if err != nil || len(pods) == 0 {
		return disk.Limits{}
	}
	limits := disk.Limits{Containers: map[string]int64{}}
	for _, c := range pods[0].(*corev1.Pod).Spec.Containers {
		n := c.Resources.Limits.StorageEphemeral().Value()
		limits.Containers[c.Name] = n
		limits.Pod += n
	}
	return limits
}
