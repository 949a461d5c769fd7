package restart

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

// kubelet plays scheduler and kubelet of all nodes through the real API: it
// binds pods, makes them Ready, and deletes those that are to go. It is the
// agent's Layers as well: each of its pods has written podBytes.
type kubelet struct {
	cluster *cluster

	mu     sync.Mutex
	nodes  map[string][]string // by namespace
	held   map[string]bool     // namespaces in which no pod becomes Ready
	fails  map[string]bool     // namespaces in which none of today's restarts becomes Ready
	layers map[string]bool     // uids of pods whose layers are there

	addresses int // given to pods so far
}

const podBytes = 5 << 20

func startKubelet(t *testing.T, c *cluster) *kubelet {
	k := &kubelet{cluster: c, nodes: map[string][]string{}, held: map[string]bool{}, fails: map[string]bool{}, layers: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { k.run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return k
}

// register makes the nodes that a namespace's pods are put on.
func (k *kubelet) register(t *testing.T, namespace string, nodes ...string) {
	t.Helper()
	for _, name := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"story": namespace}}}
		k.cluster.Create(t, node)
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		if err := k.cluster.Admin.Status().Update(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nodes[namespace] = nodes
}

// hold keeps the pods of a namespace from becoming Ready, which stops a
// rollout in its middle.
func (k *kubelet) hold(namespace string, on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[namespace] = on
}

// fail keeps the pods that a restart made from becoming Ready, and no other:
// something is broken that those from before do not need. mend ends that.
func (k *kubelet) fail(namespace string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fails[namespace] = true
}

func (k *kubelet) mend(namespace string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.fails, namespace)
}

// broken tells whether a pod was made by a restart while those fail.
func (k *kubelet) broken(pod *corev1.Pod) bool {
	at, err := time.Parse(time.RFC3339, pod.Annotations[restartedAt])
	return k.fails[pod.Namespace] && err == nil && time.Since(at) < time.Hour
}

// PodBytes implements Layers.
func (k *kubelet) PodBytes(uid string) (int64, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.layers[uid] {
		return podBytes, true
	}
	return 0, false
}

func (k *kubelet) run(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var pods corev1.PodList
		if k.cluster.Admin.List(ctx, &pods) != nil {
			continue // the API server may be away; a kubelet goes on
		}
		for i := range pods.Items {
			k.tend(ctx, &pods.Items[i], pods.Items)
		}
	}
}

// tend does one thing to a pod. What fails is done at the next tick.
func (k *kubelet) tend(ctx context.Context, pod *corev1.Pod, all []corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case pod.DeletionTimestamp != nil && len(pod.Finalizers) > 0 && pod.Status.Phase != corev1.PodFailed:
		pod.Status.Phase = corev1.PodFailed // a Job counts it before it lets it go
		_ = k.cluster.Admin.Status().Update(ctx, pod)
	case pod.DeletionTimestamp != nil:
		if k.cluster.Admin.Delete(ctx, pod, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID}) == nil {
			delete(k.layers, string(pod.UID))
		}
	case pod.Spec.NodeName == "":
		node := k.place(pod, all)
		binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}}
		if k.cluster.Admin.SubResource("binding").Create(ctx, pod.DeepCopy(), binding) == nil {
			pod.Spec.NodeName = node
		}
	case !ready(pod) && !k.held[pod.Namespace] && !k.broken(pod):
		k.layers[string(pod.UID)] = true
		k.addresses++
		pod.Status = runningStatus(pod, fmt.Sprintf("10.1.%d.%d", k.addresses/250, k.addresses%250+1))
		_ = k.cluster.Admin.Status().Update(ctx, pod)
	}
}

// place is where a DaemonSet wants its pod, or the node with the fewest pods
// of the same owner, so that three replicas are always on both.
func (k *kubelet) place(pod *corev1.Pod, all []corev1.Pod) string {
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
	}
	owner := directOwner(pod).uid
	load := func(node string) int {
		return len(filterPods(all, func(p *corev1.Pod) bool { return p.Spec.NodeName == node && directOwner(p).uid == owner }))
	}
	return slices.MinFunc(k.nodes[pod.Namespace], func(a, b string) int {
		return load(a) - load(b) + avoided(pod, a) - avoided(pod, b)
	})
}

// avoided weighs a pod's wish for another node than this one.
func avoided(pod *corev1.Pod, node string) int {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil {
		return 0
	}
	for _, t := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		if ourWish(t) && t.Preference.MatchFields[0].Values[0] == node {
			return 1000
		}
	}
	return 0
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
