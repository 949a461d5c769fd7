package e2e

import (
	"testing"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// A StatefulSet's pods are replaced one by one, under the same names.
func TestStatefulSet(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	s.create(cluster.Service(s.namespace, "db"), cluster.StatefulSet(s.namespace, "db", 2))
	old := s.untilReady("db", 2)

	seen := s.leak(&old[0])
	s.succeeded(seen, old)

	for i, p := range s.untilReady("db", 2) {
		if p.UID == old[i].UID || p.Name != old[i].Name {
			t.Errorf("%s (%s) is not the successor of %s (%s)", p.Name, p.UID, old[i].Name, old[i].UID)
		}
	}
}
