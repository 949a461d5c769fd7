package apiserver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Kubelet plays scheduler and kubelet of all nodes through the real API: it
// binds pods, makes them Ready, and deletes those that are to go.
type Kubelet struct {
	client client.WithWatch
	nodes  []string

	mu        sync.Mutex
	held      map[string]bool // namespaces in which no pod becomes Ready
	addresses int
}

// StartKubelet makes the nodes and tends their pods until the test ends.
func StartKubelet(t *testing.T, c *Cluster, nodes ...string) *Kubelet {
	t.Helper()
	k := &Kubelet{client: c.Admin, nodes: nodes, held: map[string]bool{}}
	for _, name := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		c.Create(t, node)
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		if err := k.client.Status().Update(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { k.run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return k
}

// Hold keeps the pods of a namespace from becoming Ready.
func (k *Kubelet) Hold(namespace string, on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[namespace] = on
}

func (k *Kubelet) run(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var pods corev1.PodList
		if k.client.List(ctx, &pods) != nil {
			continue // the API server may be away; a kubelet goes on
		}
		for i := range pods.Items {
			k.tend(ctx, &pods.Items[i], pods.Items)
		}
	}
}

// tend does one thing to a pod. What fails is done at the next tick.
func (k *Kubelet) tend(ctx context.Context, pod *corev1.Pod, all []corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case pod.DeletionTimestamp != nil:
		_ = k.client.Delete(ctx, pod, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID})
	case pod.Spec.NodeName == "":
		node := k.place(pod, all)
		binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}}
		if k.client.SubResource("binding").Create(ctx, pod.DeepCopy(), binding) == nil {
			pod.Spec.NodeName = node
		}
	case !Ready(pod) && !k.held[pod.Namespace]:
		k.addresses++
		pod.Status = runningStatus(pod, fmt.Sprintf("10.1.%d.%d", k.addresses/250, k.addresses%250+1))
		_ = k.client.Status().Update(ctx, pod)
	}
}

// place is where a DaemonSet wants its pod, or the node with the fewest pods
// of the same namespace.
func (k *Kubelet) place(pod *corev1.Pod, all []corev1.Pod) string {
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
	}
	load := map[string]int{}
	for i := range all {
		if all[i].Namespace == pod.Namespace {
			load[all[i].Spec.NodeName]++
		}
	}
	return slices.MinFunc(k.nodes, func(a, b string) int { return load[a] - load[b] })
}

// Ready tells whether a pod is.
func Ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func runningStatus(pod *corev1.Pod, address string) corev1.PodStatus {
	now := metav1.Now()
	status := corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}}
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	for _, c := range pod.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	return status
}
