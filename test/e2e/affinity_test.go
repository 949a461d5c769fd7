package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// Of two nodes the scheduler prefers the one with more room. While a pod there
// fills the disk, the one that takes its place goes to the other node; what can
// run nowhere else runs there all the same. When the disk is well again, pods
// come back. It is the first story: each one that fills a disk leaves the taint
// for some minutes.
func TestKeptOffFillingNode(t *testing.T) {
	s := newStory(t)
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	if len(nodes) != 2 {
		t.Fatalf("nodes %v; start the cluster with --nodes 2", nodes)
	}
	for _, n := range nodes {
		s.untilTainted(n, false)
	}
	roomy, busy := nodes[0], nodes[1]
	s.occupy(busy)
	s.create(cluster.Deployment(s.namespace, "web", 1))
	old := s.untilReady("web", 1)
	s.onNode(old, roomy, "before the disk fills")

	asked := len(s.requests())
	s.succeeded(s.leak(&old[0]), old)
	s.onNode(s.untilReady("web", 1), busy, "while it fills")
	s.untilTainted(roomy, true)
	s.untilTainted(busy, false)
	s.taintedFirst(s.requests()[asked:], roomy)

	pinned := cluster.Deployment(s.namespace, "pinned", 1)
	pinned.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: roomy}
	s.create(pinned, cluster.DaemonSet(s.namespace, "each"))
	s.untilReady("pinned", 1)
	s.untilReady("each", 2)

	s.untilTainted(roomy, false)
	s.create(cluster.Deployment(s.namespace, "next", 1))
	s.onNode(s.untilReady("next", 1), roomy, "when it is well again")
	s.described("node/"+roomy, "DiskFilling", "DiskNotFilling")
	s.described("deployment/web", "New pods are kept off node "+roomy)
}

// described waits for words in what kubectl tells of an object: Events are
// written after what they tell of.
func (s *story) described(object string, words ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	if err := cluster.Until(ctx, "kubectl describe "+object+" tells all", func(ctx context.Context) (bool, error) {
		said, err := s.Kubectl(ctx, "-n", s.namespace, "describe", object)
		for _, w := range words {
			if err == nil && !strings.Contains(said, w) {
				err = fmt.Errorf("%q is not in:\n%s", w, said)
			}
		}
		return err == nil, err
	}); err != nil {
		s.t.Error(err)
	}
}

// occupy takes more than half of a node, so that the scheduler prefers others.
func (s *story) occupy(node string) {
	s.t.Helper()
	var n corev1.Node
	s.must(s.Get(s.ctx, client.ObjectKey{Name: node}, &n))
	share := func(name corev1.ResourceName) resource.Quantity {
		q := n.Status.Allocatable[name]
		return *resource.NewMilliQuantity(q.MilliValue()*6/10, q.Format)
	}
	pod := &corev1.Pod{ObjectMeta: cluster.Meta(s.namespace, "occupant"), Spec: cluster.PodTemplate("occupant").Spec}
	pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{
		corev1.ResourceCPU: share(corev1.ResourceCPU), corev1.ResourceMemory: share(corev1.ResourceMemory),
	}
	s.create(pod)
	s.untilReady("occupant", 1)
}

func (s *story) onNode(pods []corev1.Pod, node, when string) {
	s.t.Helper()
	for _, p := range pods {
		if p.Spec.NodeName != node {
			s.t.Errorf("%s %s is on %s, want %s", when, p.Name, p.Spec.NodeName, node)
		}
	}
}

// untilTainted waits until a node has the agent's taint, or has it no more.
func (s *story) untilTainted(node string, want bool) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, fmt.Sprintf("the taint of %s: %v", node, want), func(ctx context.Context) (bool, error) {
		var n corev1.Node
		err := s.Get(ctx, client.ObjectKey{Name: node}, &n)
		return want == slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
			return t.Key == v1alpha1.TaintDiskFilling && t.Effect == corev1.TaintEffectPreferNoSchedule
		}), err
	}))
}

// requests are what agents asked of the API server, in that order.
func (s *story) requests() []auditEvent {
	s.t.Helper()
	path, err := s.Lab(s.ctx, "audit-log")
	s.must(err)
	asked, err := agentRequests(strings.TrimSpace(path))
	s.must(err)
	return asked
}

// taintedFirst holds the agents to the order: the taint before the Restart.
func (s *story) taintedFirst(asked []auditEvent, node string) {
	s.t.Helper()
	first := func(verb, resource, namespace, name string) int {
		return slices.IndexFunc(asked, func(e auditEvent) bool {
			ref := e.ObjectRef
			done := e.ResponseStatus.Code < 300 // the dry run before the taint is refused
			return done && e.Verb == verb && ref.Resource == resource && ref.Subresource == "" && ref.Namespace == namespace && (name == "" || ref.Name == name)
		})
	}
	taint, restart := first("patch", "nodes", "", node), first("create", "restarts", s.namespace, "")
	if taint < 0 || restart < 0 || taint > restart {
		s.t.Errorf("the taint was request %d, the Restart %d", taint, restart)
	}
}
