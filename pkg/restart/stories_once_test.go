package restart

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// quick is a tempo at which a story does not take minutes, and at which a busy
// machine does not take a slow agent for a dead one. A holder renews every ten
// seconds whatever the tempo.
func quick() tempo {
	return tempo{
		renew: time.Second, expiry: 12 * time.Second, spread: 500 * time.Millisecond,
		orphan: 25 * time.Second, waiting: 25 * time.Second, look: 500 * time.Millisecond,
	}
}

func (s *stage) quickAgent(t *testing.T, config *rest.Config, o Options) *agent {
	t.Helper()
	a := s.agentVia(t, config, o)
	a.controller.tempo = quick()
	return a
}

// storyRounds: two agents, and then three, see the same workload leak, fifty
// times over.
func storyRounds(t *testing.T, s *stage, ns string) {
	const rounds = 50
	d := s.deployment(t, ns, "web")
	nodes := []string{s.nodeA, s.nodeB, ns + "-c"}
	for n := 2; n <= len(nodes); n++ {
		t.Run(fmt.Sprintf("%d agents", n), func(t *testing.T) {
			var agents []*agent
			for _, node := range nodes[:n] {
				a := s.quickAgent(t, s.cluster.Config, Options{Node: node})
				a.run(t)
				agents = append(agents, a)
			}
			for round := range rounds {
				s.round(t, ns, round, d, agents)
			}
		})
	}
	var l *Ledger
	apiserver.Eventually(t, time.Minute, "no restart has a slot still", func() bool { // it is given back after the status is written
		var err error
		if l, err = readLedger(s.lease(t, ns, LeaseSlots)); err != nil {
			t.Fatal(err)
		}
		return len(l.Slots) == 0
	})
	if want := rounds * (len(nodes) - 1); len(l.Begun) != want {
		t.Errorf("%d restarts were counted, want %d", len(l.Begun), want)
	}
}

// round has each agent see another pod of a Deployment leak, all at once.
func (s *stage) round(t *testing.T, ns string, round int, d *appsv1.Deployment, agents []*agent) {
	t.Helper()
	pods := s.pods(t, ns, d.Name)
	before := d.Generation
	var all sync.WaitGroup
	var made atomic.Int32
	for i, a := range agents {
		all.Go(func() {
			for range 3 { // each agent's verdict stands until the pod is gone
				if o := a.request(t, &pods[i], v1alpha1.ReasonDiskFill); o.Kind == Created {
					made.Add(1)
				}
			}
		})
	}
	all.Wait()
	r := s.ended(t, ns, "deployment-"+d.Name)
	wantPhase(t, r, v1alpha1.PhaseSucceeded)
	s.settle(t, d, func() bool { return rolloutDeployment(d).complete })
	if made.Load() != 1 || d.Generation != before+1 || len(r.Status.History) != 1 {
		t.Fatalf("round %d: %d Restarts were made, generation went from %d to %d, history %+v", round, made.Load(), before, d.Generation, r.Status.History)
	}
	// A person clears it, so that no cooldown ends the next round.
	if err := s.cluster.Admin.Delete(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	s.settle(t, d, func() bool { return len(s.pods(t, ns, d.Name)) == 3 })
}

func (s *stage) lease(t *testing.T, ns, name string) *coordinationv1.Lease {
	t.Helper()
	lease := &coordinationv1.Lease{}
	if err := s.cluster.Admin.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, lease); err != nil {
		t.Fatal(err)
	}
	return lease
}

// wire can be cut: then nothing of an agent reaches the API, as when its node
// loses the network.
type wire struct {
	next http.RoundTripper
	cut  *atomic.Bool
}

var errCut = errors.New("the wire is cut")

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.cut.Load() {
		return nil, errCut
	}
	response, err := w.next.RoundTrip(r)
	if err == nil && w.cut.Load() { // it went there, and its answer did not come back
		_ = response.Body.Close()
		return nil, errCut
	}
	return response, err
}

// storyCutOff: the node that leads and holds a Restart is cut off in its
// middle. Another agent leads, takes it over and ends it; the first one comes
// back and does nothing more.
func storyCutOff(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	s.kubelet.Hold(ns, true)
	var cut atomic.Bool
	config := rest.CopyConfig(s.cluster.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return wire{next, &cut} })
	first := s.quickAgent(t, config, Options{Node: s.nodeA})
	first.run(t)
	apiserver.Eventually(t, 60*time.Second, "the first agent leads", func() bool { return s.leads(t, ns) == s.nodeA })
	second := s.quickAgent(t, s.cluster.Config, Options{Node: s.nodeB})
	second.run(t)
	first.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
	held := s.until(t, ns, "deployment-web", func(r *v1alpha1.Restart) bool { return r.Status.Phase == v1alpha1.PhaseRunning })
	cut.Store(true)
	s.until(t, ns, "deployment-web", func(r *v1alpha1.Restart) bool { return r.Status.Holder == s.nodeB })
	s.kubelet.Hold(ns, false)
	r := s.ended(t, ns, "deployment-web")
	wantPhase(t, r, v1alpha1.PhaseSucceeded, "3 pods replaced")
	cut.Store(false)
	apiserver.Eventually(t, time.Minute, "the first agent is back", func() bool {
		_, _, err := first.controller.list(t.Context(), client.MatchingFields{"spec.node": s.nodeA})
		return err == nil
	})
	if !r.Status.Started.Equal(held.Status.Started) || len(r.Status.History) != 1 || s.leads(t, ns) != s.nodeB {
		t.Errorf("status %+v, %s leads", r.Status, s.leads(t, ns))
	}
	s.wantOneRollout(t, d)
}

// leads is the node whose agent leads.
func (s *stage) leads(t *testing.T, ns string) string {
	t.Helper()
	lease := &coordinationv1.Lease{}
	if s.cluster.Admin.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: LeaseLeader}, lease) != nil {
		return ""
	}
	node, _, _ := strings.Cut(holderOf(lease), "_")
	return node
}

// storyKilledElsewhere: the agent is killed at each step boundary and its node
// does not come back. The leader finishes what it began.
func storyKilledElsewhere(t *testing.T, s *stage, ns string) {
	s.deployment(t, ns, "scout")
	moments := s.moments(t, ns, stopped(), s.requesting(ns, "scout"))
	for i, moment := range moments {
		t.Run(fmt.Sprintf("%02d %s", i, moment), func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprintf("web%d", i)
			d := s.deployment(t, ns, name)
			wantPhase(t, s.takenOverAt(t, ns, boundary{i, moment}, stopped(), s.requesting(ns, name)), v1alpha1.PhaseSucceeded, "replaced in")
			s.wantOneRollout(t, d)
		})
	}
}

// takenOverAt kills the first node's agent at a step boundary, and has the
// second node's end what it began, once.
func (s *stage) takenOverAt(t *testing.T, ns string, at boundary, c *clock, ask asking) *v1alpha1.Restart {
	t.Helper()
	restart := s.killAt(t, ns, at, c, ask)
	second := s.agent(t, Options{Node: s.nodeB, Now: c.now})
	if r := s.restart(t, ns, restart); active(r) {
		if err := second.controller.adopt(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.runOnly(t, second, ns, restart); err != nil {
		t.Fatal(err)
	}
	r := s.restart(t, ns, restart)
	if len(r.Status.History) != 1 {
		t.Errorf("history %+v, want one restart", r.Status.History)
	}
	return r
}

// boundary is one of a restart's step boundaries, as moments counts them.
type boundary struct {
	index  int
	moment string
}

// killAt runs the first node's controller until a step boundary and gives the
// Restart's name.
func (s *stage) killAt(t *testing.T, ns string, at boundary, c *clock, ask asking) string {
	t.Helper()
	a := s.agent(t, Options{Node: s.nodeA, Now: c.now})
	var seen []string
	a.controller.boundary = func(moment string) error {
		if len(seen) == 0 || seen[len(seen)-1] != moment {
			seen = append(seen, moment)
		}
		if len(seen) > at.index {
			return errKilled
		}
		return nil
	}
	name := ask(t, a)
	if err := s.runOnly(t, a, ns, name); !errors.Is(err, errKilled) {
		t.Fatalf("the controller ended with %v after %v", err, seen)
	}
	if last := seen[len(seen)-1]; last != at.moment {
		t.Errorf("it was killed %s, want %s: %v", last, at.moment, seen)
	}
	return name
}

// storyKilledWaiting: the agent is killed before and after it takes up a
// Restart that has to be approved.
func storyKilledWaiting(t *testing.T, s *stage, ns string) {
	moments := []string{"before Queue", "after Queue", "before Admit", "after Admit", "before Begin", "after Begin"}
	s.cluster.boundaries.add(s.name, moments...)
	for i, moment := range moments {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprintf("web%d", i)
			d := s.deployment(t, ns, name)
			first := s.agent(t, Options{Node: s.nodeA, Mode: ModeApprove})
			var seen []string
			first.controller.boundary = func(at string) error {
				seen = append(seen, at)
				switch at {
				case moment:
					return errKilled
				case "after Queue":
					s.approve(t, ns, "deployment-"+name)
				}
				return nil
			}
			first.request(t, s.podOn(t, ns, name, s.nodeA), v1alpha1.ReasonDiskFill)
			if err := s.runOnly(t, first, ns, "deployment-"+name); !errors.Is(err, errKilled) {
				t.Fatalf("the controller ended with %v after %v", err, seen)
			}
			s.approve(t, ns, "deployment-"+name)
			second := s.agent(t, Options{Node: s.nodeA, Mode: ModeApprove})
			if err := s.runOnly(t, second, ns, "deployment-"+name); err != nil {
				t.Fatal(err)
			}
			wantPhase(t, s.restart(t, ns, "deployment-"+name), v1alpha1.PhaseSucceeded)
			s.wantOneRollout(t, d)
		})
	}
}

// approve does what the Restart's message says.
func (s *stage) approve(t *testing.T, ns, name string) {
	t.Helper()
	r := s.restart(t, ns, name)
	s.cluster.Kubectl("annotate", "--overwrite", "-n", ns, "restart", name, fmt.Sprintf("%s=%d", v1alpha1.AnnotationApproved, r.Generation))
}

// storySlots: ten workloads at once and two slots. Every status that the API
// ever had is looked at.
func storySlots(t *testing.T, s *stage, ns string) {
	const workloads = 10
	for i := range workloads {
		s.deployment(t, ns, fmt.Sprintf("web%d", i))
	}
	atOnce := s.mostAtOnce(t, ns)
	limits := Limits{Cluster: 5, Namespace: 2, Hourly: workloads}
	for _, node := range []string{s.nodeA, s.nodeB} {
		a := s.quickAgent(t, s.cluster.Config, Options{Node: node, Limits: limits})
		a.run(t)
		for i := range workloads {
			a.request(t, s.podOn(t, ns, fmt.Sprintf("web%d", i), node), v1alpha1.ReasonDiskFill)
		}
	}
	for i := range workloads {
		wantPhase(t, s.ended(t, ns, fmt.Sprintf("deployment-web%d", i)), v1alpha1.PhaseSucceeded)
	}
	if most := atOnce(); most != 2 {
		t.Errorf("%d restarts ran at once, want 2", most)
	}
	// The budget of this hour is spent; a person's own restart goes on.
	s.deployment(t, ns, "one-more")
	a := s.quickAgent(t, s.cluster.Config, Options{Node: s.nodeA, Limits: limits})
	pod := s.podOn(t, ns, "one-more", s.nodeA)
	a.request(t, pod, v1alpha1.ReasonDiskFill)
	r := s.until(t, ns, "deployment-one-more", func(r *v1alpha1.Restart) bool {
		return r.Status.Phase == v1alpha1.PhasePending && strings.Contains(r.Status.Message, "10 of 10 restarts were begun within the hour")
	})
	if r.Status.Started != nil {
		t.Errorf("%+v", r.Status)
	}
	s.deployment(t, ns, "by-hand")
	s.ask(t, ns, "apps/v1", KindDeployment, "by-hand", func(spec *v1alpha1.RestartSpec) { spec.Node = "" })
	wantPhase(t, s.ended(t, ns, "deployment-by-hand"), v1alpha1.PhaseSucceeded)
}

// mostAtOnce follows a namespace's Restarts by the API's own watch and counts
// those that were begun and have not ended.
func (s *stage) mostAtOnce(t *testing.T, ns string) (most func() int) {
	t.Helper()
	var list v1alpha1.RestartList
	if err := s.cluster.Admin.List(t.Context(), &list, client.InNamespace(ns)); err != nil {
		t.Fatal(err)
	}
	watcher := s.watch(t, &list, client.InNamespace(ns))
	running, top := map[string]bool{}, 0
	var done sync.WaitGroup
	done.Go(func() {
		for e := range watcher.ResultChan() {
			if r, ok := e.Object.(*v1alpha1.Restart); ok {
				if delete(running, r.Name); active(r) && !fresh(r) && r.Status.Started != nil {
					running[r.Name] = true
				}
				top = max(top, len(running))
			}
		}
	})
	return func() int {
		watcher.Stop()
		done.Wait()
		return top
	}
}

// storySlotFreed: whoever had the only slot is gone for good, and so is its
// Restart.
func storySlotFreed(t *testing.T, s *stage, ns string) {
	s.deployment(t, ns, "first")
	s.deployment(t, ns, "second")
	o := Options{Node: s.nodeA, Limits: Limits{1, 1, 10}}
	dead := s.agent(t, o)
	dead.controller.boundary = func(moment string) error {
		if moment == "after Begin" {
			return errKilled
		}
		return nil
	}
	dead.request(t, s.podOn(t, ns, "first", s.nodeA), v1alpha1.ReasonDiskFill)
	if err := s.runOnly(t, dead, ns, "deployment-first"); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	s.cluster.Kubectl("delete", "restart", "-n", ns, "deployment-first")
	late := o
	var ahead atomic.Int64 // its clock is put forward once it saw the slot
	late.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	a := s.agent(t, late)
	a.run(t)
	a.request(t, s.podOn(t, ns, "second", s.nodeA), v1alpha1.ReasonDiskFill)
	s.until(t, ns, "deployment-second", func(r *v1alpha1.Restart) bool {
		return strings.Contains(r.Status.Message, "1 of 1 restarts run in the cluster")
	})
	ahead.Store(int64(slotDoubt + time.Second))
	wantPhase(t, s.ended(t, ns, "deployment-second"), v1alpha1.PhaseSucceeded)
}

// storyDeletedMidway: a person deletes the Restart while it runs. The rollout
// goes on by itself, the slot is free again, and nothing is restarted twice.
func storyDeletedMidway(t *testing.T, s *stage, ns string) {
	a, r := s.runningMidway(t, ns)
	s.cluster.Kubectl("delete", "restart", "-n", ns, r.Name)
	s.kubelet.Hold(ns, false)
	var d appsv1.Deployment
	d.Namespace, d.Name = ns, "web"
	s.settle(t, &d, func() bool { return rolloutDeployment(&d).complete })
	if s.replicaSets(t, ns, "web") != 2 {
		t.Errorf("%d ReplicaSets, want 2", s.replicaSets(t, ns, "web"))
	}
	apiserver.Eventually(t, 60*time.Second, "its agent leaves it", func() bool {
		a.controller.crew.mu.Lock()
		defer a.controller.crew.mu.Unlock()
		return len(a.controller.crew.wake) == 0
	})
	l, err := a.controller.slots.read(t.Context())
	if err != nil || len(l.Slots) != 0 {
		t.Errorf("slots %+v, %v", l.Slots, err)
	}
}
