package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// Where a namespace asks for approval a leak leads to a Restart that waits and
// says how to approve it. Nothing is touched before a person did just that.
func TestApproval(t *testing.T) {
	s := newStory(t, 4*time.Minute)
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
	for mode, phase := range map[string]v1alpha1.Phase{"observe": v1alpha1.PhaseObserved, "never": v1alpha1.PhaseRefused} {
		t.Run(mode, func(t *testing.T) {
			s := newStory(t, 3*time.Minute)
			web := cluster.Deployment(s.namespace, "web", 2)
			web.Annotations = map[string]string{v1alpha1.AnnotationRestart: mode}
			s.create(web)
			old := s.untilReady("web", 2)
			r := s.ended(s.leak(&old[0]), phase)
			if mode == "observe" && !strings.Contains(r.Status.Message, "It replaces 2 pods of deployment/web") {
				t.Errorf("it does not say what would have been done: %q", r.Status.Message)
			}
			s.replaced(old, s.untilReady("web", 2))
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
	s := newStory(t, 4*time.Minute)
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

// With one slot for the whole cluster two people's restarts run one after the
// other. Outside all windows a leak waits, and when a disk that fills that soon
// is said to be urgent it does not.
func TestSlotsAndWindows(t *testing.T) {
	s := newStory(t, 6*time.Minute)
	const closed = `restart:
  limits: {cluster: 1, namespace: 1}
  windows: [{start: "0 0 29 2 *", duration: 1m}]
  urgent: `
	s.configure(closed + "0s\n")
	for _, name := range []string{"one", "two"} {
		web := cluster.Deployment(s.namespace, name, 1)
		web.Spec.MinReadySeconds = 3
		s.create(web)
		s.untilReady(name, 1)
	}
	for _, name := range []string{"one", "two"} {
		s.person(cluster.Deployment(s.namespace, name, 1), "apps/v1", "Deployment", nil)
	}
	s.oneAfterTheOther()

	s.create(cluster.Deployment(s.namespace, "web", 2))
	old := s.untilReady("web", 2)
	leaks := s.leak(&old[0])
	waits, err := cluster.UntilPhase(s.ctx, leaks, v1alpha1.PhasePending)
	s.must(err)
	if !strings.Contains(waits.Restart.Status.Message, "window") {
		t.Errorf("it waits with %q, which does not tell of the window", waits.Restart.Status.Message)
	}
	s.replaced(old, s.untilReady("web", 2))
	s.configure(closed + "1h\n")
	last, err := cluster.UntilPhase(s.ctx, leaks, v1alpha1.PhaseSucceeded)
	s.must(err)
	t.Logf("urgent: %s", last.Restart.Status.Message)
	s.replaced(old, s.untilReady("web", 2), names(old)...)
}

// oneAfterTheOther waits until the two Restarts there are have succeeded, and
// checks that they did not run at the same time.
func (s *story) oneAfterTheOther() {
	s.t.Helper()
	var all []v1alpha1.Restart
	s.must(cluster.Until(s.ctx, "both have succeeded", func(ctx context.Context) (bool, error) {
		var err error
		all, err = s.Restarts(ctx, s.namespace)
		done := 0
		for _, r := range all {
			if r.Status.Phase == v1alpha1.PhaseSucceeded {
				done++
			}
		}
		return done == 2, err
	}))
	first, second := all[0].Status, all[1].Status
	if first.Started.After(second.Started.Time) {
		first, second = second, first
	}
	if second.Started.Before(first.Finished) {
		s.t.Errorf("the second began at %v, before the first ended at %v", second.Started, first.Finished)
	}
}

// addedConfig begins what a story adds.
const addedConfig = "# Added by a story.\n"

// configure gives the agents more configuration, and after the story their own.
func (s *story) configure(more string) {
	s.t.Helper()
	key := client.ObjectKey{Namespace: cluster.Namespace, Name: "nodeagent"}
	config := &corev1.ConfigMap{}
	s.must(s.Get(s.ctx, key, config))
	base, _, _ := strings.Cut(config.Data["config.yaml"], addedConfig)
	set := func(ctx context.Context, text string) error {
		if err := s.Get(ctx, key, config); err != nil {
			return err
		}
		config.Data["config.yaml"] = text
		if err := s.Update(ctx, config); err != nil {
			return err
		}
		if _, err := s.Kubectl(ctx, "-n", cluster.Namespace, "rollout", "restart", "daemonset/nodeagent"); err != nil {
			return err
		}
		return s.untilAgentsReady(ctx)
	}
	s.must(set(s.ctx, base+addedConfig+more))
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := set(ctx, base); err != nil {
			s.t.Errorf("cannot give the agents their configuration back: %v", err)
		}
	})
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
	s := newStory(t, 6*time.Minute)
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
