package e2e

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// asked is a Service whose clients never stop asking, and whose endpoints are
// counted meanwhile.
type asked struct {
	s      *story
	before map[string]cluster.Tally
	fewest func() (int, error)
}

// askAll makes a Service for the web app of that name and its clients, and
// waits until it sends to n pods.
func (s *story) askAll(name string, n int) *asked {
	s.t.Helper()
	service := cluster.Service(s.namespace, name)
	s.create(service)
	s.untilReady(name, n)
	if s.gate != nil {
		s.gate.asking.Store(true)
	}
	s.create(cluster.Client(s.namespace, "client", service))
	a := &asked{s: s, before: s.untilAsked("client", 100)}
	var err error
	a.fewest, err = s.FewestEndpoints(s.ctx, s.namespace, name, n)
	s.must(err)
	return a
}

// clean checks that since askAll at least so many requests were made, half of
// them over each kind of connection, that none of them failed, and that the
// Service never sent to fewer pods than that.
func (a *asked) clean(requests int64, fewest int) {
	a.s.t.Helper()
	n, err := a.fewest()
	a.s.must(err)
	if n < fewest {
		a.s.t.Errorf("the Service sent to %d pods at the least, want %d", n, fewest)
	}
	var all int64
	for kind, tally := range a.s.untilAsked("client", 0) {
		during := tally.Requests - a.before[kind].Requests
		all += during
		a.s.t.Logf("%s connections: %d requests to %d pods during the restart, %d failed", kind, during, len(tally.Pods), tally.Failures)
		if tally.Failures > 0 {
			a.s.t.Errorf("%s connections: %d of %d requests failed: %v, at %v", kind, tally.Failures, tally.Requests, tally.Errors, tally.FailedAt)
		}
		if during < requests/4 {
			a.s.t.Errorf("only %d requests over %s connections met the restart", during, kind)
		}
	}
	if all < requests {
		a.s.t.Errorf("only %d requests met the restart, want %d", all, requests)
	}
}

// onePod restarts that pod alone.
func onePod(p *corev1.Pod) func(*v1alpha1.RestartSpec) {
	return func(spec *v1alpha1.RestartSpec) {
		spec.Scope, spec.Pod, spec.PodUID, spec.Node = v1alpha1.ScopePod, p.Name, string(p.UID), p.Spec.NodeName
	}
}

// person asks for a restart as a person does and follows it.
func (s *story) person(target client.Object, apiVersion, kind string, change func(*v1alpha1.RestartSpec)) <-chan cluster.Sighting {
	s.t.Helper()
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	seen, err := s.Follow(s.ctx, s.namespace)
	s.must(err)
	r := &v1alpha1.Restart{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: restart.Name(kind, target.GetName())},
		Spec: v1alpha1.RestartSpec{
			Target: v1alpha1.TargetReference{APIVersion: apiVersion, Kind: kind, Name: target.GetName()},
			Node:   nodes[0], Reason: v1alpha1.ReasonManual,
		},
	}
	if change != nil {
		change(&r.Spec)
	}
	s.create(r)
	return seen
}

// ended waits for a Restart's end in that phase.
func (s *story) ended(seen <-chan cluster.Sighting, phase v1alpha1.Phase) v1alpha1.Restart {
	s.t.Helper()
	last, err := cluster.UntilPhase(s.ctx, seen, phase)
	s.must(err)
	s.t.Logf("%s: %s: %s", last.Restart.Name, phase, last.Restart.Status.Message)
	return last.Restart
}

// endedTimes waits until a workload's Restart has ended so many times, for who
// cannot or need not follow it.
func (s *story) endedTimes(kind, name string, n int) v1alpha1.Restart {
	s.t.Helper()
	r := v1alpha1.Restart{}
	s.must(cluster.Until(s.ctx, fmt.Sprintf("%s %s was restarted %d times", kind, name, n), func(ctx context.Context) (bool, error) {
		r = v1alpha1.Restart{} // a field that is left out keeps what was read before
		if err := s.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: restart.Name(kind, name)}, &r); err != nil {
			return false, err
		}
		if len(r.Status.History) != n || !r.Status.Phase.Ended() {
			return false, fmt.Errorf("%d times, now it is %s: %s", len(r.Status.History), r.Status.Phase, r.Status.Message)
		}
		return true, nil
	}))
	s.t.Logf("%s: %s: %s", r.Name, r.Status.Phase, r.Status.Message)
	return r
}

// refused is a Restart's end before anything was touched, told to the owners.
func (s *story) refused(seen <-chan cluster.Sighting) v1alpha1.Restart {
	s.t.Helper()
	r := s.ended(seen, v1alpha1.PhaseRefused)
	s.toldOn(r.Spec.Target.Kind, r.Spec.Target.Name, "RestartRefused")
	return r
}

func (s *story) podsOf(name string) []corev1.Pod {
	s.t.Helper()
	pods, err := s.Pods(s.ctx, s.namespace, name)
	s.must(err)
	return pods
}

// untilPods waits for n pods, Ready or not.
func (s *story) untilPods(name string, n int) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, fmt.Sprintf("there are %d pods", n), func(ctx context.Context) (bool, error) {
		pods, err := s.Pods(ctx, s.namespace, name)
		return len(pods) == n, err
	}))
}
