package restart

import (
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestLedger(t *testing.T) {
	limits := Limits{Cluster: 3, Namespace: 2, Hourly: 4}
	slot := func(namespace, uid string) Slot {
		return Slot{Restart: namespace + "/x", UID: types.UID(uid), Generation: 1, Renewed: noon()}
	}
	begun := func(n int, ago time.Duration) []Begun {
		var all []Begun
		for i := range n {
			all = append(all, Begun{fmt.Sprint(i), noon().Add(-ago + time.Duration(i)*time.Second)})
		}
		return all
	}
	manual := testRestart(KindDeployment)
	manual.Spec.Reason = v1alpha1.ReasonManual
	tests := []struct {
		name    string
		ledger  Ledger
		restart *v1alpha1.Restart
		says    string // why it waits; empty: it does not
	}{
		{"none runs", Ledger{}, testRestart(KindDeployment), ""},
		{"one in its namespace", Ledger{Slots: []Slot{slot("shop", "a"), slot("other", "b")}}, testRestart(KindDeployment), ""},
		{"the cluster is full", Ledger{Slots: []Slot{slot("a", "a"), slot("b", "b"), slot("c", "c")}}, testRestart(KindDeployment), "3 of 3 restarts run in the cluster"},
		{"the cluster is full, for a person too", Ledger{Slots: []Slot{slot("a", "a"), slot("b", "b"), slot("c", "c")}}, manual, "3 of 3 restarts run in the cluster"},
		{"one of them is dead", Ledger{Slots: []Slot{slot("a", "a"), slot("b", "b"), slot("c", "c")}, dead: map[slotKey]bool{{"b", 1}: true}}, testRestart(KindDeployment), ""},
		{"a former restart's death is not this one's", Ledger{Slots: []Slot{slot("a", "a"), slot("b", "b"), slot("c", "c")}, dead: map[slotKey]bool{{"b", 0}: true}}, testRestart(KindDeployment), "3 of 3"},
		{"the namespace is full", Ledger{Slots: []Slot{slot("shop", "a"), slot("shop", "b")}}, testRestart(KindDeployment), "2 of 2 restarts run in namespace shop"},
		{"the budget is spent", Ledger{Begun: begun(4, 50*time.Minute)}, testRestart(KindDeployment), "4 of 4 restarts were begun within the hour; the next may begin at 12:10:00"},
		{"the budget is spent, a person asks", Ledger{Begun: begun(4, 50*time.Minute)}, manual, ""},
		{"the budget was spent an hour ago", Ledger{Begun: begun(4, time.Hour)}, testRestart(KindDeployment), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			why := test.ledger.full(test.restart, limits, noon())
			if test.says == "" && why != "" || !strings.Contains(why, test.says) {
				t.Errorf("it waits: %q, want %q", why, test.says)
			}
			if why != "" {
				return
			}
			next := test.ledger.with(test.restart, noon())
			if !next.holds(test.restart) || len(next.Slots) > limits.Cluster {
				t.Errorf("slots afterwards: %+v", next.Slots)
			}
			if again := next.with(test.restart, noon()); len(again.Slots) != len(next.Slots) {
				t.Errorf("taken twice: %+v", again.Slots)
			}
			if gone := next.renewed(test.restart, noon(), true); gone.holds(test.restart) || len(gone.Begun) != len(next.Begun) {
				t.Errorf("given back: %+v", gone)
			}
		})
	}
}

func TestLedgerIsKept(t *testing.T) {
	lease, r := &coordinationv1.Lease{}, testRestart(KindDeployment)
	if err := (&Ledger{}).with(r, noon()).into(lease); err != nil {
		t.Fatal(err)
	}
	if l, err := readLedger(lease); err != nil || !l.holds(r) || len(l.Begun) != 1 || l.paused != nil {
		t.Errorf("read back: %+v, %v", l, err)
	}
	lease.Annotations[v1alpha1.AnnotationSlots] = "{"
	if _, err := readLedger(lease); err == nil {
		t.Error("a ledger that cannot be read was taken for an empty one")
	}
}

func TestOrphans(t *testing.T) {
	asked := func(node string) *v1alpha1.Restart {
		r := testRestart(KindDeployment)
		r.Spec.Node = node
		return r
	}
	held := func(by string) *v1alpha1.Restart {
		r := stampedWorld(KindDeployment, v1alpha1.PhaseRunning).Restart
		r.Status.Holder = by
		return r
	}
	waiting := held(nodeB)
	waiting.Status.Phase, waiting.Status.Started = v1alpha1.PhaseApproval, nil
	later := held(nodeB)
	later.Status.Phase = "Later"
	tempo := defaultTempo()
	for _, test := range []struct {
		name    string
		restart *v1alpha1.Restart
		after   time.Duration // 0: at once; below it is none
	}{
		{"a person's", asked(""), 0},
		{"another node's that is not taken up", asked(nodeB), tempo.orphan},
		{"its own node's", asked(nodeA), -1},
		{"one that another holds", held(nodeB), tempo.orphan},
		{"one that it holds", held(nodeA), -1},
		{"one that waits", waiting, tempo.waiting},
		{"one in a phase of a later version", later, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := watched{restart: test.restart, signs: signsOf(test.restart), since: noon()}
			if test.after < 0 {
				if s.orphan(nodeA, noon().Add(24*time.Hour), tempo) {
					t.Error("it is taken")
				}
				return
			}
			if test.after > 0 && s.orphan(nodeA, noon().Add(test.after-time.Second), tempo) {
				t.Errorf("it is taken before %s", test.after)
			}
			if !s.orphan(nodeA, noon().Add(test.after), tempo) {
				t.Errorf("it is not taken after %s", test.after)
			}
		})
	}
}

// What a former version of the API types hashed tells nothing about what this
// one hashes.
func TestTemplateOfAnotherVersion(t *testing.T) {
	w := stampedWorld(KindDeployment, v1alpha1.PhaseRunning)
	w.Restart.Status.Template.Hash = "v0.30.0:0123456789abcdef"
	if s := Next(w); s.Action != Wait && s.Action != Report {
		t.Errorf("%s (%s): a template that nobody changed counts as changed", s.Action, s.Message)
	}
	setStamp(&w, "2026-03-01T12:03:00Z")
	if s := Next(w); s.Action != End {
		t.Errorf("%s: another restart of it was not seen", s.Action)
	}
}

// The labels of a pod of another node are for that node's agent to change.
func TestHandedOn(t *testing.T) {
	w := testWorld(KindReplicaSet)
	w.Target.ReplicaSet.Spec.Selector.MatchLabels["tier"] = "front"
	for i := range w.Pods {
		w.Pods[i].Spec.NodeName, w.Pods[i].Labels["tier"] = nodeB, "front"
	}
	w = beginning(w)
	s := Next(w)
	if s.Action != Hand || s.Pod.Node != nodeB {
		t.Fatalf("%+v, want Hand to node-b", s)
	}
	status, err := nextStatus(w, s)
	if err != nil || status.Holder != nodeB {
		t.Errorf("holder %s, %v", status.Holder, err)
	}
}

func TestManyPodsAreBounded(t *testing.T) {
	w := testWorld(KindDeployment)
	w.Pods = nil
	for i := range 8000 {
		p := testPod(fmt.Sprintf("web-%d", i), fmt.Sprintf("uid-%d", i), true)
		if i < 7990 {
			p.Spec.NodeName = nodeB
		}
		w.Pods = append(w.Pods, p)
	}
	status := startStatus(w)
	if len(status.OldPods) != maxOldPods || status.Pods != 8000 || status.OldPods[0].Node != nodeA {
		t.Errorf("%d pods are named of %d, the first on %s", len(status.OldPods), status.Pods, status.OldPods[0].Node)
	}
}
