package e2e

import (
	"context"
	"errors"
	"time"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// overlay gives the agents an overlay of manifests/overlays, as it is, and after
// the story the base again.
func (s *story) overlay(name string) {
	s.t.Helper()
	folder := s.Path("manifests/overlays", name)
	_, err := s.Kubectl(s.ctx, "apply", "-k", folder)
	s.must(err)
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		_, back := s.Kubectl(ctx, "apply", "-k", s.Path("manifests/base"))
		_, less := s.Kubectl(ctx, "delete", "--ignore-not-found", "-f", folder+"/rbac.yaml")
		if err := errors.Join(back, less, s.untilAgentsReady(ctx)); err != nil {
			s.t.Errorf("cannot go back to the base: %v", err)
		}
	})
	s.agentsReady()
}

func (s *story) agentsReady() {
	s.t.Helper()
	s.must(s.untilAgentsReady(s.ctx))
}

func (s *story) untilAgentsReady(ctx context.Context) error {
	_, err := s.Kubectl(ctx, "-n", cluster.Namespace, "rollout", "status", "daemonset/nodeagent", "--timeout=90s")
	return err
}
