package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// A three-replica Deployment leaks; a client never stops asking, over new and
// over kept-alive connections, and none of its requests fails.
func TestDeployment(t *testing.T) {
	s := newStory(t)
	web := cluster.Deployment(s.namespace, "web", 3)
	s.meetsMany(&web.Spec.Template.Spec, "web", 3)
	s.create(web)
	asked := s.askAll("web", 3)
	old := s.untilReady("web", 3)

	folder, err := s.upperOf(s.ctx, &old[0])
	s.must(err)
	file := func() string {
		s.t.Helper()
		found, err := s.Lab(s.ctx, "exec", old[0].Spec.NodeName, "--", "sh", "-c", `! test -e "$0" || echo "$0"`, folder+cluster.LeakFile)
		s.must(err)
		return found
	}
	seen := s.leak(&old[0])
	if file() == "" {
		t.Errorf("the file that grows is not in %s", folder)
	}
	s.succeeded(seen, old)
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
	if found := file(); found != "" {
		t.Errorf("on %s it is still there: %s", old[0].Spec.NodeName, found)
	}
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

// upperOf is the folder on its node that has what a pod's one container writes.
func (s *story) upperOf(ctx context.Context, pod *corev1.Pod) (string, error) {
	now := &corev1.Pod{}
	if err := s.Get(ctx, client.ObjectKeyFromObject(pod), now); err != nil {
		return "", err
	}
	_, id, _ := strings.Cut(now.Status.ContainerStatuses[0].ContainerID, "://")
	mounts, err := s.Lab(ctx, "exec", pod.Spec.NodeName, "--", "ctr", "-n", "k8s.io", "snapshots", "mounts", "/x", id)
	if err != nil {
		return "", err
	}
	_, upper, found := strings.Cut(mounts, "upperdir=")
	if !found {
		return "", fmt.Errorf("container %s has no folder of its own: %s", id, mounts)
	}
	upper, _, _ = strings.Cut(upper, ",")
	return strings.TrimSpace(upper), nil
}
