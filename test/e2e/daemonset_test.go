package e2e

import (
	"testing"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// Of a DaemonSet only the pod of the node whose disk fills is replaced.
func TestDaemonSet(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	s.create(cluster.DaemonSet(s.namespace, "logs"))
	old := s.untilReady("logs", len(nodes))
	full := old[0]

	seen := s.leak(&full)
	s.succeeded(seen, old[:1])

	for _, p := range s.untilReady("logs", len(nodes)) {
		switch {
		case p.UID == full.UID:
			t.Errorf("%s is still there", p.Name)
		case p.Spec.NodeName != full.Spec.NodeName && p.UID != old[1].UID:
			t.Errorf("%s on %s was replaced too", old[1].Name, p.Spec.NodeName)
		}
	}
}
