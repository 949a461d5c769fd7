package notify

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func noon() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }

func testRestart(generation, observed int64, phase v1alpha1.Phase) *v1alpha1.Restart {
	r := &v1alpha1.Restart{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "deployment-checkout", UID: "u1", Generation: generation,
			CreationTimestamp: metav1.NewTime(noon().Add(-time.Hour)),
		},
		Spec: v1alpha1.RestartSpec{
			Target: v1alpha1.TargetReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "checkout"},
			Pod:    "checkout-7c9f", Node: "node-3", Reason: v1alpha1.ReasonDiskFill,
			Message:     "/app/logs/debug.log in checkout-7c9f grew 4.1 GiB in 10 min; node-3's disk is full in 22 min",
			RequestedAt: metav1.NewMicroTime(noon()),
		},
	}
	r.Status = v1alpha1.RestartStatus{ObservedGeneration: observed, Phase: phase, Holder: "node-3", Message: "it stands so."}
	if phase != "" {
		r.Status.Started = new(metav1.NewTime(noon()))
	}
	if phase.Ended() {
		r.Status.Finished = new(metav1.NewTime(noon().Add(time.Minute)))
	}
	return r
}

func TestStagesAndDue(t *testing.T) {
	type record = v1alpha1.NotifiedRecord
	told := func(generation int64, stage v1alpha1.NotifyStage) record {
		return record{Generation: generation, Stage: stage}
	}
	for _, tt := range []struct {
		name    string
		restart *v1alpha1.Restart
		stage   v1alpha1.NotifyStage
		told    record
		after   time.Duration
		due     bool
	}{
		{"new", testRestart(1, 0, ""), v1alpha1.NotifySeen, record{}, 0, true},
		{"new, told", testRestart(1, 0, ""), v1alpha1.NotifySeen, told(1, v1alpha1.NotifySeen), 0, false},
		{"taken up", testRestart(1, 1, v1alpha1.PhasePending), v1alpha1.NotifyRestarting, told(1, v1alpha1.NotifySeen), 0, true},
		{"running, told", testRestart(1, 1, v1alpha1.PhaseRunning), v1alpha1.NotifyRestarting, told(1, v1alpha1.NotifyRestarting), 0, false},
		{"verifying is still restarting", testRestart(1, 1, v1alpha1.PhaseVerifying), v1alpha1.NotifyRestarting, told(1, v1alpha1.NotifyRestarting), 0, false},
		{"done", testRestart(1, 1, v1alpha1.PhaseSucceeded), v1alpha1.NotifyDone, told(1, v1alpha1.NotifyRestarting), 0, true},
		{"done, told", testRestart(1, 1, v1alpha1.PhaseSucceeded), v1alpha1.NotifyDone, told(1, v1alpha1.NotifyDone), 0, false},
		{"done, nothing told: stages between are left out", testRestart(1, 1, v1alpha1.PhaseSucceeded), v1alpha1.NotifyDone, record{}, 0, true},
		{"stalled", testRestart(1, 1, v1alpha1.PhaseStalled), v1alpha1.NotifyFailed, record{}, 0, true},
		{"refused", testRestart(1, 1, v1alpha1.PhaseRefused), v1alpha1.NotifyFailed, record{}, 0, true},
		{"failed", testRestart(1, 1, v1alpha1.PhaseFailed), v1alpha1.NotifyFailed, record{}, 0, true},
		{"ended long ago", testRestart(1, 1, v1alpha1.PhaseFailed), v1alpha1.NotifyFailed, record{}, stale + 2*time.Minute, false},
		{"asked for anew", testRestart(2, 1, v1alpha1.PhaseSucceeded), v1alpha1.NotifySeen, told(1, v1alpha1.NotifyDone), 0, true},
		{"asked for anew, told", testRestart(2, 1, v1alpha1.PhaseSucceeded), v1alpha1.NotifySeen, told(2, v1alpha1.NotifySeen), 0, false},
		{"an older sight of it", testRestart(1, 1, v1alpha1.PhaseSucceeded), v1alpha1.NotifyDone, told(2, v1alpha1.NotifySeen), 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := incidentOf(tt.restart, "")
			if in.Stage != tt.stage {
				t.Errorf("stage %s, want %s", in.Stage, tt.stage)
			}
			if got := due(in, tt.told, noon().Add(2*time.Minute+tt.after)); got != tt.due {
				t.Errorf("due %v, want %v", got, tt.due)
			}
		})
	}
}

func TestText(t *testing.T) {
	in := incidentOf(testRestart(3, 3, v1alpha1.PhaseStalled), "https://g/d?ns={namespace}&pod={pod}&w={kind}%2F{workload}&node={node}")
	if in.Graph != "https://g/d?ns=shop&pod=checkout-7c9f&w=Deployment%2Fcheckout&node=node-3" {
		t.Errorf("graph %s", in.Graph)
	}
	first := text(in, true)
	for _, word := range []string{"shop/deployment/checkout", "NOT restarted", "/app/logs/debug.log", "4.1 GiB in 10 min", "Stalled: it stands so.", "shop/deployment-checkout#3", "node-3", in.Graph} {
		if !strings.Contains(first, word) {
			t.Errorf("the first message does not say %q:\n%s", word, first)
		}
	}
	if answer := text(in, false); strings.Contains(answer, "debug.log") || !strings.Contains(answer, "Stalled") {
		t.Errorf("an answer in the thread: %s", answer)
	}
}

func TestReceivers(t *testing.T) {
	config := v1alpha1.NotifyConfig{Receivers: []v1alpha1.Receiver{{Name: "a"}, {Name: "b"}}}
	withDefault := v1alpha1.NotifyConfig{Receivers: config.Receivers, Default: []string{"b"}}
	for _, tt := range []struct {
		name                    string
		onWorkload, onNamespace *string
		config                  v1alpha1.NotifyConfig
		want                    []string
	}{
		{"nothing said", nil, nil, config, []string{"a", "b"}},
		{"the default", nil, nil, withDefault, []string{"b"}},
		{"the namespace's", nil, new("a"), withDefault, []string{"a"}},
		{"the workload's first", new("b, a"), new("a"), withDefault, []string{"b", "a"}},
		{"nobody", new("none"), new("a"), withDefault, []string{"none"}},
		{"empty means nobody", new(""), new("a"), withDefault, []string{""}},
	} {
		if got := receivers(tt.onWorkload, tt.onNamespace, tt.config); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestAlerts(t *testing.T) {
	now := noon().Add(2 * time.Minute)
	on := alerts(incidentOf(testRestart(1, 1, v1alpha1.PhaseRunning), ""), now)
	if len(on) != 1 || on[0].Labels["alertname"] != alertRestart || !on[0].EndsAt.After(now) || !on[0].StartsAt.Equal(noon()) {
		t.Errorf("on its way: %+v", on)
	}
	bad := alerts(incidentOf(testRestart(1, 1, v1alpha1.PhaseStalled), ""), now)
	if len(bad) != 2 || bad[0].EndsAt.After(now) || bad[1].Labels["alertname"] != alertPerson || !bad[1].EndsAt.After(now) {
		t.Errorf("ended badly: %+v", bad)
	}
	good := alerts(incidentOf(testRestart(1, 1, v1alpha1.PhaseSucceeded), ""), now)
	if len(good) != 2 || good[0].EndsAt.After(now) || good[1].EndsAt.After(now) {
		t.Errorf("ended well: %+v", good)
	}
	for i, a := range good {
		if !a.EndsAt.After(a.StartsAt) {
			t.Errorf("%d ends before it starts: %+v", i, a)
		}
	}
	for name, value := range good[0].Labels {
		if on[0].Labels[name] != value {
			t.Errorf("label %s is %q and was %q: that is another alert", name, value, on[0].Labels[name])
		}
	}
}

// No error that is logged holds a secret.
func TestHush(t *testing.T) {
	const to = "slack://xoxb:123456-secrettoken@C0123456?api=https://slack.test/s3cretpath"
	for _, err := range []error{
		errors.New("sending to " + to + " failed"),
		&url.Error{Op: "Post", URL: to, Err: errors.New("connection refused")},
		errors.New("token 123456-secrettoken is not valid in C0123456"),
	} {
		said := hush(err, to).Error()
		for _, secret := range []string{"secrettoken", "C0123456", "s3cretpath"} {
			if strings.Contains(said, secret) {
				t.Errorf("%q holds %q", said, secret)
			}
		}
	}
}
