package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// A three-replica Deployment leaks; a client never stops asking, over new and
// over kept-alive connections, and none of its requests fails.
func TestDeployment(t *testing.T) {
	s := newStory(t)
	web := cluster.Deployment(s.namespace, "web", 3)
	slowToEnd(&web.Spec.Template.Spec)
	s.create(web)
	asked := s.askAll("web", 3)
	old := s.untilReady("web", 3)

	r := s.succeeded(s.leak(&old[0]), old)
	asked.clean(manyRequests, 3)
	after := s.untilReady("web", 3)
	for _, p := range after {
		if slices.Contains(names(old), p.Name) {
			t.Errorf("%s is still there", p.Name)
		}
	}
	sets, err := s.ReplicaSets(s.ctx, s.namespace, "web")
	s.must(err)
	if len(sets) != 2 {
		t.Errorf("want two ReplicaSets, the old and the new, got %d", len(sets))
	}
	s.fileIsGone(r.Status.Holder, string(old[0].UID))
}

// untilAsked waits until a client has asked n times over each kind of
// connection.
func (s *story) untilAsked(client string, n int64) map[string]cluster.Tally {
	s.t.Helper()
	var got map[string]cluster.Tally
	s.must(cluster.Until(s.ctx, fmt.Sprintf("the client has asked %d times", n), func(ctx context.Context) (bool, error) {
		var err error
		got, err = s.Tallies(ctx, s.namespace, client)
		return got["new"].Requests >= n && got["keepalive"].Requests >= n, err
	}))
	return got
}

// fileIsGone looks on the node's own disk for the file that filled it.
func (s *story) fileIsGone(node, podUID string) {
	s.t.Helper()
	out, err := s.Lab(s.ctx, "exec", node, "--", "find", "/var/lib/containerd", "-name", "debug.log", "-size", "+1M")
	s.must(err)
	if found := strings.TrimSpace(out); found != "" {
		s.t.Errorf("on %s the file of pod %s is still there: %s", node, podUID, found)
	}
}
