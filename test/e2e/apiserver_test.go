package e2e

import (
	"context"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// In the middle of a rollout the API server fails, for its etcd is gone, and is
// then started anew. The restart ends as it should, once.
func TestAPIServerAway(t *testing.T) {
	s := newStory(t)
	web, old, _ := s.midway()
	before, err := s.Restarts(s.ctx, s.namespace)
	s.must(err)

	t.Cleanup(func() { // whatever happens, the next story has an API server
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		for _, program := range []string{"etcd", "apiserver"} {
			if _, err := s.Lab(ctx, "start", program); err != nil {
				t.Error(err)
			}
		}
	})
	_, err = s.Lab(s.ctx, "stop", "etcd")
	s.must(err)
	s.must(cluster.Until(s.ctx, "the API server fails", func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := s.Restarts(ctx, s.namespace)
		return err != nil, nil
	}))
	_, err = s.Lab(s.ctx, "start", "etcd")
	s.must(err)
	apiServerStarts.from = time.Now()
	_, err = s.Lab(s.ctx, "restart", "apiserver")
	apiServerStarts.to = time.Now()
	s.must(err)

	r := s.endedTimes("Deployment", "web", 1)
	if r.Status.Phase != v1alpha1.PhaseSucceeded || !r.Status.Started.Equal(before[0].Status.Started) {
		t.Errorf("%s, begun at %v and before at %v", r.Status.Phase, r.Status.Started, before[0].Status.Started)
	}
	s.replaced(old, s.untilReady("web", 2), names(old)...)
	now := &appsv1.Deployment{}
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), now))
	if now.Generation != web.Generation {
		t.Errorf("the template was written again: generation %d after %d", now.Generation, web.Generation)
	}
}
