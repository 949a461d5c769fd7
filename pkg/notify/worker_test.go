package notify

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// others is told of nothing but what leads to it, and by when.
type others struct{ told []time.Time }

func (o *others) send(context.Context, Incident, string) (string, error) {
	o.told = append(o.told, time.Now())
	return "", nil
}

func (o *others) again() time.Duration { return 0 }

// forgetful is an API server that takes all that is written down.
type forgetful struct{ client.WithWatch }

func (forgetful) Status() client.SubResourceWriter { return taken{} }

type taken struct{ client.SubResourceWriter }

func (taken) Patch(context.Context, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
	return nil
}

// A storm elsewhere does not keep a receiver waiting: the rate is of what it is
// told.
func TestOthersIncidentsTakeNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Notifier{
			client: forgetful{}, counter: newCounter(prometheus.NewRegistry(), []string{"x"}),
			log: slog.New(slog.DiscardHandler), now: func() time.Time { return noon().Add(time.Second) },
		}
		seen, routes, x := newRestarts(), newRouter(nil, n.config), &others{}
		for i := range 100 {
			r := testRestart(1, 0, "")
			r.UID, r.Name = types.UID(fmt.Sprint(i)), fmt.Sprint("deployment-", i)
			r.Spec.RequestedAt = metav1.NewMicroTime(noon().Add(time.Duration(i) * time.Millisecond))
			seen.set(r, true)
			leads := []string{"y"}
			if i >= 93 {
				leads = []string{"x"}
			}
			routes.known[incidentOf(r, "").ID] = leads
		}
		w := newWorker(n, v1alpha1.Receiver{Name: "x"}, seen, routes)
		w.receiver = x
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w.run(ctx)
		if len(x.told) != 7 {
			t.Fatalf("told %d times, want 7", len(x.told))
		}
		for i, want := range []time.Duration{0, 0, 0, 0, 0, time.Second, 2 * time.Second} {
			if after := x.told[i].Sub(began).Round(time.Millisecond); after != want {
				t.Errorf("told for the time %d after %s, want %s", i+1, after, want)
			}
		}
	})
}

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
