package main

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

const byUID = "uid"

// nodePods knows what the API says of this node's pods and containerd does
// not: their ephemeral-storage limits. It costs the API server one watch, and
// while the API is away the last answer holds.
type nodePods struct {
	informer cache.SharedIndexInformer
}

// newNodePods follows the pods that are bound to node, and tells each time
// whether the API server answered.
func newNodePods(c client.WithWatch, node string, reached func(bool)) (*nodePods, error) {
	onNode := client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("spec.nodeName", node)}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &corev1.PodList{}
			err := c.List(ctx, list, &client.ListOptions{Raw: &o}, onNode)
			reached(err == nil)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := c.Watch(ctx, &corev1.PodList{}, &client.ListOptions{Raw: &o}, onNode)
			reached(err == nil)
			return w, err
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
		Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(restart.NodeUID(pod)), ResourceVersion: pod.ResourceVersion,
	}}
	slim.Spec.Containers = withLimit(pod.Spec.Containers)
	slim.Spec.InitContainers = withLimit(pod.Spec.InitContainers)
	return slim, nil
}

func withLimit(containers []corev1.Container) []corev1.Container {
	var slim []corev1.Container
	for _, c := range containers {
		if limit, ok := c.Resources.Limits[corev1.ResourceEphemeralStorage]; ok {
			slim = append(slim, corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy, Resources: corev1.ResourceRequirements{
				Limits: corev1.ResourceList{corev1.ResourceEphemeralStorage: limit},
			}})
		}
	}
	return slim
}

// run follows the pods until ctx ends.
func (p *nodePods) run(ctx context.Context) error {
	p.informer.RunWithContext(ctx)
	return nil
}

// synced says whether the pods were listed once.
func (p *nodePods) synced() error {
	if !p.informer.HasSynced() {
		return errors.New("this node's pods were not yet listed")
	}
	return nil
}

// Limits returns a pod's ephemeral-storage limits.
func (p *nodePods) Limits(uid string) disk.Limits {
	pods, err := p.informer.GetIndexer().ByIndex(byUID, uid)
	if err != nil || len(pods) == 0 {
		return disk.Limits{}
	}
	return limitsOf(pods[0].(*corev1.Pod).Spec)
}

// limitsOf counts as the kubelet does before it evicts. The pod's own limit is
// the sum of its containers' and sidecars', or what an init container needs
// beside the sidecars started before it, if that is more. A container without
// a limit adds nothing, but what it writes counts against the pod's.
func limitsOf(spec corev1.PodSpec) disk.Limits {
	limits := disk.Limits{Containers: map[string]int64{}}
	for _, c := range spec.Containers {
		n := c.Resources.Limits.StorageEphemeral().Value()
		limits.Containers[c.Name] = n
		limits.Pod += n
	}
	var sidecars, most int64
	for _, c := range spec.InitContainers {
		n := c.Resources.Limits.StorageEphemeral().Value()
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars += n
			n = 0
		}
		most = max(most, sidecars+n)
	}
	limits.Pod = max(limits.Pod+sidecars, most)
	return limits
}
