package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// nodePods knows what the API says of this node's pods and containerd does
// not: their ephemeral-storage limits. It costs the API server one watch, and
// while the API is away the last answer holds.
type nodePods struct {
	informer cache.Controller
	store    cache.Store
}

// newNodePods follows the pods that are bound to node.
func newNodePods(c client.WithWatch, node string) *nodePods {
	onNode := fields.OneTermEqualSelector("spec.nodeName", node)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &corev1.PodList{}
			return list, c.List(ctx, list, &client.ListOptions{FieldSelector: onNode, Raw: &o})
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.Watch(ctx, &corev1.PodList{}, &client.ListOptions{FieldSelector: onNode, Raw: &o})
		},
	}
	p := &nodePods{}
	p.store, p.informer = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw,
		ObjectType:    &corev1.Pod{},
		Handler:       cache.ResourceEventHandlerFuncs{},
		Transform:     onlyLimits,
		Indexers:      cache.Indexers{},
	})
	return p
}

// run follows the pods until ctx ends.
func (p *nodePods) run(ctx context.Context) error {
	p.informer.RunWithContext(ctx)
	return nil
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
		slim.Spec.Containers = append(slim.Spec.Containers, corev1.Container{Name: c.Name, Resources: onlyEphemeral(c.Resources)})
	}
	return slim, nil
}

func onlyEphemeral(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	limit, ok := r.Limits[corev1.ResourceEphemeralStorage]
	if !ok {
		return corev1.ResourceRequirements{}
	}
	return corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}}
}

// find returns the pod with this name and uid, or false: a namesake that came
// later is another pod.
func (p *nodePods) find(namespace, name, uid string) (*corev1.Pod, bool) {
	obj, ok, err := p.store.GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil, false
	}
	pod, ok := obj.(*corev1.Pod)
	return pod, ok && string(pod.UID) == uid
}

// synced says whether the pods were listed once.
func (p *nodePods) synced() error {
	if !p.informer.HasSynced() {
		return fmt.Errorf("this node's pods were not yet listed")
	}
	return nil
}
