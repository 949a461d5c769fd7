package e2e

import (
	"context"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// What people and other controllers do in the middle of a restart is told and
// not fought.
func TestMidway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sentence string
		meddle         func(s *story, web *appsv1.Deployment)
	}{
		{"deleted", "deployment/web", func(s *story, web *appsv1.Deployment) {
			s.must(s.Delete(s.ctx, web))
		}},
		{"changed", "Somebody else changed the pod template of deployment/web", (*story).otherEnvironment},
		{"reverted", "took the restart's annotation out", func(s *story, web *appsv1.Deployment) {
			s.must(s.Patch(s.ctx, web, client.RawPatch("application/merge-patch+json",
				[]byte(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":null}}}}}`))))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStory(t)
			web, _, seen := s.midway()
			c.meddle(s, web)
			r := s.ended(seen, v1alpha1.PhaseFailed)
			if !strings.Contains(r.Status.Message, c.sentence) {
				t.Errorf("it says %q, want a sentence about %q", r.Status.Message, c.sentence)
			}
			if c.name == "deleted" {
				return
			}
			s.toldOn("Deployment", "web", "RestartFailed")
			wanted := &appsv1.Deployment{}
			s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), wanted))
			s.untilComplete(wanted)
			generation := wanted.Generation
			s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), wanted))
			if wanted.Generation != generation {
				t.Errorf("what somebody else wrote was fought: generation %d after %d", wanted.Generation, generation)
			}
		})
	}
}

// A person deletes the Restart in the middle: the rollout goes on by itself, the
// slot is free, and a next Restart is as good as a first.
func TestRestartDeleted(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	web, old, _ := s.midway()
	s.clear("Deployment", "web")
	s.untilComplete(web)
	if all, err := s.Restarts(s.ctx, s.namespace); err != nil || len(all) > 0 {
		t.Errorf("Restarts %+v, %v: want none", all, err)
	}
	s.must(cluster.Until(s.ctx, "its slot is free", func(ctx context.Context) (bool, error) {
		return !strings.Contains(s.slots(ctx), s.namespace+"/"), nil
	}))
	s.ended(s.person(web, "apps/v1", "Deployment", nil), v1alpha1.PhaseSucceeded)
	s.replaced(old, s.untilReady("web", 2), names(old)...)
}

// clear deletes a workload's Restart, as people do who want the next one.
func (s *story) clear(kind, name string) {
	s.t.Helper()
	s.must(s.Delete(s.ctx, &v1alpha1.Restart{ObjectMeta: cluster.Meta(s.namespace, restart.Name(kind, name))}))
}

// slots is what the agents' Lease says of restarts that run or were begun.
func (s *story) slots(ctx context.Context) string {
	s.t.Helper()
	lease := &coordinationv1.Lease{}
	s.must(s.Get(ctx, client.ObjectKey{Namespace: cluster.Namespace, Name: restart.LeaseSlots}, lease))
	return lease.Annotations["nodeagent.dev/slots"]
}

// midway is a person's restart of a Deployment whose rollout has begun and
// cannot be over soon.
func (s *story) midway() (web *appsv1.Deployment, old []corev1.Pod, seen <-chan cluster.Sighting) {
	s.t.Helper()
	web = cluster.Deployment(s.namespace, "web", 2)
	web.Spec.MinReadySeconds = 10
	web.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: new(intstr.FromString("100%"))}
	s.create(web)
	s.untilComplete(web)
	old = s.podsOf("web")
	seen = s.person(web, "apps/v1", "Deployment", nil)
	_, err := cluster.UntilPhase(s.ctx, seen, v1alpha1.PhaseRunning)
	s.must(err)
	s.untilTwoReplicaSets()
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), web))
	return web, old, seen
}

// otherEnvironment is what somebody deploys.
func (s *story) otherEnvironment(web *appsv1.Deployment) {
	s.must(s.Patch(s.ctx, web, client.RawPatch("application/strategic-merge-patch+json",
		[]byte(`{"spec":{"template":{"spec":{"containers":[{"name":"app","env":[{"name":"DEPLOYED","value":"meanwhile"}]}]}}}}`))))
}

// untilComplete waits until a Deployment's rollout is over.
func (s *story) untilComplete(web *appsv1.Deployment) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, "the rollout is over", func(ctx context.Context) (bool, error) {
		d := &appsv1.Deployment{}
		if err := s.Get(ctx, client.ObjectKeyFromObject(web), d); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		n := *d.Spec.Replicas
		return d.Status.ObservedGeneration == d.Generation && d.Status.UpdatedReplicas == n && d.Status.Replicas == n && d.Status.AvailableReplicas == n, nil
	}))
}

// One pod of a StatefulSet is evicted alone; also the one that the whole set is
// stuck on.
func TestStatefulSetOnePod(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	db := cluster.StatefulSet(s.namespace, "db", 2)
	s.create(db)
	old := s.untilReady("db", 2)
	s.ended(s.person(db, "apps/v1", "StatefulSet", onePod(&old[0])), v1alpha1.PhaseSucceeded)
	now := s.untilReady("db", 2)
	s.replaced(old, now, "db-0")

	s.clear("StatefulSet", "db")
	s.stuckOn(&now[1])
	s.ended(s.person(db, "apps/v1", "StatefulSet", onePod(&now[1])), v1alpha1.PhaseSucceeded)
	s.replaced(now, s.untilReady("db", 2), "db-1")
}

// stuckOn has a pod never be Ready again, and so the set it belongs to.
func (s *story) stuckOn(pod *corev1.Pod) {
	s.t.Helper()
	s.must(s.Unready(s.ctx, pod))
	s.must(cluster.Until(s.ctx, pod.Name+" is not Ready", func(ctx context.Context) (bool, error) {
		err := s.Get(ctx, client.ObjectKeyFromObject(pod), pod)
		return !cluster.Ready(pod), err
	}))
}
