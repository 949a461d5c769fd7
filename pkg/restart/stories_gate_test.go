package restart

import (
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// storyPaused: one annotation on the Lease of the slots stops all that is not
// begun, and what was asked for meanwhile goes on when it is taken off.
func storyPaused(t *testing.T, s *stage, ns string) {
	s.cluster.Create(t, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: LeaseSlots}})
	s.cluster.Kubectl("annotate", "lease", "-n", ns, LeaseSlots, v1alpha1.AnnotationPaused+"=incident 42")
	d := s.deployment(t, ns, "web")
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
	r := s.until(t, ns, "deployment-web", func(r *v1alpha1.Restart) bool { return r.Status.Phase == v1alpha1.PhasePending })
	if r.Status.Message != "Waits: all restarts are paused (incident 42)." || r.Status.Started != nil {
		t.Errorf("%+v", r.Status)
	}
	s.cluster.Kubectl("annotate", "lease", "-n", ns, LeaseSlots, v1alpha1.AnnotationPaused+"-")
	wantPhase(t, s.ended(t, ns, "deployment-web"), v1alpha1.PhaseSucceeded)
	s.wantOneRollout(t, d)
}

func storyApproval(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	s.cluster.Kubectl("annotate", "namespace", ns, v1alpha1.AnnotationRestart+"=approve")
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
	r := s.until(t, ns, "deployment-web", func(r *v1alpha1.Restart) bool { return r.Status.Phase == v1alpha1.PhaseApproval })
	for _, words := range []string{"restart deployment-web nodeagent.dev/approved=1", "It replaces 3 pods of deployment/web"} {
		if !strings.Contains(r.Status.Message, words) {
			t.Errorf("%q does not say %q", r.Status.Message, words)
		}
	}
	// What was approved for another time is no approval.
	s.cluster.Kubectl("annotate", "--overwrite", "-n", ns, "restart", r.Name, v1alpha1.AnnotationApproved+"=7")
	began := time.Now()
	s.approve(t, ns, r.Name)
	wantPhase(t, s.ended(t, ns, r.Name), v1alpha1.PhaseSucceeded)
	s.wantOneRollout(t, d)
	s.wantEvents(t, ns, "Deployment", "web", EventStarted, EventSucceeded, EventWaits)
	t.Logf("from approval to the end: %s", time.Since(began).Round(time.Millisecond))

	// Nobody approves: it ends, and is told.
	s.deployment(t, ns, "late")
	b := s.agent(t, Options{Node: s.nodeB, ApprovalTimeout: 2 * time.Second})
	b.run(t)
	b.request(t, s.podOn(t, ns, "late", s.nodeB), v1alpha1.ReasonDiskFill)
	wantPhase(t, s.ended(t, ns, "deployment-late"), v1alpha1.PhaseRefused, "Nobody approved it within 2s.")
}

// storyModes: the workload's annotation goes before its namespace's, and that
// before the configuration.
func storyModes(t *testing.T, s *stage, ns string) {
	a := s.agent(t, Options{Node: s.nodeA, Mode: ModeObserve})
	a.run(t)
	s.cluster.Kubectl("annotate", "namespace", ns, v1alpha1.AnnotationRestart+"=never")
	for name, by := range map[string]struct {
		annotation string
		phase      v1alpha1.Phase
		says       string
	}{
		"by-namespace": {"", v1alpha1.PhaseRefused, "annotation nodeagent.dev/restart of namespace modes is never"},
		"acts":         {"act", v1alpha1.PhaseSucceeded, "replaced"},
		"observes":     {"observe", v1alpha1.PhaseObserved, "annotation nodeagent.dev/restart of deployment/observes is observe"},
		"misspelt":     {"yes", v1alpha1.PhaseRefused, "none of act, approve, observe and never"},
	} {
		t.Run(name, func(t *testing.T) {
			d := s.deployment(t, ns, name)
			if by.annotation != "" {
				s.annotate(t, d, v1alpha1.AnnotationRestart+"="+by.annotation)
			}
			a.request(t, s.podOn(t, ns, name, s.nodeA), v1alpha1.ReasonDiskFill)
			wantPhase(t, s.ended(t, ns, "deployment-"+name), by.phase, by.says)
		})
	}
}

// storyWindows: outside all windows a restart waits, unless the disk is full
// before that or a person asked.
func storyWindows(t *testing.T, s *stage, ns string) {
	closed, err := NewWindows([]v1alpha1.RestartWindow{{
		Start: time.Now().UTC().Add(12*time.Hour).Format("4 15") + " * * *", Duration: metav1.Duration{Duration: time.Hour},
	}})
	if err != nil {
		t.Fatal(err)
	}
	a := s.agent(t, Options{Node: s.nodeA, Windows: closed, Urgent: 15 * time.Minute})
	a.run(t)
	ask := func(name string, full time.Duration) {
		t.Helper()
		s.deployment(t, ns, name)
		pod := s.podOn(t, ns, name, s.nodeA)
		_, err := a.requester.Request(t.Context(), Request{
			Pod:    Pod{Namespace: ns, Name: pod.Name, UID: string(pod.UID)},
			Reason: v1alpha1.ReasonDiskFill, FullAt: time.Now().Add(full),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ask("waits", time.Hour)
	r := s.until(t, ns, "deployment-waits", func(r *v1alpha1.Restart) bool { return r.Status.Phase == v1alpha1.PhasePending })
	if !strings.Contains(r.Status.Message, "Waits for the next window, which opens at") || r.Status.Started != nil {
		t.Errorf("%+v", r.Status)
	}
	ask("urgent", 5*time.Minute)
	wantPhase(t, s.ended(t, ns, "deployment-urgent"), v1alpha1.PhaseSucceeded)
	s.deployment(t, ns, "by-hand")
	s.ask(t, ns, "apps/v1", KindDeployment, "by-hand", nil)
	wantPhase(t, s.ended(t, ns, "deployment-by-hand"), v1alpha1.PhaseSucceeded)

	// The window opens: another agent takes the one that waits up where it is.
	open := s.agent(t, Options{Node: s.nodeA})
	if err := s.runOnly(t, open, ns, "deployment-waits"); err != nil {
		t.Fatal(err)
	}
	wantPhase(t, s.restart(t, ns, "deployment-waits"), v1alpha1.PhaseSucceeded)
}

// storyIneffective: the third restart within a day is the last one until a
// person deletes the Restart.
func storyIneffective(t *testing.T, s *stage, ns string) {
	s.deployment(t, ns, "web")
	a := s.agent(t, Options{Node: s.nodeA, Cooldown: time.Millisecond})
	a.run(t)
	for round := range 3 {
		o := a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
		if o.Kind != Created && o.Kind != Renewed {
			t.Fatalf("round %d: outcome %+v", round, o)
		}
		want, words := v1alpha1.PhaseSucceeded, "3 pods replaced"
		if round == 2 {
			want, words = v1alpha1.PhaseIneffective, "It was the third within 24 hours."
		}
		wantPhase(t, s.ended(t, ns, "deployment-web"), want, words)
	}
	if o := a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill); o.Kind != Ineffective {
		t.Errorf("outcome %+v, want Ineffective", o)
	}
	s.cluster.Kubectl("delete", "restart", "-n", ns, "deployment-web")
	a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
	wantPhase(t, s.ended(t, ns, "deployment-web"), v1alpha1.PhaseSucceeded)
	apiserver.Eventually(t, time.Minute, "the Deployment's Events tell of it", func() bool {
		return slices.Contains(s.events(t, ns, "Deployment", "web"), EventIneffective)
	})
}
