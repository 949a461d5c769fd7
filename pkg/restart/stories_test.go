package restart

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

func storyDeployment(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	old := s.pods(t, ns, "web")
	a := s.agent(t, Options{Node: s.nodeA})
	stop := a.run(t)
	pod := s.podOn(t, ns, "web", s.nodeA)
	if o := a.request(t, pod, v1alpha1.ReasonDiskFill); o.Kind != Created || o.Restart != "deployment-web" {
		t.Fatalf("outcome %+v", o)
	}
	r := s.ended(t, ns, "deployment-web")
	wantPhase(t, r, v1alpha1.PhaseSucceeded, "3 pods replaced", "freed on "+s.nodeA)
	for kind, name := range map[string]string{"Restart": r.Name, "Deployment": "web"} {
		s.wantEvents(t, ns, kind, name, EventStarted, EventSucceeded)
	}
	s.wantEvents(t, ns, "Pod", pod.Name, "DiskFill", EventStarted, EventSucceeded)
	stop()
	s.wantOneRollout(t, d)
	for _, p := range s.pods(t, ns, "web") {
		if slices.ContainsFunc(old, func(o corev1.Pod) bool { return o.UID == p.UID }) {
			t.Errorf("pod %s is still an old one", p.Name)
		}
	}
	onA := filterPods(old, func(p *corev1.Pod) bool { return p.Spec.NodeName == s.nodeA })
	if want := int64(len(onA)) * apiserver.PodBytes; r.Status.FreedBytes != want || r.Status.Freed != formatBytes(want) {
		t.Errorf("freed %d (%s), want %d", r.Status.FreedBytes, r.Status.Freed, want)
	}
	if len(r.Status.ReplacedPods) != 3 || len(r.Status.History) != 1 || len(r.OwnerReferences) != 1 || r.OwnerReferences[0].UID != d.UID {
		t.Errorf("status %+v, owners %+v", r.Status, r.OwnerReferences)
	}
	if got := testutil.ToFloat64(a.controller.metrics.ended.WithLabelValues("Deployment", "DiskFill", "Succeeded")); got != 1 {
		t.Errorf("nodeagent_restarts_total is %v, want 1", got)
	}
	a = s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	s.again(t, a, ns)
}

// again asks for a second restart: an agent has to wait, a person has not.
func (s *stage) again(t *testing.T, a *agent, ns string) {
	pod := s.podOn(t, ns, "web", s.nodeA)
	if o := a.request(t, pod, v1alpha1.ReasonDiskFill); o.Kind != CoolingDown || time.Until(o.Until) < 50*time.Minute {
		t.Fatalf("outcome %+v, want a cooldown of about an hour", o)
	}
	if o := a.request(t, pod, v1alpha1.ReasonManual); o.Kind != Renewed {
		t.Fatalf("outcome %+v, want Renewed", o)
	}
	r := s.ended(t, ns, "deployment-web")
	wantPhase(t, r, v1alpha1.PhaseSucceeded)
	if h := r.Status.History; len(h) != 2 || h[0].Reason != v1alpha1.ReasonManual || h[1].Reason != v1alpha1.ReasonDiskFill {
		t.Errorf("history %+v", h)
	}
}

func storyStatefulSet(t *testing.T, s *stage, ns string) {
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
		Spec:       appsv1.StatefulSetSpec{Replicas: new(int32(3)), Selector: selector(), Template: podTemplate()},
	}
	s.cluster.Create(t, set)
	s.settle(t, set, func() bool { return rolloutStatefulSet(set).complete })
	before := set.Generation
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
	r := s.ended(t, ns, "statefulset-web")
	wantPhase(t, r, v1alpha1.PhaseSucceeded, "3 pods replaced", "freed")
	s.settle(t, set, func() bool { return true })
	if set.Generation != before+1 || set.Status.UpdatedReplicas != 3 || set.Status.ReadyReplicas != 3 {
		t.Errorf("generation %d after %d, status %+v", set.Generation, before, set.Status)
	}
}

// daemonSet is one on the story's own two nodes.
func (s *stage) daemonSet(t *testing.T, ns, name string) *appsv1.DaemonSet {
	t.Helper()
	template := podTemplate()
	template.Labels = map[string]string{"app": name}
	template.Spec.NodeSelector = map[string]string{"story": ns}
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}
	s.cluster.Create(t, set)
	s.settle(t, set, func() bool { return set.Status.NumberAvailable == 2 })
	return set
}

func storyDaemonSet(t *testing.T, s *stage, ns string) {
	set := s.daemonSet(t, ns, "web")
	onA, onB := s.podOn(t, ns, "web", s.nodeA), s.podOn(t, ns, "web", s.nodeB)
	a, b := s.agent(t, Options{Node: s.nodeA}), s.agent(t, Options{Node: s.nodeB})
	a.run(t)
	b.run(t)
	a.request(t, onA, v1alpha1.ReasonDiskFill)
	r := s.ended(t, ns, "daemonset-web")
	wantPhase(t, r, v1alpha1.PhaseSucceeded, "1 pod replaced", "5.0Mi freed on "+s.nodeA)
	if now := s.podOn(t, ns, "web", s.nodeA); now.UID == onA.UID || !ready(now) {
		t.Errorf("pod on node-a: %s, ready %v", now.Name, ready(now))
	}
	if now := s.podOn(t, ns, "web", s.nodeB); now.UID != onB.UID {
		t.Error("the pod on node-b was replaced too")
	}
	generation, before := set.Generation, set.ResourceVersion
	s.settle(t, set, func() bool { return set.ResourceVersion != before && set.Status.NumberAvailable == 2 }) // again
	if set.Generation != generation {
		t.Error("the DaemonSet's spec was changed")
	}
	if o := a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill); o.Kind != CoolingDown {
		t.Errorf("on node-a: %+v, want a cooldown", o)
	}
	if o := b.request(t, onB, v1alpha1.ReasonDiskFill); o.Kind != Renewed {
		t.Errorf("on node-b: %+v, want Renewed", o)
	}
	wantPhase(t, s.ended(t, ns, "daemonset-web"), v1alpha1.PhaseSucceeded, "freed on "+s.nodeB)
}

func storyRefused(t *testing.T, s *stage, ns string) {
	a := s.agent(t, Options{Node: s.nodeA, ExcludedNamespaces: []string{"elsewhere"}})
	a.run(t)
	s.deployment(t, ns, "web")
	s.cluster.Kubectl("rollout", "pause", "-n", ns, "deployment/web")
	pod := s.podOn(t, ns, "web", s.nodeA)
	a.request(t, pod, v1alpha1.ReasonDiskFill)
	wantPhase(t, s.ended(t, ns, "deployment-web"), v1alpha1.PhaseRefused, "The Deployment is paused.")
	if s.replicaSets(t, ns, "web") != 1 {
		t.Error("a refused restart rolled out")
	}
	o := a.request(t, pod, v1alpha1.ReasonDiskFill)
	if left := time.Until(o.Until); o.Kind != CoolingDown || left > 10*time.Minute || left < 9*time.Minute {
		t.Errorf("after a refusal: %+v", o)
	}

	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "bare"}, Spec: podTemplate().Spec}
	bare.Spec.RestartPolicy = corev1.RestartPolicyNever
	s.cluster.Create(t, bare)
	a.request(t, bare, v1alpha1.ReasonDiskFill)
	wantPhase(t, s.ended(t, ns, "pod-bare"), v1alpha1.PhaseRefused, "restartPolicy is Never")
	s.wantEvents(t, ns, "Pod", "bare", "DiskFill", EventRefused)

	observer := s.agent(t, Options{Node: s.nodeB, Mode: ModeObserve})
	observer.run(t)
	s.deployment(t, ns, "seen")
	seen := s.podOn(t, ns, "seen", s.nodeB)
	observer.request(t, seen, v1alpha1.ReasonDiskFill)
	wantPhase(t, s.ended(t, ns, "deployment-seen"), v1alpha1.PhaseObserved, "restart.mode is observe", "It replaces 3 pods of deployment/seen by its own rollout, which frees")
	if o := observer.request(t, seen, v1alpha1.ReasonDiskFill); o.Kind != CoolingDown { // it is told once
		t.Errorf("outcome %+v, want CoolingDown", o)
	}
	s.wantEvents(t, ns, "Pod", seen.Name, "DiskFill", EventObserved)
	if s.replicaSets(t, ns, "seen") != 1 {
		t.Error("what was observed was restarted")
	}
}

// storyRace lets two agents ask at the same moment, fifty times for a first
// Restart and fifty times for the renewal of an ended one.
func storyRace(t *testing.T, s *stage, ns string) {
	s.deployment(t, ns, "web")
	agents := []*agent{s.agent(t, Options{Node: s.nodeA}), s.agent(t, Options{Node: s.nodeB})}
	pods := []*corev1.Pod{s.podOn(t, ns, "web", s.nodeA), s.podOn(t, ns, "web", s.nodeB)}
	for round := range 50 {
		for _, want := range []OutcomeKind{Created, Renewed} {
			outcomes := make([]OutcomeKind, len(agents))
			var both sync.WaitGroup
			for i, a := range agents {
				both.Go(func() { outcomes[i] = a.request(t, pods[i], v1alpha1.ReasonDiskFill).Kind })
			}
			both.Wait()
			slices.Sort(outcomes)
			if expected := []OutcomeKind{want, Joined}; !equalSets(outcomes, expected) {
				t.Fatalf("round %d: outcomes %v, want %v", round, outcomes, expected)
			}
			s.endByHand(t, ns, "deployment-web")
		}
		if err := s.cluster.Admin.Delete(t.Context(), s.restart(t, ns, "deployment-web")); err != nil {
			t.Fatal(err)
		}
	}
}

func equalSets[T ~string](a, b []T) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// endByHand ends a Restart as if it had ended two hours ago.
func (s *stage) endByHand(t *testing.T, ns, name string) {
	t.Helper()
	r := s.restart(t, ns, name)
	long := metav1.NewTime(time.Now().Add(-2 * time.Hour))
	r.Status.ObservedGeneration, r.Status.Phase = r.Generation, v1alpha1.PhaseSucceeded
	r.Status.Started, r.Status.Finished = &long, &long
	r.Status.History = remember(nil, r.Spec, r.Status)
	if err := s.cluster.Admin.Status().Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// storyKilled ends the controller dead before and after each of its writes;
// the one after it has to finish that restart and begin none.
func storyKilled(t *testing.T, s *stage, ns string) {
	kinds := map[string]func(t *testing.T, name string) (unchanged func(t *testing.T)){
		KindDeployment: func(t *testing.T, name string) func(*testing.T) {
			d := s.deployment(t, ns, name)
			return func(t *testing.T) { s.wantOneRollout(t, d) }
		},
		KindDaemonSet: func(t *testing.T, name string) func(*testing.T) {
			s.daemonSet(t, ns, name)
			other := s.podOn(t, ns, name, s.nodeB).UID
			return func(t *testing.T) {
				if s.podOn(t, ns, name, s.nodeB).UID != other {
					t.Error("the pod of another node was replaced")
				}
			}
		},
	}
	for kind, prepare := range kinds {
		prefix := strings.ToLower(kind) + "-"
		prepare(t, prefix+"scout")
		moments := s.moments(t, ns, stopped(), s.requesting(ns, prefix+"scout"))
		if len(moments) < 8 {
			t.Fatalf("only these step boundaries: %v", moments)
		}
		s.cluster.boundaries.add(s.name, moments...)
		for i, moment := range moments {
			t.Run(fmt.Sprintf("%s %02d %s", kind, i, moment), func(t *testing.T) {
				t.Parallel()
				name := fmt.Sprintf("%s%d", prefix, i)
				unchanged := prepare(t, name)
				s.killedAt(t, ns, boundary{i, moment}, s.requesting(ns, name))
				unchanged(t)
			})
		}
	}
}

// requesting asks for a restart as an agent does, for a pod of an app.
func (s *stage) requesting(ns, app string) asking {
	return func(t *testing.T, a *agent) string {
		return a.request(t, s.podOn(t, ns, app, s.nodeA), v1alpha1.ReasonDiskFill).Restart
	}
}

// asking asks for a restart and gives its name.
type asking func(*testing.T, *agent) string

// killedAt stops a first controller at one boundary and runs a second.
func (s *stage) killedAt(t *testing.T, ns string, at boundary, ask asking) {
	t.Helper()
	r := s.takenUpAgain(t, ns, at, stopped(), ask)
	wantPhase(t, r, v1alpha1.PhaseSucceeded, "replaced in", "freed")
}

// takenUpAgain gives the Restart after the second controller.
func (s *stage) takenUpAgain(t *testing.T, ns string, at boundary, c *clock, ask asking) *v1alpha1.Restart {
	t.Helper()
	name := s.killAt(t, ns, at, c, ask)
	second := s.agent(t, Options{Node: s.nodeA, Now: c.now})
	if err := s.runOnly(t, second, ns, name); err != nil {
		t.Fatal(err)
	}
	r := s.restart(t, ns, name)
	if len(r.Status.History) != 1 {
		t.Errorf("history %+v, want one restart", r.Status.History)
	}
	return r
}

// runOnly carries out one Restart. These stories run side by side on one node,
// so a whole controller would take up those of the others.
func (s *stage) runOnly(t *testing.T, a *agent, ns, name string) error {
	key := client.ObjectKey{Namespace: ns, Name: name}
	for {
		if err := a.controller.carryOut(t.Context(), key); err != nil {
			return err
		}
		var r v1alpha1.Restart
		err := s.cluster.Admin.Get(t.Context(), key, &r)
		if err != nil || !active(&r) || r.Status.Holder == "" || r.Status.Holder == a.controller.options.Node {
			return client.IgnoreNotFound(err)
		}
		next := s.agent(t, Options{Node: r.Status.Holder, Mode: a.controller.options.Mode, Now: a.controller.options.Now})
		next.controller.boundary = a.controller.boundary
		a = next
	}
}

// moments plays a restart through and writes down its step boundaries. They
// are the same each time: a step that is tried again, since somebody else wrote
// first, counts once, and by a clock that stands the holder never has to say
// that it is alive.
func (s *stage) moments(t *testing.T, ns string, c *clock, ask asking) []string {
	t.Helper()
	a := s.agent(t, Options{Node: s.nodeA, Now: c.now})
	var moments []string
	a.controller.boundary = func(moment string) error {
		if len(moments) == 0 || moments[len(moments)-1] != moment {
			moments = append(moments, moment)
		}
		return nil
	}
	if err := s.runOnly(t, a, ns, ask(t, a)); err != nil {
		t.Fatal(err)
	}
	return moments
}

func storyStalled(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	s.kubelet.Hold(ns, true)
	c := &clock{}
	a := s.agent(t, Options{Node: s.nodeA, Now: c.now})
	a.run(t)
	a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
	s.stalls(t, ns, "web", c)
	r := s.ended(t, ns, "deployment-web")
	wantPhase(t, r, v1alpha1.PhaseStalled, "Not complete after 10m0s.", "not Ready", "keep serving")
	s.settle(t, d, func() bool { return true })
	if d.Status.AvailableReplicas < 3 {
		t.Errorf("%d old pods serve, want 3", d.Status.AvailableReplicas)
	}
	s.wantEvents(t, ns, "Deployment", "web", EventStalled, EventStarted)
}

// runningMidway brings a restart to its middle, where no new pod is Ready.
func (s *stage) runningMidway(t *testing.T, ns string) (*agent, *v1alpha1.Restart) {
	t.Helper()
	s.deployment(t, ns, "web")
	s.kubelet.Hold(ns, true)
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
	return a, s.until(t, ns, "deployment-web", func(r *v1alpha1.Restart) bool {
		return r.Status.Phase == v1alpha1.PhaseRunning && s.replicaSets(t, ns, "web") == 2
	})
}

func storyTargetDeleted(t *testing.T, s *stage, ns string) {
	_, r := s.runningMidway(t, ns)
	// Without its owner reference the Restart outlives the Deployment, as one
	// that a person made does.
	s.cluster.Kubectl("patch", "restart", "-n", ns, r.Name, "--type=json", `-p=[{"op":"remove","path":"/metadata/ownerReferences"}]`)
	s.cluster.Kubectl("delete", "deployment", "-n", ns, "web", "--wait=false")
	wantPhase(t, s.ended(t, ns, r.Name), v1alpha1.PhaseFailed, "deployment/web")

	s.kubelet.Hold(ns, false)
	s.deployment(t, ns, "other")
	a := s.agent(t, Options{Node: s.nodeB})
	a.request(t, s.podOn(t, ns, "other", s.nodeB), v1alpha1.ReasonDiskFill)
	s.cluster.Kubectl("delete", "deployment", "-n", ns, "other")
	apiserver.Eventually(t, 60*time.Second, "the Restart goes with its owner", func() bool {
		err := s.cluster.Admin.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "deployment-other"}, &v1alpha1.Restart{})
		return apierrors.IsNotFound(err)
	})
}

func storyTemplateChanged(t *testing.T, s *stage, ns string) {
	_, r := s.runningMidway(t, ns)
	s.cluster.Kubectl("set", "image", "-n", ns, "deployment/web", "web=web:2")
	wantPhase(t, s.ended(t, ns, r.Name), v1alpha1.PhaseFailed, "Somebody else changed the pod template of deployment/web")
}

func storyReverted(t *testing.T, s *stage, ns string) {
	_, r := s.runningMidway(t, ns)
	s.cluster.Kubectl("patch", "deployment", "-n", ns, "web", "--type=merge",
		`-p={"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":null}}}}}`)
	wantPhase(t, s.ended(t, ns, r.Name), v1alpha1.PhaseFailed, "took the restart's annotation out")
}

// storyConflicts has others write the Restart and the Deployment all the time.
func storyConflicts(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	a := s.agent(t, Options{Node: s.nodeA})
	a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
	conflicts := 0
	a.controller.boundary = func(moment string) error {
		if !strings.HasPrefix(moment, "before") || conflicts >= 12 {
			return nil
		}
		if conflicts++; conflicts%3 == 0 { // else it would never get through
			return nil
		}
		s.label(t, &v1alpha1.Restart{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "deployment-web"}}, conflicts)
		s.label(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}}, conflicts)
		return nil
	}
	stop := a.run(t)
	wantPhase(t, s.ended(t, ns, "deployment-web"), v1alpha1.PhaseSucceeded)
	stop()
	s.wantOneRollout(t, d)
	if conflicts < 6 {
		t.Errorf("only %d conflicts were made", conflicts)
	}
}

// label writes what changes an object's resourceVersion and nothing else: an
// annotation would raise a Deployment's generation too.
func (s *stage) label(t *testing.T, o client.Object, n int) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]string{"noise": fmt.Sprint(n)}}})
	if err != nil {
		t.Error(err)
	}
	if err := s.cluster.Admin.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, patch)); err != nil {
		t.Error(err)
	}
}

// storyFences is what the API server itself refuses, by the CRD's rules.
func storyFences(t *testing.T, s *stage, ns string) {
	valid := func() *v1alpha1.Restart {
		return &v1alpha1.Restart{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "deployment-web"},
			Spec:       v1alpha1.RestartSpec{Target: v1alpha1.TargetReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}},
		}
	}
	refused := func(what, words string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", what, err, words)
		}
	}
	misnamed := valid()
	misnamed.Name = "web"
	refused("a wrong name", "its name is the lock", s.cluster.Admin.Create(t.Context(), misnamed))
	podless := valid()
	podless.Spec.Scope = v1alpha1.ScopePod
	refused("scope Pod without a pod", "needs the pod's name", s.cluster.Admin.Create(t.Context(), podless))

	r := valid()
	s.cluster.Create(t, r)
	r.Spec.Target.APIVersion = "apps/v2"
	refused("another target", "target cannot be changed", s.cluster.Admin.Update(t.Context(), r))

	r = s.restart(t, ns, "deployment-web")
	r.Status.Phase = v1alpha1.PhaseRunning
	if err := s.cluster.Admin.Status().Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	r.Spec.AllowDowntime = true
	refused("a change while it runs", "being carried out", s.cluster.Admin.Update(t.Context(), r))
	r.Status.Phase = v1alpha1.PhaseFailed
	if err := s.cluster.Admin.Status().Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	r.Spec.AllowDowntime = true
	if err := s.cluster.Admin.Update(t.Context(), r); err != nil {
		t.Errorf("a change after the end: %v", err)
	}
}

// storyTwoAgents is a Deployment that leaks on both nodes.
func storyTwoAgents(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	agents := []*agent{s.agent(t, Options{Node: s.nodeA}), s.agent(t, Options{Node: s.nodeB})}
	pods := []*corev1.Pod{s.podOn(t, ns, "web", s.nodeA), s.podOn(t, ns, "web", s.nodeB)}
	var both sync.WaitGroup
	for i, a := range agents {
		a.run(t)
		both.Go(func() {
			for range 20 { // each agent's verdict stands until the pod is gone
				a.request(t, pods[i], v1alpha1.ReasonDiskFill)
			}
		})
	}
	both.Wait()
	wantPhase(t, s.ended(t, ns, "deployment-web"), v1alpha1.PhaseSucceeded)
	s.wantOneRollout(t, d)
}

func storyBudget(t *testing.T, s *stage, ns string) {
	s.daemonSet(t, ns, "web")
	s.cluster.Kubectl("create", "poddisruptionbudget", "-n", ns, "web", "--selector=app=web", "--max-unavailable=0")
	c := &clock{}
	a := s.agent(t, Options{Node: s.nodeA, Now: c.now})
	a.run(t)
	pod := s.podOn(t, ns, "web", s.nodeA)
	a.request(t, pod, v1alpha1.ReasonDiskFill)
	apiserver.Eventually(t, 60*time.Second, "an eviction was tried", func() bool {
		return testutil.ToFloat64(a.controller.metrics.errors.WithLabelValues(string(Evict))) > 0
	})
	c.forward(defaultDeadline)
	wantPhase(t, s.ended(t, ns, "daemonset-web"), v1alpha1.PhaseStalled, "disruption budget")
	if now := s.podOn(t, ns, "web", s.nodeA); now.UID != pod.UID {
		t.Error("the pod went against its budget")
	}
}

// storyAbandoned: what a person asked for, for no node, is taken up by the
// leader, and an offence of the same workload joins it.
func storyAbandoned(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	wish := &v1alpha1.Restart{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "deployment-web"},
		Spec: v1alpha1.RestartSpec{
			Target: v1alpha1.TargetReference{APIVersion: "apps/v1", Kind: KindDeployment, Name: "web"}, AllowDowntime: true,
		},
	}
	s.cluster.Create(t, wish)
	a := s.agent(t, Options{Node: s.nodeA})
	if o := a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill); o.Kind != Joined {
		t.Fatalf("outcome %+v, want Joined", o)
	}
	a.run(t)
	r := s.ended(t, ns, "deployment-web")
	wantPhase(t, r, v1alpha1.PhaseSucceeded)
	if !r.Spec.AllowDowntime || r.Status.Holder != s.nodeA || len(r.Status.History) != 1 {
		t.Errorf("spec %+v, history %+v", r.Spec, r.Status.History)
	}
	s.wantOneRollout(t, d)
}

// storyLongNames: the longest name of a pod leaves no room for its kind in the
// name of its Restart, nor for a hash in that of its Events.
func storyLongNames(t *testing.T, s *stage, ns string) {
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	name := strings.Repeat("a", maxName)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: podTemplate().Spec}
	s.cluster.Create(t, pod)
	o := a.request(t, pod, v1alpha1.ReasonDiskFill)
	wantPhase(t, s.ended(t, ns, o.Restart), v1alpha1.PhaseSucceeded, "1 pod replaced")
	s.wantEvents(t, ns, "Pod", name, "DiskFill", EventStarted, EventSucceeded)
}

func storyAPIRestart(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	s.kubelet.Hold(ns, true)
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
	s.until(t, ns, "deployment-web", func(r *v1alpha1.Restart) bool { return r.Status.Phase == v1alpha1.PhaseRunning })
	s.cluster.KillAPI()
	s.kubelet.Hold(ns, false)
	s.cluster.StartAPI()
	wantPhase(t, s.ended(t, ns, "deployment-web"), v1alpha1.PhaseSucceeded, "3 pods replaced")
	s.wantOneRollout(t, d)
}
