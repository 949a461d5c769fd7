package restart

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// ask writes a Restart as a person does, and gives its name.
func (s *stage) ask(t *testing.T, ns, apiVersion, kind, name string, change func(*v1alpha1.RestartSpec)) string {
	t.Helper()
	r := &v1alpha1.Restart{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: Name(kind, name)},
		Spec: v1alpha1.RestartSpec{
			Target: v1alpha1.TargetReference{APIVersion: apiVersion, Kind: kind, Name: name},
			Node:   s.nodeA, Deadline: &metav1.Duration{Duration: defaultDeadline},
		},
	}
	if change != nil {
		change(&r.Spec)
	}
	s.cluster.Create(t, r)
	return r.Name
}

func scopePod(p *corev1.Pod) func(*v1alpha1.RestartSpec) {
	return func(spec *v1alpha1.RestartSpec) {
		spec.Scope, spec.Pod, spec.PodUID = v1alpha1.ScopePod, p.Name, string(p.UID)
	}
}

// service sends to the pods of an app, headless so that the stories together
// need no range of addresses.
func (s *stage) service(t *testing.T, ns, app string) {
	t.Helper()
	s.cluster.Create(t, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: app},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: map[string]string{"app": app}, Ports: []corev1.ServicePort{{Port: 80}}},
	})
}

// endpoints are the uids of the pods that a Service sends to.
func endpointsOf(list []discoveryv1.EndpointSlice) map[types.UID]bool {
	found := map[types.UID]bool{}
	for i := range list {
		for _, e := range list[i].Endpoints {
			if e.TargetRef != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				found[e.TargetRef.UID] = true
			}
		}
	}
	return found
}

// fewest follows a Service's EndpointSlices by the API's own watch, from when
// it sends to n pods, and gives the fewest it ever sent to.
func (s *stage) fewest(t *testing.T, ns, service string, n int) (least func() int) {
	t.Helper()
	var list discoveryv1.EndpointSliceList
	of := []client.ListOption{client.InNamespace(ns), client.MatchingLabels{discoveryv1.LabelServiceName: service}}
	apiserver.Eventually(t, 60*time.Second, "the endpoints of "+service, func() bool {
		return s.cluster.Admin.List(t.Context(), &list, of...) == nil && len(endpointsOf(list.Items)) == n
	})
	watcher := s.watch(t, &list, of...)
	fewest, known := n, map[string]discoveryv1.EndpointSlice{}
	for _, slice := range list.Items {
		known[slice.Name] = slice
	}
	var done sync.WaitGroup
	done.Go(func() {
		for e := range watcher.ResultChan() {
			if slice, ok := e.Object.(*discoveryv1.EndpointSlice); ok {
				known[slice.Name] = *slice
				fewest = min(fewest, len(endpointsOf(slices.Collect(maps.Values(known)))))
			}
		}
	})
	return func() int {
		watcher.Stop()
		done.Wait()
		return fewest
	}
}

// watch follows what was listed from there on, so that nothing from before is
// told and nothing since is missed, whatever ends a watch in between.
func (s *stage) watch(t *testing.T, list client.ObjectList, of ...client.ListOption) watch.Interface {
	t.Helper()
	again := &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		into := list.DeepCopyObject().(client.ObjectList)
		return s.cluster.Admin.Watch(ctx, into, append(slices.Clone(of), &client.ListOptions{Raw: &o})...)
	}}
	watcher, err := watchtools.NewRetryWatcherWithContext(t.Context(), list.GetResourceVersion(), again)
	if err != nil {
		t.Fatal(err)
	}
	return watcher
}

func uids(pods []corev1.Pod) map[types.UID]string {
	found := map[types.UID]string{}
	for _, p := range pods {
		found[p.UID] = p.Name
	}
	return found
}

// kept are the pods that are there before and after.
func kept(before, after []corev1.Pod) int {
	old, n := uids(before), 0
	for _, p := range after {
		if _, ok := old[p.UID]; ok {
			n++
		}
	}
	return n
}

// wantNothingLeft fails where a pod still carries what a restart writes on it.
func (s *stage) wantNothingLeft(t *testing.T, ns string) {
	t.Helper()
	var list corev1.PodList
	if err := s.cluster.Admin.List(t.Context(), &list, client.InNamespace(ns)); err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if p.Annotations[v1alpha1.AnnotationLabelsTaken] != "" || (p.Labels[v1alpha1.LabelRestart] != "" && p.Annotations[v1alpha1.AnnotationCopied] == "") {
			t.Errorf("pod %s is left half done: labels %v, annotations %v", p.Name, p.Labels, p.Annotations)
		}
	}
}

const autoscaler = `{"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
"spec": {"minReplicas": 3, "maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}`

// storyOnePod replaces one pod of a Deployment: it serves until its next does,
// and nothing of the Deployment is written.
func storyOnePod(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	s.service(t, ns, "web")
	s.cluster.Kubectl("create", "-n", ns, "-f", s.cluster.Write(ns+".json", []byte(autoscaler)))
	least := s.fewest(t, ns, "web", 3)
	before, pod := s.pods(t, ns, "web"), s.podOn(t, ns, "web", s.nodeA)
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	name := s.ask(t, ns, "apps/v1", KindDeployment, "web", scopePod(pod))
	r := s.ended(t, ns, name)
	wantPhase(t, r, v1alpha1.PhaseSucceeded, "1 pod replaced", "freed on "+s.nodeA)
	if n := least(); n < 3 {
		t.Errorf("the Service sent to %d pods only", n)
	}
	after := s.pods(t, ns, "web")
	if len(after) != 3 || kept(before, after) != 2 || uids(after)[pod.UID] != "" {
		t.Errorf("pods before %v, after %v", uids(before), uids(after))
	}
	generation := d.Generation
	s.settle(t, d, func() bool { return d.Status.AvailableReplicas == 3 })
	if d.Generation != generation || s.replicaSets(t, ns, "web") != 1 {
		t.Errorf("the Deployment was changed: generation %d after %d, %d ReplicaSets", d.Generation, generation, s.replicaSets(t, ns, "web"))
	}
	s.wantNothingLeft(t, ns)
}

// storyOnePodStalled gives a released pod back when its next is never Ready.
func storyOnePodStalled(t *testing.T, s *stage, ns string) {
	s.deployment(t, ns, "web")
	s.service(t, ns, "web")
	least := s.fewest(t, ns, "web", 3)
	before, pod := s.pods(t, ns, "web"), s.podOn(t, ns, "web", s.nodeA)
	s.kubelet.Hold(ns, true)
	c := &clock{}
	a := s.agent(t, Options{Node: s.nodeA, Now: c.now})
	a.run(t)
	name := s.ask(t, ns, "apps/v1", KindDeployment, "web", scopePod(pod))
	s.stallsBeside(t, ns, "web", before, c)
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseStalled, "not Ready", "keep serving")
	s.asBefore(t, ns, "web", before)
	if n := least(); n < 3 {
		t.Errorf("the Service sent to %d pods only", n)
	}
	s.settle(t, pod, func() bool { return metav1.GetControllerOf(pod) != nil && pod.Labels["pod-template-hash"] != "" })
	s.wantNothingLeft(t, ns)
}

// storyOnePodOrphaned deletes the Deployment while one of its pods is released.
func storyOnePodOrphaned(t *testing.T, s *stage, ns string) {
	s.deployment(t, ns, "web")
	pod := s.podOn(t, ns, "web", s.nodeA)
	s.kubelet.Hold(ns, true)
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	name := s.ask(t, ns, "apps/v1", KindDeployment, "web", scopePod(pod))
	apiserver.Eventually(t, 60*time.Second, "the pod is released", func() bool {
		now := &corev1.Pod{}
		return s.cluster.Admin.Get(t.Context(), client.ObjectKeyFromObject(pod), now) == nil && metav1.GetControllerOf(now) == nil
	})
	if o := a.request(t, pod, v1alpha1.ReasonDiskFill); o.Kind != Joined {
		t.Errorf("the released pod's own offence: %+v, want it joined", o)
	}
	s.cluster.Kubectl("delete", "deployment", "-n", ns, "web", "--wait=false")
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseFailed, "deleted")
	apiserver.Eventually(t, 60*time.Second, "no pod is left", func() bool { return len(s.pods(t, ns, "web")) == 0 })
}

// statefulSet makes one of three and waits until it is Ready.
func (s *stage) statefulSet(t *testing.T, ns, name string, change func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	t.Helper()
	template := podTemplate()
	template.Labels = map[string]string{"app": name}
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       appsv1.StatefulSetSpec{Replicas: new(int32(3)), Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}
	change(set)
	s.cluster.Create(t, set)
	s.settle(t, set, func() bool { return set.Status.AvailableReplicas == wanted(set.Spec.Replicas) })
	return set
}

// storySetsByHand restarts StatefulSets whose controller would not, the
// highest ordinal first.
func storySetsByHand(t *testing.T, s *stage, ns string) {
	strategies := map[string]appsv1.StatefulSetUpdateStrategy{
		"ondelete":  {Type: appsv1.OnDeleteStatefulSetStrategyType},
		"partition": {RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(2))}},
	}
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	for name, strategy := range strategies {
		set := s.statefulSet(t, ns, name, func(set *appsv1.StatefulSet) { set.Spec.UpdateStrategy = strategy })
		before, generation := s.pods(t, ns, name), set.Generation
		gone := s.goneOrder(t, ns, name)
		r := s.ended(t, ns, s.ask(t, ns, "apps/v1", KindStatefulSet, name, nil))
		wantPhase(t, r, v1alpha1.PhaseSucceeded, "3 pods replaced")
		s.settle(t, set, func() bool { return set.Status.ReadyReplicas == 3 })
		if after := s.pods(t, ns, name); len(after) != 3 || kept(before, after) != 0 || set.Generation != generation {
			t.Errorf("%s: pods %v, then %v; generation %d, then %d", name, uids(before), uids(after), generation, set.Generation)
		}
		if order, want := gone(3), []string{name + "-2", name + "-1", name + "-0"}; !slices.Equal(order, want) {
			t.Errorf("pods went in the order %v, want %v", order, want)
		}
	}
}

// goneOrder follows the pods of an app and gives the names of those that were
// deleted, in order, once there are n.
func (s *stage) goneOrder(t *testing.T, ns, app string) (gone func(n int) []string) {
	t.Helper()
	var list corev1.PodList
	of := []client.ListOption{client.InNamespace(ns), client.MatchingLabels{"app": app}}
	if err := s.cluster.Admin.List(t.Context(), &list, of...); err != nil {
		t.Fatal(err)
	}
	watcher := s.watch(t, &list, of...)
	var names []string
	var mu sync.Mutex
	var done sync.WaitGroup
	done.Go(func() {
		for e := range watcher.ResultChan() {
			if pod, ok := e.Object.(*corev1.Pod); ok && e.Type == watch.Deleted {
				mu.Lock()
				names = append(names, pod.Name)
				mu.Unlock()
			}
		}
	})
	return func(n int) []string {
		apiserver.Eventually(t, time.Minute, fmt.Sprintf("the watch tells of the end of %d pods of %s", n, app), func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(names) >= n
		})
		watcher.Stop()
		done.Wait()
		return names
	}
}

func storySetPod(t *testing.T, s *stage, ns string) {
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	s.statefulSet(t, ns, "web", func(*appsv1.StatefulSet) {})
	before, pod := s.pods(t, ns, "web"), s.podOn(t, ns, "web", s.nodeA)
	r := s.ended(t, ns, s.ask(t, ns, "apps/v1", KindStatefulSet, "web", scopePod(pod)))
	wantPhase(t, r, v1alpha1.PhaseSucceeded, "1 pod replaced")
	if after := s.pods(t, ns, "web"); len(after) != 3 || kept(before, after) != 2 || uids(after)[pod.UID] != "" {
		t.Errorf("pods before %v, after %v", uids(before), uids(after))
	}

	s.statefulSet(t, ns, "one", func(set *appsv1.StatefulSet) { set.Spec.Replicas = new(int32(1)) })
	only := &s.pods(t, ns, "one")[0]
	name := s.ask(t, ns, "apps/v1", KindStatefulSet, "one", scopePod(only))
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseRefused, "one replica", "allowDowntime")
	r = s.restart(t, ns, name)
	r.Spec.AllowDowntime = true
	if err := s.cluster.Admin.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	wantPhase(t, s.until(t, ns, name, func(r *v1alpha1.Restart) bool { return !active(r) && len(r.Status.History) == 2 }), v1alpha1.PhaseSucceeded)
	if now := s.pods(t, ns, "one"); len(now) != 1 || now[0].UID == only.UID {
		t.Errorf("the only pod was %s and is %v", only.UID, uids(now))
	}
}

// storySetStuck has a StatefulSet hang on a new pod that never becomes Ready.
func storySetStuck(t *testing.T, s *stage, ns string) {
	s.statefulSet(t, ns, "web", func(*appsv1.StatefulSet) {})
	s.kubelet.Hold(ns, true)
	c := &clock{}
	a := s.agent(t, Options{Node: s.nodeA, Now: c.now})
	a.run(t)
	name := s.ask(t, ns, "apps/v1", KindStatefulSet, "web", nil)
	s.stalls(t, ns, "web", c)
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseStalled, "web-2", "deleted by hand (kubernetes #67250)")
	if now := s.pods(t, ns, "web"); len(filterPods(now, func(p *corev1.Pod) bool { return ready(p) })) != 2 {
		t.Errorf("more than one pod is down: %v", uids(now))
	}
}

func storyDaemonSetWhole(t *testing.T, s *stage, ns string) {
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	rolling := s.daemonSet(t, ns, "rolling")
	before := s.pods(t, ns, "rolling")
	wantPhase(t, s.ended(t, ns, s.ask(t, ns, "apps/v1", KindDaemonSet, "rolling", nil)), v1alpha1.PhaseSucceeded, "2 pods replaced")
	generation := rolling.Generation
	s.settle(t, rolling, func() bool { return rolloutDaemonSet(rolling).complete })
	if rolling.Generation != generation+1 || kept(before, s.pods(t, ns, "rolling")) != 0 {
		t.Errorf("generation %d after %d", rolling.Generation, generation)
	}

	byHand := s.daemonSet(t, ns, "by-hand")
	s.cluster.Kubectl("patch", "daemonset", "-n", ns, "by-hand", "--type=merge", `-p={"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}`)
	s.settle(t, byHand, func() bool { return byHand.Status.ObservedGeneration == byHand.Generation })
	before, generation = s.pods(t, ns, "by-hand"), byHand.Generation
	wantPhase(t, s.ended(t, ns, s.ask(t, ns, "apps/v1", KindDaemonSet, "by-hand", nil)), v1alpha1.PhaseSucceeded, "2 pods replaced")
	s.settle(t, byHand, func() bool { return byHand.Status.NumberAvailable == 2 })
	if byHand.Generation != generation || kept(before, s.pods(t, ns, "by-hand")) != 0 {
		t.Errorf("generation %d after %d", byHand.Generation, generation)
	}
}

// replicaSet makes one of three without owner.
func (s *stage) replicaSet(t *testing.T, ns, name string, labels map[string]string) *appsv1.ReplicaSet {
	t.Helper()
	template := podTemplate()
	template.Labels = labels
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       appsv1.ReplicaSetSpec{Replicas: new(int32(3)), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	}
	s.cluster.Create(t, set)
	s.settle(t, set, func() bool { return set.Status.AvailableReplicas == 3 })
	return set
}

func storyReplicaSets(t *testing.T, s *stage, ns string) {
	a := s.agent(t, Options{Node: s.nodeA})
	s.agent(t, Options{Node: s.nodeB}).run(t) // the pods of its node are its own to release
	a.run(t)
	// The selector has a label that the Service does not use: no dip.
	s.replicaSet(t, ns, "free", map[string]string{"app": "free", "tier": "front"})
	s.service(t, ns, "free")
	least, before := s.fewest(t, ns, "free", 3), s.pods(t, ns, "free")
	wantPhase(t, s.ended(t, ns, a.request(t, s.podOn(t, ns, "free", s.nodeA), v1alpha1.ReasonDiskFill).Restart), v1alpha1.PhaseSucceeded, "3 pods replaced")
	if n := least(); n < 3 {
		t.Errorf("the Service sent to %d pods only", n)
	}
	if after := s.pods(t, ns, "free"); len(after) != 3 || kept(before, after) != 0 {
		t.Errorf("pods before %v, after %v", uids(before), uids(after))
	}

	// Selector and Service are the same: one pod less serves.
	s.replicaSet(t, ns, "same", map[string]string{"app": "same"})
	s.service(t, ns, "same")
	least = s.fewest(t, ns, "same", 3)
	wantPhase(t, s.ended(t, ns, s.ask(t, ns, "apps/v1", KindReplicaSet, "same", nil)), v1alpha1.PhaseSucceeded, "3 pods replaced")
	if n := least(); n < 2 {
		t.Errorf("the Service sent to %d pods only", n)
	}

	template := podTemplate()
	template.Labels = map[string]string{"app": "old", "tier": "front"}
	rc := &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "old"},
		Spec:       corev1.ReplicationControllerSpec{Replicas: new(int32(2)), Selector: template.Labels, Template: &template},
	}
	s.cluster.Create(t, rc)
	s.settle(t, rc, func() bool { return rc.Status.AvailableReplicas == 2 })
	s.service(t, ns, "old")
	least, before = s.fewest(t, ns, "old", 2), s.pods(t, ns, "old")
	o := a.request(t, s.podOn(t, ns, "old", s.nodeA), v1alpha1.ReasonDiskFill)
	wantPhase(t, s.ended(t, ns, o.Restart), v1alpha1.PhaseSucceeded, "2 pods replaced")
	if n := least(); n < 2 || o.Restart != "replicationcontroller-old" {
		t.Errorf("%s: the Service sent to %d pods only", o.Restart, n)
	}
	if after := s.pods(t, ns, "old"); len(after) != 2 || kept(before, after) != 0 {
		t.Errorf("pods before %v, after %v", uids(before), uids(after))
	}
	s.wantNothingLeft(t, ns)
}

// barePod makes a pod without owner and waits until it is Ready.
func (s *stage) barePod(t *testing.T, ns, name string) *corev1.Pod {
	t.Helper()
	return s.barePodOn(t, ns, name, "")
}

// barePodOn makes it on a node; an empty one is the scheduler's choice.
func (s *stage) barePodOn(t *testing.T, ns, name, node string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": name}, Annotations: map[string]string{"team": "shop"}},
		Spec:       podTemplate().Spec,
	}
	pod.Spec.NodeName = node
	s.cluster.Create(t, pod)
	s.settle(t, pod, func() bool { return ready(pod) })
	return pod
}

// storyBarePod replaces a pod that nobody would start again.
func storyBarePod(t *testing.T, s *stage, ns string) {
	pod := s.barePod(t, ns, "web")
	s.service(t, ns, "web")
	least := s.fewest(t, ns, "web", 1)
	a := s.agent(t, Options{Node: pod.Spec.NodeName})
	a.run(t)
	o := a.request(t, pod, v1alpha1.ReasonDiskFill)
	r := s.ended(t, ns, o.Restart)
	wantPhase(t, r, v1alpha1.PhaseSucceeded, "1 pod replaced", "5.0Mi freed on "+pod.Spec.NodeName)
	if n := least(); n < 1 {
		t.Error("the Service sent to nobody for a while")
	}
	now := s.pods(t, ns, "web")
	if len(now) != 1 || now[0].UID == pod.UID {
		t.Fatalf("pods %v", uids(now))
	}
	next := &now[0]
	if !strings.HasPrefix(next.Name, "web-") || next.Annotations["team"] != "shop" || next.Spec.NodeName == pod.Spec.NodeName {
		t.Errorf("the copy is %s on %s with %v", next.Name, next.Spec.NodeName, next.Annotations)
	}
	if !slices.ContainsFunc(r.OwnerReferences, func(ref metav1.OwnerReference) bool { return ref.UID == next.UID }) {
		t.Errorf("the Restart's owners are %+v", r.OwnerReferences)
	}
	if again := a.request(t, next, v1alpha1.ReasonDiskFill); again.Kind != CoolingDown {
		t.Errorf("the copy's own offence: %+v", again)
	}
	apiserver.Eventually(t, time.Minute, "the old pod's Events tell of it", func() bool {
		return slices.Contains(s.events(t, ns, "Pod", "web"), EventSucceeded)
	})
	s.wantNothingLeft(t, ns)
}

// storyBarePodStalled takes a copy away that never becomes Ready.
func storyBarePodStalled(t *testing.T, s *stage, ns string) {
	pod := s.barePod(t, ns, "web")
	s.service(t, ns, "web")
	least := s.fewest(t, ns, "web", 1)
	s.kubelet.Hold(ns, true)
	c := &clock{}
	a := s.agent(t, Options{Node: pod.Spec.NodeName, Now: c.now})
	a.run(t)
	name := a.request(t, pod, v1alpha1.ReasonDiskFill).Restart
	s.stallsBeside(t, ns, "web", []corev1.Pod{*pod}, c)
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseStalled, "not Ready")
	s.asBefore(t, ns, "web", []corev1.Pod{*pod})
	if n := least(); n < 1 {
		t.Error("the Service sent to nobody for a while")
	}
	s.wantNothingLeft(t, ns)
}

// storyKilledPods ends the controller dead at each boundary of the methods
// that go pod by pod.
func storyKilledPods(t *testing.T, s *stage, ns string) {
	type play struct {
		pods int // at the end, as in the beginning
		ask  asking
	}
	plays := map[string]func(t *testing.T, name string) play{
		"release": func(t *testing.T, name string) play {
			s.deployment(t, ns, name)
			s.service(t, ns, name)
			return play{3, func(t *testing.T, _ *agent) string {
				return s.ask(t, ns, "apps/v1", KindDeployment, name, scopePod(s.podOn(t, ns, name, s.nodeA)))
			}}
		},
		// The pod is another node's: its agent takes the Restart over.
		"hand": func(t *testing.T, name string) play {
			s.deployment(t, ns, name)
			s.service(t, ns, name)
			return play{3, func(t *testing.T, _ *agent) string {
				return s.ask(t, ns, "apps/v1", KindDeployment, name, scopePod(s.podOn(t, ns, name, s.nodeB)))
			}}
		},
		"copy": func(t *testing.T, name string) play {
			pod := s.barePodOn(t, ns, name, s.nodeA)
			s.service(t, ns, name)
			return play{1, func(t *testing.T, a *agent) string { return a.request(t, pod, v1alpha1.ReasonDiskFill).Restart }}
		},
		"evict": func(t *testing.T, name string) play {
			s.statefulSet(t, ns, name, func(set *appsv1.StatefulSet) {
				set.Spec.UpdateStrategy.Type, set.Spec.Replicas = appsv1.OnDeleteStatefulSetStrategyType, new(int32(2))
			})
			return play{2, func(t *testing.T, _ *agent) string { return s.ask(t, ns, "apps/v1", KindStatefulSet, name, nil) }}
		},
	}
	for kind, prepare := range plays {
		moments := s.moments(t, ns, stopped(), prepare(t, kind+"-scout").ask)
		if len(moments) < 10 {
			t.Fatalf("only these step boundaries: %v", moments)
		}
		s.cluster.boundaries.add(s.name, moments...)
		for i, moment := range moments {
			t.Run(fmt.Sprintf("%s %02d %s", kind, i, moment), func(t *testing.T) {
				t.Parallel()
				name := fmt.Sprintf("%s-%d", kind, i)
				p := prepare(t, name)
				s.killedAt(t, ns, boundary{i, moment}, p.ask)
				if now := s.pods(t, ns, name); len(now) != p.pods {
					t.Errorf("%d pods, want %d: %v", len(now), p.pods, uids(now))
				}
			})
		}
	}
}

// storyKilledStalling ends the controller dead at each boundary of restarts
// that come to nothing: what was there before is there afterwards.
func storyKilledStalling(t *testing.T, s *stage, ns string) {
	short := &metav1.Duration{Duration: 5 * time.Second}
	plays := map[string]func(t *testing.T, name string) asking{
		"release": func(t *testing.T, name string) asking {
			s.deployment(t, ns, name)
			return func(t *testing.T, _ *agent) string {
				return s.ask(t, ns, "apps/v1", KindDeployment, name, func(spec *v1alpha1.RestartSpec) {
					scopePod(s.podOn(t, ns, name, s.nodeA))(spec)
					spec.Deadline = short
				})
			}
		},
		"copy": func(t *testing.T, name string) asking {
			s.barePodOn(t, ns, name, s.nodeA)
			return func(t *testing.T, _ *agent) string {
				return s.ask(t, ns, "v1", KindPod, name, func(spec *v1alpha1.RestartSpec) { spec.Deadline = short })
			}
		},
		"rollback": func(t *testing.T, name string) asking {
			s.deployment(t, ns, name)
			return func(t *testing.T, _ *agent) string {
				return s.ask(t, ns, "apps/v1", KindDeployment, name, func(spec *v1alpha1.RestartSpec) {
					spec.Deadline, spec.OnStall = short, v1alpha1.OnStallRollback
				})
			}
		},
	}
	const most = 20 // boundaries; one more than there are is none
	asks, before := map[string]asking{}, map[string][]corev1.Pod{}
	for kind, prepare := range plays {
		for i := range most {
			name := fmt.Sprintf("%s-%d", kind, i)
			asks[name] = prepare(t, name)
			before[name] = s.pods(t, ns, name)
		}
	}
	s.kubelet.Hold(ns, true)
	late := func(t *testing.T, name string) *clock { return s.late(t, ns, name, before[name], short.Duration) }
	for kind := range plays {
		moments := s.moments(t, ns, late(t, kind+"-0"), asks[kind+"-0"])
		if len(moments) < 10 || len(moments) >= most {
			t.Fatalf("%d step boundaries: %v", len(moments), moments)
		}
		s.cluster.boundaries.add(s.name, moments[:len(moments)-1]...)
		for i, moment := range moments[:len(moments)-1] {
			t.Run(fmt.Sprintf("%s %02d %s", kind, i, moment), func(t *testing.T) {
				t.Parallel()
				name := fmt.Sprintf("%s-%d", kind, i+1)
				wantPhase(t, s.takenUpAgain(t, ns, boundary{i, moment}, late(t, name), asks[name]), v1alpha1.PhaseStalled, "Not complete after 5s")
				s.asBefore(t, ns, name, before[name])
			})
		}
	}
}
