package main

import (
	"cmp"
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/ports"
	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

const byUID = "uid"

// nodePods knows what the API says of this node's pods and containerd does
// not: their ephemeral-storage limits and the host's ports that they have. It costs the API server one watch, and
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
	slim.Status.Phase = pod.Status.Phase
	return slim, nil
}

func withLimit(containers []corev1.Container) []corev1.Container {
	var slim []corev1.Container
	for _, c := range containers {
		kept := corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy, Ports: hostPortsOf(c)}
		limit, limited := c.Resources.Limits[corev1.ResourceEphemeralStorage]
		if limited {
			kept.Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
		}
		if limited || len(kept.Ports) > 0 {
			slim = append(slim, kept)
		}
	}
	return slim
}

func hostPortsOf(c corev1.Container) []corev1.ContainerPort {
	var held []corev1.ContainerPort
	for _, p := range c.Ports {
		if p.HostPort != 0 {
			held = append(held, corev1.ContainerPort{HostPort: p.HostPort, Protocol: p.Protocol})
		}
	}
	return held
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

// hostPorts are the host's ports that this node's pods have a right to, until
// they have ended. The API server writes a hostPort for every port
// of a pod in the host's network.
func (p *nodePods) hostPorts() []ports.Claim {
	var claims []ports.Claim
	for _, o := range p.informer.GetStore().List() {
		pod, ok := o.(*corev1.Pod)
		if !ok || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, c := range append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...) {
			for _, q := range c.Ports {
				claims = append(claims, ports.Claim{
					Port: ports.Port{Number: q.HostPort, Protocol: cmp.Or(v1alpha1.Protocol(q.Protocol), v1alpha1.ProtocolTCP)},
					By:   "pod " + pod.Namespace + "/" + pod.Name,
				})
			}
		}
	}
	return claims
}

// nameOf names a pod by its uid; empty where it is not known.
func (p *nodePods) nameOf(uid string) string {
	pods, err := p.informer.GetIndexer().ByIndex(byUID, uid)
	if err != nil || len(pods) == 0 {
		return ""
	}
	pod, ok := pods[0].(*corev1.Pod)
	if !ok {
		return ""
	}
	return pod.Namespace + "/" + pod.Name
}
