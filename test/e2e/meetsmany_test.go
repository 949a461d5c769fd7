package e2e

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// manyRequests is how many a kind's restart has to meet when its new pods come
// before the old ones go.
const manyRequests = 20_000

// enoughAsked is what a pod needs to be Ready that meetsMany.
const enoughAsked corev1.PodConditionType = "nodeagent.dev/enough-asked"

// meetsMany has the restart of so many pods last until it met manyRequests,
// however few of them a busy machine makes in a second: until the clients of
// askAll made them, new pods are not Ready. They come one by one, each when
// another share of the requests was made.
func (s *story) meetsMany(pod *corev1.PodSpec, name string, pods int) {
	pod.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: enoughAsked}}
	slowToEnd(pod)
	s.gate = &gate{s: s, name: name, pods: int64(pods), turn: map[types.UID]int64{}}
	ctx, cancel := context.WithCancel(s.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		err := cluster.Until(ctx, "the story ends", func(ctx context.Context) (bool, error) { return false, s.gate.look(ctx) })
		if s.t.Failed() {
			s.t.Logf("what keeps pods of %s from being Ready: %v", name, err)
		}
	})
	s.t.Cleanup(func() { cancel(); done.Wait() })
}

// slowToEnd lets a pod take its time, as one does that has long requests open:
// a restart that lasts meets more requests.
func slowToEnd(pod *corev1.PodSpec) {
	pod.Containers[0].Args = append(pod.Containers[0].Args, "--drain", "20s")
}

// gate keeps a workload's new pods from being Ready.
type gate struct {
	s    *story
	name string
	pods int64

	asking atomic.Bool         // clients do; who is there before is no new pod
	first  int64               // what they had asked when the first new pod was seen
	turn   map[types.UID]int64 // of a new pod, from 1 on
}

func (g *gate) look(ctx context.Context) error {
	pods, err := g.s.Pods(ctx, g.s.namespace, g.name)
	if err != nil {
		return err
	}
	for i := range pods {
		p := &pods[i]
		if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == enoughAsked }) {
			continue
		}
		open, err := g.open(ctx, p.UID)
		if err != nil {
			return err
		}
		if !open {
			continue
		}
		before := p.DeepCopy()
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: enoughAsked, Status: corev1.ConditionTrue})
		if err := g.s.Status().Patch(ctx, p, client.StrategicMergeFrom(before)); err != nil {
			return err
		}
	}
	return nil
}

func (g *gate) open(ctx context.Context, pod types.UID) (bool, error) {
	if !g.asking.Load() {
		return true, nil
	}
	tallies, err := g.s.Tallies(ctx, g.s.namespace, "client")
	if err != nil {
		return false, err
	}
	asked := 2 * min(tallies["new"].Requests, tallies["keepalive"].Requests)
	if len(g.turn) == 0 {
		g.first = asked
	}
	if g.turn[pod] == 0 {
		g.turn[pod] = int64(len(g.turn)) + 1
	}
	return asked-g.first >= manyRequests*min(g.turn[pod], g.pods)/g.pods, nil
}
