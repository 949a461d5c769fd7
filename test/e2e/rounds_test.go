package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// rounds is how often the same workload leaks on all nodes at once.
const rounds = 3

// A Deployment leaks on all nodes at once, again and again, first on two and
// then on three: each time there is exactly one Restart and one rollout.
func TestRounds(t *testing.T) {
	s := newStory(t)
	for _, nodes := range []int{2, 3} {
		if nodes == 3 {
			s.thirdNode()
		}
		name := fmt.Sprintf("web%d", nodes)
		web := s.onEachNode(name, nodes)
		for round := range rounds {
			s.leaksEverywhere(web, nodes)
			t.Logf("%d nodes, round %d: restarted once", nodes, round+1)
		}
		s.must(s.Delete(s.ctx, web))
	}
}

// thirdNode adds a node to the cluster and takes it away when the story ends.
func (s *story) thirdNode() {
	s.t.Helper()
	const node = "node-3"
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := s.Lab(ctx, "node", "stop", node); err != nil {
			s.t.Errorf("cannot stop the third node: %v", err)
		}
		if _, err := s.Kubectl(ctx, "delete", "node", node); err != nil {
			s.t.Errorf("cannot remove the third node: %v", err)
		}
	})
	_, err := s.Lab(s.ctx, "up", "--nodes", "3")
	s.must(err)
	for _, image := range []string{"dist/nodeagent.tar", "dist/webapp.tar"} {
		_, err := s.Lab(s.ctx, "load", s.Path(image), "--node", node)
		s.must(err)
	}
	s.must(cluster.Until(s.ctx, "its agent is ready", func(ctx context.Context) (bool, error) {
		pod, err := s.AgentPod(ctx, node)
		return err == nil && cluster.Ready(pod), err
	}))
}

// onEachNode is a Deployment with one pod on each node. None goes before each
// agent could see its own.
func (s *story) onEachNode(name string, nodes int) *appsv1.Deployment {
	s.t.Helper()
	web := cluster.Deployment(s.namespace, name, int32(nodes))
	web.Spec.MinReadySeconds = 12
	web.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{
		MaxSurge: new(intstr.FromString("100%")), MaxUnavailable: new(intstr.FromInt32(0)),
	}
	web.Spec.Template.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: web.Spec.Selector.MatchLabels}, MatchLabelKeys: []string{appsv1.DefaultDeploymentUniqueLabelKey},
	}}
	s.create(web)
	return web
}

// leaksEverywhere is one round. A person clears the Restart after it, so that
// no cooldown holds the next one up.
func (s *story) leaksEverywhere(web *appsv1.Deployment, nodes int) {
	s.t.Helper()
	s.untilComplete(web)
	old := s.untilReady(web.Name, nodes)
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), web))
	on := map[string]bool{}
	for i := range old {
		s.seenQuiet(&old[i])
		on[old[i].Spec.NodeName] = true
	}
	if len(on) != nodes {
		s.t.Fatalf("the pods are on %d nodes, want %d", len(on), nodes)
	}
	for i := range old {
		s.must(s.Leak(s.ctx, &old[i], leakRate))
	}
	r := s.endedTimes("Deployment", web.Name, 1)
	for i := range old { // each node's own agent tells what it saw
		s.toldOn("Pod", old[i].Name, "DiskFill")
	}
	now := &appsv1.Deployment{}
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), now))
	if r.Status.Phase != v1alpha1.PhaseSucceeded || now.Generation != web.Generation+1 {
		s.t.Errorf("it ended as %s; generation %d after %d", r.Status.Phase, now.Generation, web.Generation)
	}
	if all, err := s.Restarts(s.ctx, s.namespace); err != nil || len(all) != 1 {
		s.t.Errorf("%d Restarts, want the one: %v", len(all), err)
	}
	s.replaced(old, s.untilReady(web.Name, nodes), names(old)...)
	s.clear("Deployment", web.Name)
}
