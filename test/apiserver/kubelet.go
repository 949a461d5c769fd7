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
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// Kubelet plays scheduler and kubelet of all nodes through the real API: it
// binds pods, makes them Ready, and deletes those that are to go. It tells what
// they write as well: each has written PodBytes.
type Kubelet struct {
	cluster *Cluster
	moved   chan struct{} // of size 1: there may be something to do

	mu     sync.Mutex
	nodes  map[string][]string // by namespace; "": of those that have none of their own
	held   map[string]bool     // namespaces in which no pod becomes Ready
	fails  map[string]bool     // namespaces in which none of today's restarts becomes Ready
	layers map[string]bool     // uids of pods whose layers are there

	addresses int // given to pods so far
}

// PodBytes is what the writable layers of each pod hold.
const PodBytes = 5 << 20

// StartKubelet makes the nodes of all namespaces that have none of their own, and
// tends pods until the test ends.
func StartKubelet(t *testing.T, c *Cluster, nodes ...string) *Kubelet {
	t.Helper()
	k := &Kubelet{cluster: c, moved: make(chan struct{}, 1), nodes: map[string][]string{}, held: map[string]bool{}, fails: map[string]bool{}, layers: map[string]bool{}}
	k.Register(t, "", nodes...)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { k.watch(ctx) })
	done.Go(func() { k.run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return k
}

// Register makes the nodes that a namespace's pods are put on. Their label "story"
// is the namespace.
func (k *Kubelet) Register(t *testing.T, namespace string, nodes ...string) {
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

// Hold keeps the pods of a namespace from becoming Ready, which stops a rollout
// in its middle.
func (k *Kubelet) Hold(namespace string, on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[namespace] = on
	k.move()
}

// Fail keeps the pods that a restart made from becoming Ready, and no other:
// something is broken that those from before do not need. Mend ends that.
func (k *Kubelet) Fail(namespace string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fails[namespace] = true
}

// Mend ends what Fail began.
func (k *Kubelet) Mend(namespace string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.fails, namespace)
	k.move()
}

// broken tells whether a pod was made by a restart while those fail.
func (k *Kubelet) broken(pod *corev1.Pod) bool {
	at, err := time.Parse(time.RFC3339, pod.Annotations["kubectl.kubernetes.io/restartedAt"])
	return k.fails[pod.Namespace] && err == nil && time.Since(at) < time.Hour
}

// PodBytes is what the layers of a pod hold; false when they are gone.
func (k *Kubelet) PodBytes(uid string) (int64, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.layers[uid] {
		return PodBytes, true
	}
	return 0, false
}

func (k *Kubelet) move() {
	select {
	case k.moved <- struct{}{}:
	default:
	}
}

// watch tells run that some pod has changed, and now and then that it might have.
func (k *Kubelet) watch(ctx context.Context) {
	for ctx.Err() == nil {
		k.move()
		w, err := k.cluster.Admin.Watch(ctx, &corev1.PodList{})
		if err != nil {
			// The API server may be away; a kubelet goes on.
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		for range w.ResultChan() {
			k.move()
		}
	}
}

func (k *Kubelet) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.moved:
		}
		var pods corev1.PodList
		if err := k.cluster.Admin.List(ctx, &pods); err != nil {
			k.move()
		}
		for i := range pods.Items {
			k.tend(ctx, &pods.Items[i], pods.Items)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond): // as a real one takes its time
		}
	}
}

// tend does one thing to a pod. What fails is done at the next look.
func (k *Kubelet) tend(ctx context.Context, pod *corev1.Pod, all []corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	switch {
	case pod.DeletionTimestamp != nil && len(pod.Finalizers) > 0 && pod.Status.Phase != corev1.PodFailed:
		pod.Status.Phase = corev1.PodFailed // a Job counts it before it lets it go
		err = k.cluster.Admin.Status().Update(ctx, pod)
	case pod.DeletionTimestamp != nil:
		if err = k.cluster.Admin.Delete(ctx, pod, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID}); err == nil {
			delete(k.layers, string(pod.UID))
		}
	case pod.Spec.NodeName == "":
		node := k.place(pod, all)
		binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}}
		if err = k.cluster.Admin.SubResource("binding").Create(ctx, pod.DeepCopy(), binding); err == nil {
			pod.Spec.NodeName = node
		}
	case !cluster.Ready(pod) && !k.held[pod.Namespace] && !k.broken(pod):
		k.layers[string(pod.UID)] = true
		k.addresses++
		pod.Status = runningStatus(pod, fmt.Sprintf("10.1.%d.%d", k.addresses/250, k.addresses%250+1))
		err = k.cluster.Admin.Status().Update(ctx, pod)
	}
	if err != nil {
		k.move()
	}
}

// place is where a DaemonSet wants its pod, or the node with the fewest pods
// of the same owner, so that three replicas are always on both of two nodes.
func (k *Kubelet) place(pod *corev1.Pod, all []corev1.Pod) string {
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
	}
	load := map[string]int{}
	for i := range all {
		if all[i].Namespace == pod.Namespace && ownerOf(&all[i]) == ownerOf(pod) {
			load[all[i].Spec.NodeName]++
		}
	}
	nodes := k.nodes[pod.Namespace]
	if nodes == nil {
		nodes = k.nodes[""]
	}
	return slices.MinFunc(nodes, func(a, b string) int {
		return load[a] - load[b] + avoided(pod, a) - avoided(pod, b)
	})
}

func ownerOf(pod *corev1.Pod) types.UID {
	if o := metav1.GetControllerOf(pod); o != nil {
		return o.UID
	}
	return ""
}

// avoided weighs a pod's wish for another node than this one.
func avoided(pod *corev1.Pod, node string) int {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil {
		return 0
	}
	for _, t := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		for _, f := range t.Preference.MatchFields {
			if f.Operator == corev1.NodeSelectorOpNotIn && slices.Contains(f.Values, node) {
				return 1000
			}
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
