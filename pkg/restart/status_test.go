package restart

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestBeginStatus(t *testing.T) {
	w := testWorld(KindDeployment)
	w.Written = map[string]Written{"old-0": {Bytes: 7, Held: true}}
	w.Restart.Status = v1alpha1.RestartStatus{
		Phase: v1alpha1.PhaseFailed, Finished: new(metav1.Now()), FreedBytes: 5, ReplacedPods: []string{"x"},
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReplaced}},
		History:    []v1alpha1.RestartRecord{{Phase: v1alpha1.PhaseFailed}},
	}
	s, err := nextStatus(w, Next(w))
	if err != nil {
		t.Fatal(err)
	}
	if s.Holder != nodeA || s.ObservedGeneration != 1 || !s.Started.Equal(new(metav1.NewTime(noon()))) || s.TargetUID != "target" {
		t.Errorf("status %+v", s)
	}
	if s.Finished != nil || s.FreedBytes != 0 || s.ReplacedPods != nil || s.Conditions != nil || len(s.History) != 1 {
		t.Errorf("the restart before it is left in %+v", s)
	}
	if len(s.OldPods) != 2 || s.OldPods[0] != (v1alpha1.PodReference{Name: "web-old-0", UID: "old-0", Node: nodeA, Bytes: 7}) {
		t.Errorf("old pods %+v", s.OldPods)
	}
}

func TestStartedNeverRepeatsAStamp(t *testing.T) {
	w := testWorld(KindDeployment)
	setStamp(&w, noon().Format(time.RFC3339))
	if at := startTime(w); !at.Equal(new(metav1.NewTime(noon().Add(time.Second)))) {
		t.Errorf("started at %s, a second after the last stamp is wanted", at)
	}
}

func TestFreedIsWhatWentWithGonePods(t *testing.T) {
	tests := []struct {
		name    string
		written map[string]Written
		there   bool // old-0 is still in the API
		want    int64
	}{
		{"both went", map[string]Written{"old-0": {Bytes: 100}, "old-1": {Bytes: 20}}, false, 120},
		{"one layer is still held", map[string]Written{"old-0": {Bytes: 100, Held: true}, "old-1": {Bytes: 20}}, false, 20},
		{"one pod is still there", map[string]Written{"old-0": {Bytes: 100}, "old-1": {Bytes: 20}}, true, 20},
		{"nothing is known", nil, false, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := stampedWorld(KindDeployment, v1alpha1.PhaseVerifying)
			rolledOut(&w)
			if test.there {
				w.Pods = append(w.Pods, oldPods()[0])
			}
			w.Written = test.written
			status := w.Restart.Status.DeepCopy()
			count(w, status)
			if status.FreedBytes != test.want {
				t.Errorf("freed %d, want %d", status.FreedBytes, test.want)
			}
		})
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var history []v1alpha1.RestartRecord
	for i := range 15 {
		history = remember(history, v1alpha1.RestartSpec{}, v1alpha1.RestartStatus{FreedBytes: int64(i)})
	}
	if len(history) != maxHistory || history[0].FreedBytes != 14 {
		t.Errorf("%d records, the newest %d", len(history), history[0].FreedBytes)
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 1023: "1023", 1024: "1.0Ki", 5 << 20: "5.0Mi", 1<<30 - 1: "1.0Gi", 4402341478: "4.1Gi", 3 << 40: "3.0Ti",
	} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

// Who was told of a restart when it was asked for is known when it waits, and when
// it begins: the next leader tells them nothing twice.
func TestWhoWasToldIsKept(t *testing.T) {
	w := testWorld(KindDeployment)
	w.Restart.Status.Notified = map[string]v1alpha1.NotifiedRecord{"oncall": {Generation: 1, Stage: v1alpha1.NotifySeen}}
	for _, s := range []Step{
		{Action: Queue, Phase: v1alpha1.PhaseApproval}, {Action: Queue, Phase: v1alpha1.PhasePending}, {Action: Begin, Phase: v1alpha1.PhasePending},
	} {
		status, err := nextStatus(w, s)
		if err != nil {
			t.Fatal(err)
		}
		if got := status.Notified["oncall"]; got.Stage != v1alpha1.NotifySeen {
			t.Errorf("after %s %s: %+v", s.Action, s.Phase, status.Notified)
		}
	}
}

// What others say without end stays bounded in the status and its history.
func TestStatusMessageIsBounded(t *testing.T) {
	w := begun(KindDeployment)
	s := end(v1alpha1.PhaseStalled, "Pod cannot be scheduled: "+strings.Repeat("0/5000 nodes are available. ", 1000))
	status, err := nextStatus(w, s)
	if err != nil {
		t.Fatal(err)
	}
	if n := len([]rune(status.Message)); n > maxMessage || len(status.History[0].Message) != len(status.Message) {
		t.Errorf("a message of %d characters", n)
	}
}

// A DaemonSet's pods end one after the other, on more nodes than a history
// holds: each still has its cooldown.
func TestCooldownOfManyNodes(t *testing.T) {
	var status v1alpha1.RestartStatus
	spec := testRestart(KindDaemonSet).Spec
	const nodes = 40
	for i := range nodes {
		spec.Node = fmt.Sprintf("node-%d", i)
		status.Phase, status.Message = v1alpha1.PhaseSucceeded, "1 pod replaced."
		status.Finished = new(metav1.NewTime(noon().Add(time.Duration(i) * time.Minute)))
		status.History = remember(status.History, spec, status)
	}
	o, now := Options{}.withDefaults(), noon().Add(nodes*time.Minute)
	for i := range nodes {
		spec.Node = fmt.Sprintf("node-%d", i)
		if until := coolUntil(status.History, spec, o); !until.Equal(noon().Add(time.Duration(i)*time.Minute + time.Hour)) {
			t.Errorf("on %s it is cool at %s, now is %s", spec.Node, until, now)
		}
	}
	spec.Node = "node-0"
	for range 2 * (maxHistory + maxNodes) {
		status.History = remember(status.History, spec, status)
	}
	if n := len(status.History); n > nodes+maxHistory {
		t.Errorf("%d records of %d nodes", n, nodes)
	}
	for i := range 2 * maxNodes {
		spec.Node = fmt.Sprintf("other-%d", i)
		status.History = remember(status.History, spec, status)
	}
	if n := len(status.History); n != maxHistory+maxNodes {
		t.Errorf("%d records, want %d", n, maxHistory+maxNodes)
	}
	spec.Scope = v1alpha1.ScopeWorkload
	var whole []v1alpha1.RestartRecord
	for range 2 * maxHistory {
		whole = remember(whole, spec, status)
	}
	if len(whole) != maxHistory {
		t.Errorf("%d records of a whole workload, want %d", len(whole), maxHistory)
	}
}
