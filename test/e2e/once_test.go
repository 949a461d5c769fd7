package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// A Deployment leaks on two nodes at once. Both agents see it; it is restarted
// once.
func TestTwoNodesOneRestart(t *testing.T) {
	s := newStory(t)
	web := cluster.Deployment(s.namespace, "web", 4)
	// No pod goes in the first seconds, so the second agent sees its pod too.
	web.Spec.MinReadySeconds = 15
	web.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{
		MaxSurge: new(intstr.FromInt32(1)), MaxUnavailable: new(intstr.FromInt32(0)),
	}
	web.Spec.Template.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: web.Spec.Selector.MatchLabels},
	}}
	s.create(web)
	old := s.untilReady("web", 4)

	onNode := map[string]*corev1.Pod{}
	for i := range old {
		s.seenQuiet(&old[i])
		onNode[old[i].Spec.NodeName] = &old[i]
	}
	if len(onNode) < 2 {
		t.Fatalf("the pods are all on one node; start the cluster with --nodes 2")
	}
	seen, err := s.Follow(s.ctx, s.namespace)
	s.must(err)
	for _, p := range onNode {
		s.must(s.Leak(s.ctx, p, leakRate))
	}
	s.succeeded(seen, old)

	// Each agent tells on the pod of its own node what it saw.
	for _, p := range onNode {
		s.toldOn("Pod", p.Name, "DiskFill")
	}
	sets, err := s.ReplicaSets(s.ctx, s.namespace, "web")
	s.must(err)
	if len(sets) != 2 {
		t.Errorf("want two ReplicaSets, the old and the new, got %d", len(sets))
	}
}

// The agent is killed in the middle of a rollout. Back again it finishes that
// one Restart and starts no second.
func TestAgentKilled(t *testing.T) {
	s := newStory(t)
	web := cluster.Deployment(s.namespace, "web", 3)
	// Slow to become available, so that there is a middle to be killed in.
	web.Spec.MinReadySeconds = 5
	s.create(web)
	old := s.untilReady("web", 3)

	seen := s.leak(&old[0])
	running, err := cluster.UntilPhase(s.ctx, seen, v1alpha1.PhaseRunning)
	s.must(err)
	s.untilTwoReplicaSets()
	s.killAgent(running.Restart.Status.Holder)

	r := s.succeeded(seen, old)
	if r.Status.Started == nil || !r.Status.Started.Equal(running.Restart.Status.Started) {
		t.Errorf("the Restart was started anew: %v, then %v", running.Restart.Status.Started, r.Status.Started)
	}
	sets, err := s.ReplicaSets(s.ctx, s.namespace, "web")
	s.must(err)
	if len(sets) != 2 {
		t.Errorf("want two ReplicaSets, the old and the new, got %d", len(sets))
	}
}

func (s *story) untilTwoReplicaSets() {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, "the rollout has begun", func(ctx context.Context) (bool, error) {
		sets, err := s.ReplicaSets(ctx, s.namespace, "web")
		return len(sets) == 2, err
	}))
}

// killAgent ends the agent of a node with SIGKILL and waits until the kubelet
// has started it again.
func (s *story) killAgent(node string) {
	s.t.Helper()
	pid, err := s.agentPID(s.ctx, node)
	s.must(err)
	_, err = s.Lab(s.ctx, "exec", node, "--", "kill", "-KILL", strconv.Itoa(pid))
	s.must(err)
	s.must(cluster.Until(s.ctx, fmt.Sprintf("the agent on %s is back", node), func(ctx context.Context) (bool, error) {
		again, err := s.AgentPID(ctx, node)
		return again != pid, err
	}))
}

// The cooldown stands in the object, not in the agent: a workload that leaks
// again right after its restart is left alone, by an agent that was killed
// meanwhile too, and its owner is told so.
func TestCooldownHolds(t *testing.T) {
	s := newStory(t)
	s.create(cluster.Deployment(s.namespace, "web", 2))
	old := s.untilReady("web", 2)
	first := s.succeeded(s.leak(&old[0]), old)
	s.killAgent(first.Status.Holder)

	again := s.untilReady("web", 2)[0]
	s.must(s.Leak(s.ctx, &again, leakRate))
	s.toldOn("Pod", again.Name, "DiskFill")

	all, err := s.Restarts(s.ctx, s.namespace)
	s.must(err)
	if len(all) != 1 || len(all[0].Status.History) != 1 || all[0].Generation != first.Generation {
		t.Errorf("the workload was restarted again within its cooldown: %+v", all)
	}
	if pods := s.untilReady("web", 2); !slices.Contains(names(pods), again.Name) {
		t.Errorf("%s was replaced within the cooldown", again.Name)
	}
}
