package notify

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// What is sent next, and when: the oldest first, alerts again and again, what
// failed later.
func TestNext(t *testing.T) {
	now := noon().Add(2 * time.Minute)
	record := func(stage v1alpha1.NotifyStage) map[string]v1alpha1.NotifiedRecord {
		return map[string]v1alpha1.NotifiedRecord{"x": {Generation: 1, Stage: stage}}
	}
	told := func(phase v1alpha1.Phase, stage v1alpha1.NotifyStage) *v1alpha1.Restart {
		r := testRestart(1, 1, phase)
		r.Status.Notified = record(stage)
		return r
	}
	later := testRestart(1, 0, "")
	later.UID, later.Spec.RequestedAt = "u2", metav1.NewMicroTime(noon().Add(time.Second))
	for _, tt := range []struct {
		name     string
		receiver receiver
		all      []*v1alpha1.Restart
		prepare  func(*worker)
		found    types.UID
		wait     time.Duration
	}{
		{"nothing", &webhook{}, nil, nil, "", time.Hour},
		{"the oldest first", &webhook{}, []*v1alpha1.Restart{later, testRestart(1, 0, "")}, nil, "u1", 0},
		{"told already", &webhook{}, []*v1alpha1.Restart{told(v1alpha1.PhaseRunning, v1alpha1.NotifyRestarting)}, nil, "", time.Hour},
		{"told, not seen in the API yet", &webhook{}, []*v1alpha1.Restart{testRestart(1, 1, v1alpha1.PhaseRunning)}, func(w *worker) {
			w.told["u1"] = v1alpha1.NotifiedRecord{Generation: 1, Stage: v1alpha1.NotifyRestarting}
		}, "", time.Hour},
		{"told, and that is not written down", &webhook{}, []*v1alpha1.Restart{told(v1alpha1.PhaseRunning, v1alpha1.NotifyRestarting)}, func(w *worker) {
			w.unwritten["u1"] = true
		}, "u1", 0},
		{"failed a moment ago", &webhook{}, []*v1alpha1.Restart{testRestart(1, 0, "")}, func(w *worker) {
			w.tries["u1"] = try{2, now.Add(4 * time.Second)}
		}, "", 4 * time.Second},
		{"an alert is kept alive", &alertmanager{}, []*v1alpha1.Restart{told(v1alpha1.PhaseRunning, v1alpha1.NotifyRestarting)}, func(w *worker) {
			w.sent["u1"] = now.Add(-alertEvery)
		}, "u1", 0},
		{"and not too often", &alertmanager{}, []*v1alpha1.Restart{told(v1alpha1.PhaseRunning, v1alpha1.NotifyRestarting)}, func(w *worker) {
			w.sent["u1"] = now.Add(-time.Second)
		}, "", alertEvery - time.Second},
		{"by the next agent at once", &alertmanager{}, []*v1alpha1.Restart{told(v1alpha1.PhaseStalled, v1alpha1.NotifyFailed)}, nil, "u1", 0},
		{"one that is done is not", &alertmanager{}, []*v1alpha1.Restart{told(v1alpha1.PhaseSucceeded, v1alpha1.NotifyDone)}, nil, "", time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorker(&Notifier{}, v1alpha1.Receiver{Name: "x"}, nil, nil)
			w.receiver = tt.receiver
			if tt.prepare != nil {
				tt.prepare(w)
			}
			r, _, wait := w.next(tt.all, now)
			switch {
			case tt.found == "" && (r != nil || wait != tt.wait):
				t.Errorf("%v, wait %s; want to wait %s", r, wait, tt.wait)
			case tt.found != "" && (r == nil || r.UID != tt.found):
				t.Errorf("%v, wait %s; want %s", r, wait, tt.found)
			}
		})
	}
	if open(incidentOf(testRestart(1, 1, v1alpha1.PhaseStalled), ""), noon().Add(alertFor+2*time.Minute)) {
		t.Error("an alert that calls for a person never ends")
	}
}
