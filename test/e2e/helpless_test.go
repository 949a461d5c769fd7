package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// What takes hours by default, with agents that wait for less.
func TestShortTimes(t *testing.T) {
	s := newStory(t)
	s.configure("restart: {cooldown: 1s, approvalTimeout: 1m}")
	for name, story := range map[string]func(*story){
		"third":           (*story).thirdWithinADay,
		"freed nothing":   (*story).freedNothing,
		"nobody approves": (*story).nobodyApproves,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(newStory(t))
		})
	}
}

// thirdWithinADay: a workload that leaks again and again is restarted three
// times. Then people are told and nothing more is done, by an agent that was
// killed meanwhile too, until somebody clears it.
func (s *story) thirdWithinADay() {
	web := cluster.Deployment(s.namespace, "web", 2)
	web.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: s.node(0)} // the other one's kubelet stops
	s.create(web)
	var last v1alpha1.Restart
	for i, want := range []v1alpha1.Phase{v1alpha1.PhaseSucceeded, v1alpha1.PhaseSucceeded, v1alpha1.PhaseIneffective} {
		s.leakIn(&s.untilReady("web", 2)[0])
		if last = s.endedTimes("Deployment", "web", i+1); last.Status.Phase != want {
			s.t.Fatalf("restart %d ended as %s, want %s", i+1, last.Status.Phase, want)
		}
	}
	if !strings.Contains(last.Status.Message, "It was the third within 24 hours.") {
		s.t.Errorf("it says %q", last.Status.Message)
	}
	s.toldOn("Deployment", "web", "RestartIneffective")

	s.killAgent(s.node(0))
	s.must(cluster.Until(s.ctx, "the agent is back and has seen that nothing grows", func(ctx context.Context) (bool, error) {
		agent, err := s.AgentPod(ctx, s.node(0))
		if err != nil || len(agent.Status.ContainerStatuses) == 0 {
			return false, err
		}
		c := agent.Status.ContainerStatuses[0]
		return c.RestartCount > 0 && c.Ready && c.State.Running != nil && time.Since(c.State.Running.StartedAt.Time) > 8*time.Second, nil
	}))
	old := s.untilReady("web", 2)
	s.leakIn(&old[0])
	s.toldOn("Pod", old[0].Name, "DiskFill")
	s.must(cluster.Until(s.ctx, "the agent has dealt with it", func(ctx context.Context) (bool, error) {
		agent, err := s.AgentPod(ctx, s.node(0))
		if err != nil {
			return false, err
		}
		log, err := s.Kubectl(ctx, "-n", cluster.Namespace, "logs", agent.Name)
		return strings.Contains(log, old[0].Name+" outcome=Ineffective"), err
	}))
	if now := s.endedTimes("Deployment", "web", 3); now.Generation != last.Generation {
		s.t.Errorf("it was asked for again: %+v", now.Spec)
	}
	s.replaced(old, s.untilReady("web", 2))

	s.must(s.EndLeak(s.ctx, &old[0]))
	s.clear("Deployment", "web")
	s.leakIn(&old[1]) // the other pod's offence has its answer for some minutes
	if r := s.endedTimes("Deployment", "web", 1); r.Status.Phase != v1alpha1.PhaseSucceeded {
		s.t.Errorf("cleared, it ended as %s", r.Status.Phase)
	}
}

// leakIn has a pod leak that was seen quiet.
func (s *story) leakIn(pod *corev1.Pod) {
	s.t.Helper()
	s.seenQuiet(pod)
	s.must(s.Leak(s.ctx, pod, leakRate))
}

// node is the name of one of the cluster's nodes.
func (s *story) node(i int) string {
	s.t.Helper()
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	return nodes[i]
}

// freedNothing: the kubelet of the node that fills hangs, so the old pod goes
// from the API, as somebody forces it to, and not from the disk.
func (s *story) freedNothing() {
	node := s.node(1)
	place := func(on string) {
		s.t.Helper()
		for i := range 2 {
			label := "place-"
			if s.node(i) == on {
				label = "place=here"
			}
			_, err := s.Kubectl(context.WithoutCancel(s.ctx), "label", "node", s.node(i), "--overwrite", label)
			s.must(err)
		}
	}
	place(node)
	web := cluster.Deployment(s.namespace, "web", 1)
	web.Spec.MinReadySeconds = 20 // the kubelet stops before the old pod is told to go
	web.Spec.Template.Spec.NodeSelector = map[string]string{"place": "here"}
	s.create(web)
	old := s.untilReady("web", 1)
	place(s.node(0))
	s.leakIn(&old[0])
	s.must(cluster.Until(s.ctx, "the restart runs", func(ctx context.Context) (bool, error) {
		all, err := s.Restarts(ctx, s.namespace)
		return len(all) == 1 && all[0].Status.Phase == v1alpha1.PhaseRunning, err
	}))
	s.must(s.EndLeak(s.ctx, &old[0]))
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, started := s.Lab(ctx, "start", "kubelet", node)
		_, placed := s.Kubectl(ctx, "label", "nodes", "--all", "place-")
		if err := errors.Join(started, placed); err != nil {
			s.t.Errorf("cannot start the kubelet again: %v", err)
		}
	})
	_, err := s.Lab(s.ctx, "stop", "kubelet", node)
	s.must(err)
	s.must(cluster.Until(s.ctx, "the old pod is told to go", func(ctx context.Context) (bool, error) {
		pod := old[0].DeepCopy()
		err := s.Get(ctx, client.ObjectKeyFromObject(pod), pod)
		return pod.DeletionTimestamp != nil, err
	}))
	s.must(s.Delete(s.ctx, &old[0], client.GracePeriodSeconds(0)))
	r := s.endedTimes("Deployment", "web", 1)
	if r.Status.Phase != v1alpha1.PhaseIneffective || !strings.Contains(r.Status.Message, "It freed nothing.") {
		s.t.Errorf("it ended as %s: %s", r.Status.Phase, r.Status.Message)
	}
	s.toldOn("Deployment", "web", "RestartIneffective")
}

// nobodyApproves: who only has the right on Restarts may not approve one, and
// no agent may. When nobody does in time it is refused and nothing was touched.
func (s *story) nobodyApproves() {
	s.annotateNamespace("approve")
	for user, role := range map[string]string{"dev": "nodeagent-restart", "lead": "nodeagent-approver"} {
		_, err := s.Kubectl(s.ctx, "-n", s.namespace, "create", "rolebinding", user, "--clusterrole="+role, "--user="+user)
		s.must(err)
	}
	web := cluster.Deployment(s.namespace, "web", 1)
	s.create(web)
	old := s.untilReady("web", 1)
	seen := s.person(web, "apps/v1", "Deployment", nil)
	waits, err := cluster.UntilPhase(s.ctx, seen, v1alpha1.PhaseApproval)
	s.must(err)

	name := restart.Name("Deployment", "web")
	approve := func(more ...string) error {
		_, err := s.Kubectl(s.ctx, append([]string{"-n", s.namespace, "annotate", "restart", name, v1alpha1.AnnotationApproved + "=1"}, more...)...)
		return err
	}
	if err := approve("--as=dev"); err == nil || !strings.Contains(err.Error(), "verb approve") {
		s.t.Errorf("who may not approve did: %v", err)
	}
	if err := approve("--as=lead", "--dry-run=server"); err != nil {
		s.t.Errorf("who may approve may not: %v", err)
	}
	agent, approved := s.asAgent(s.node(0)), waits.Restart.DeepCopy()
	approved.Annotations = map[string]string{v1alpha1.AnnotationApproved: "1"}
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(approved), &waits.Restart))
	approved.ResourceVersion = waits.Restart.ResourceVersion
	if err := agent.Update(s.ctx, approved); err == nil || !strings.Contains(err.Error(), "verb approve") {
		s.t.Errorf("an agent approved: %v", err)
	}

	r := s.refused(seen)
	if r.Status.Message != "Nobody approved it within 1m0s." {
		s.t.Errorf("it says %q", r.Status.Message)
	}
	s.replaced(old, s.untilReady("web", 1))
	if sets, err := s.ReplicaSets(s.ctx, s.namespace, "web"); err != nil || len(sets) != 1 {
		s.t.Errorf("%d ReplicaSets, want the one: %v", len(sets), err)
	}
}
