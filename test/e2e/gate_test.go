package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// Where a namespace asks for approval a leak leads to a Restart that waits and
// says how to approve it. Nothing is touched before a person did just that.
func TestApproval(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	s.annotateNamespace("approve")
	s.create(cluster.Deployment(s.namespace, "web", 2))
	old := s.untilReady("web", 2)
	seen := s.leak(&old[0])
	waiting, err := cluster.UntilPhase(s.ctx, seen, v1alpha1.PhaseApproval)
	s.must(err)
	s.replaced(old, s.untilReady("web", 2))
	out, err := s.Kubectl(s.ctx, "-n", s.namespace, "get", "restarts")
	s.must(err)
	if !strings.Contains(out, "Approval") {
		t.Errorf("kubectl get restarts does not show that it waits:\n%s", out)
	}
	_, command, found := strings.Cut(waiting.Restart.Status.Message, "Waits for approval: kubectl ")
	if !found {
		t.Fatalf("it does not say how to approve it: %q", waiting.Restart.Status.Message)
	}
	command, _, _ = strings.Cut(command, " It replaces")
	_, err = s.Kubectl(s.ctx, strings.Fields(command)...)
	s.must(err)
	s.succeeded(seen, old)
}

// A workload that is only observed is told what would have been done; one that
// is never to be restarted is refused. Neither is touched.
func TestObserveAndNever(t *testing.T) {
	t.Parallel()
	for mode, phase := range map[string]v1alpha1.Phase{"observe": v1alpha1.PhaseObserved, "never": v1alpha1.PhaseRefused} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newStory(t)
			web := cluster.Deployment(s.namespace, "web", 2)
			web.Annotations = map[string]string{v1alpha1.AnnotationRestart: mode}
			s.create(web)
			old := s.untilReady("web", 2)
			r := s.ended(s.leak(&old[0]), phase)
			if mode == "observe" && !strings.Contains(r.Status.Message, "It replaces 2 pods of deployment/web") {
				t.Errorf("it does not say what would have been done: %q", r.Status.Message)
			}
			s.replaced(old, s.untilReady("web", 2))
			s.described("pod/"+old[0].Name, "DiskFill", cluster.LeakFile, "Restart"+string(phase))
			sets, err := s.ReplicaSets(s.ctx, s.namespace, "web")
			s.must(err)
			if len(sets) != 1 {
				t.Errorf("%d ReplicaSets, want the one", len(sets))
			}
		})
	}
}

// While all is paused nothing begins, also after the agents were killed; it goes
// on when the pause is over.
func TestPause(t *testing.T) {
	s := newStory(t)
	s.create(cluster.Deployment(s.namespace, "web", 2))
	old := s.untilReady("web", 2)
	s.pause("the network is being rebuilt")
	t.Cleanup(s.resume)
	seen := s.leak(&old[0])
	waits, err := cluster.UntilPhase(s.ctx, seen, v1alpha1.PhasePending)
	s.must(err)
	if !strings.Contains(waits.Restart.Status.Message, "the network is being rebuilt") {
		t.Errorf("it waits with %q, which does not say why", waits.Restart.Status.Message)
	}
	s.killAgent(old[0].Spec.NodeName)
	s.agentsReady()
	s.replaced(old, s.untilReady("web", 2))
	s.resume()
	s.succeeded(seen, old)
}

func (s *story) pause(why string) {
	s.t.Helper()
	_, err := s.Kubectl(s.ctx, "-n", cluster.Namespace, "annotate", "--overwrite", "lease", "restart-slots", v1alpha1.AnnotationPaused+"="+why)
	s.must(err)
}

func (s *story) resume() {
	s.t.Helper()
	if _, err := s.Kubectl(context.WithoutCancel(s.ctx), "-n", cluster.Namespace, "annotate", "lease", "restart-slots", v1alpha1.AnnotationPaused+"-"); err != nil {
		s.t.Error(err)
	}
}

// With two slots for the whole cluster and one for each namespace people's
// restarts wait for each other. Outside all windows a slow leak waits. One that
// fills the disk within the time said to be urgent waits for the hourly budget
// alone, which holds after its agent was killed and does not hold people up.
func TestSlotsWindowsBudget(t *testing.T) {
	s := newStory(t)
	const bounds = `restart:
  limits: {cluster: 2, namespace: 1, hourly: %d}
  windows: [{start: "0 0 29 2 *", duration: 1m}]
  urgent: 10m
`
	s.begunWithinTheHour()
	s.configure(fmt.Sprintf(bounds, 1))
	s.create(cluster.Deployment(s.namespace, "slow", 1), cluster.Deployment(s.namespace, "web", 2))
	slow, old := s.untilReady("slow", 1), s.untilReady("web", 2)
	s.seenQuiet(&slow[0])
	s.must(s.Leak(s.ctx, &slow[0], "5Mi")) // full after some 20 minutes
	s.slotsOfAllAndOfEach()
	s.waitsFor("slow", "window")
	s.must(s.EndLeak(s.ctx, &slow[0]))

	s.leakIn(&old[0]) // full after some 5 minutes
	s.waitsFor("web", "of 1 restarts were begun within the hour")
	s.must(s.EndLeak(s.ctx, &old[0]))
	s.killAgent(old[0].Spec.NodeName)
	s.agentsReady()
	people := s.beside()
	people.create(cluster.Deployment(people.namespace, "web", 1))
	people.untilReady("web", 1)
	people.ended(people.person(cluster.Deployment(people.namespace, "web", 1), "apps/v1", "Deployment", nil), v1alpha1.PhaseSucceeded)
	s.waitsFor("web", "of 1 restarts were begun within the hour")
	s.replaced(old, s.untilReady("web", 2))

	s.configure(fmt.Sprintf(bounds, 200))
	if r := s.endedTimes("Deployment", "web", 1); r.Status.Phase != v1alpha1.PhaseSucceeded {
		t.Errorf("with the budget raised it ended as %s", r.Status.Phase)
	}
	s.replaced(old, s.untilReady("web", 2), names(old)...)
	s.waitsFor("slow", "window")
	s.replaced(slow, s.untilReady("slow", 1))
}

// begunWithinTheHour makes sure that the agents count one automatic restart.
func (s *story) begunWithinTheHour() {
	s.t.Helper()
	first := cluster.Deployment(s.namespace, "first", 1)
	s.create(first)
	s.untilReady("first", 1)
	s.ended(s.person(first, "apps/v1", "Deployment", func(spec *v1alpha1.RestartSpec) { spec.Reason = v1alpha1.ReasonDiskFill }), v1alpha1.PhaseSucceeded)
}

// waitsFor waits until a Deployment's Restart is Pending and says for what.
func (s *story) waitsFor(name, what string) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, fmt.Sprintf("the Restart of %s waits for %s", name, what), func(ctx context.Context) (bool, error) {
		r := &v1alpha1.Restart{}
		if err := s.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: restart.Name("Deployment", name)}, r); err != nil {
			return false, err
		}
		if r.Status.Phase != v1alpha1.PhasePending || !strings.Contains(r.Status.Message, what) {
			return false, fmt.Errorf("it is %s: %s", r.Status.Phase, r.Status.Message)
		}
		return true, nil
	}))
}

// beside is a second namespace of the same story.
func (s *story) beside() *story {
	s.t.Helper()
	return newStory(s.t)
}

// slotsOfAllAndOfEach asks for four restarts at once, two of them in one
// namespace.
func (s *story) slotsOfAllAndOfEach() {
	s.t.Helper()
	other, third := s.beside(), s.beside()
	of := map[*story][]string{s: {"one", "two"}, other: {"one"}, third: {"one"}}
	for in, all := range of {
		for _, name := range all {
			web := cluster.Deployment(in.namespace, name, 1)
			web.Spec.MinReadySeconds = 3
			in.create(web)
		}
	}
	for in, all := range of {
		for _, name := range all {
			in.untilReady(name, 1)
		}
	}
	for in, all := range of {
		for _, name := range all {
			in.person(cluster.Deployment(in.namespace, name, 1), "apps/v1", "Deployment", nil)
		}
	}
	var all []v1alpha1.Restart
	for in, list := range of {
		for _, name := range list {
			all = append(all, in.endedTimes("Deployment", name, 1))
		}
	}
	if n := atOnce(all); n != 2 {
		s.t.Errorf("%d of %d restarts ran at once, want as many as there are slots, 2", n, len(all))
	}
	own := slices.DeleteFunc(all, func(r v1alpha1.Restart) bool { return r.Namespace != s.namespace })
	if n := atOnce(own); n != 1 {
		s.t.Errorf("%d restarts ran at once in one namespace, which has one slot", n)
	}
}

// atOnce is how many of the restarts ran at the same time at the most.
func atOnce(all []v1alpha1.Restart) int {
	most := 0
	for _, one := range all {
		n := 0
		for _, r := range all {
			if !r.Status.Started.After(one.Status.Started.Time) && one.Status.Started.Before(r.Status.Finished) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func (s *story) annotateNamespace(mode string) {
	s.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	s.must(s.Patch(s.ctx, ns, client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationRestart, mode))))
}

// The node whose agent carries a restart out loses its network in the middle.
// The leader of the others takes over once it gave no sign for long, and the
// workload is restarted once.
func TestHolderCutOff(t *testing.T) {
	s := newStory(t)
	web := cluster.Deployment(s.namespace, "web", 3)
	web.Spec.MinReadySeconds = 10
	s.create(web)
	old := s.untilReady("web", 3)
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	leaking := &old[0]
	for i := range old { // the control plane is no node of the lab, so any will do
		if old[i].Spec.NodeName == nodes[len(nodes)-1] {
			leaking = &old[i]
		}
	}
	seen := s.leak(leaking)
	running, err := cluster.UntilPhase(s.ctx, seen, v1alpha1.PhaseRunning)
	s.must(err)
	holder := running.Restart.Status.Holder
	s.untilTwoReplicaSets()
	_, err = s.Lab(s.ctx, "node", "cut", holder)
	s.must(err)
	heal := func() error { _, err := s.Lab(context.WithoutCancel(s.ctx), "node", "heal", holder); return err }
	t.Cleanup(func() {
		if err := heal(); err != nil {
			t.Error(err)
		}
	})
	s.must(cluster.Until(s.ctx, "another agent took the Restart over", func(ctx context.Context) (bool, error) {
		all, err := s.Restarts(ctx, s.namespace)
		if err != nil {
			return false, err
		}
		if len(all) != 1 {
			return false, fmt.Errorf("%d Restarts", len(all))
		}
		if all[0].Status.Holder == holder {
			return false, fmt.Errorf("held by %s", holder)
		}
		return true, nil
	}))
	s.must(heal())
	last, err := cluster.UntilPhase(s.ctx, seen, v1alpha1.PhaseSucceeded)
	s.must(err)
	t.Logf("%s took over from %s: %s", last.Restart.Status.Holder, holder, last.Restart.Status.Message)
	if !last.Restart.Status.Started.Equal(running.Restart.Status.Started) {
		t.Errorf("the Restart was started anew: %v, then %v", running.Restart.Status.Started, last.Restart.Status.Started)
	}
	sets, err := s.ReplicaSets(s.ctx, s.namespace, "web")
	s.must(err)
	if len(sets) != 2 {
		t.Errorf("want two ReplicaSets, the old and the new, got %d", len(sets))
	}
	s.replaced(old, s.untilReady("web", 3), names(old)...)
}
