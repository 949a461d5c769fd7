package restart

import (
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
