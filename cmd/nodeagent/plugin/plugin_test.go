package plugin

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		args string
		many bool
		want []named
		err  string
	}{
		{"deploy/web", false, []named{{"deploy", "web"}}, ""},
		{"deploy web shop", false, []named{{"deploy", "web"}, {"deploy", "shop"}}, ""},
		{"deploy/web sts/db", false, []named{{"deploy", "web"}, {"sts", "db"}}, ""},
		{"rollouts.argoproj.io/x", false, []named{{"rollouts.argoproj.io", "x"}}, ""},
		{"deploy,sts", true, []named{{"deploy", ""}, {"sts", ""}}, ""},
		{"deploy,sts web", false, []named{{"deploy", "web"}, {"sts", "web"}}, ""},
		{"deploy", false, nil, "say which deploy"},
		{"deploy/web", true, nil, "not both"},
		{"deploy web", true, nil, "not both"},
		{"deploy/", false, nil, "KIND/NAME"},
		{"deploy/a/b", false, nil, "KIND/NAME"},
		{"deploy/a sts", false, nil, "KIND/NAME"},
		{",", true, nil, "a kind is missing"},
	} {
		got, err := parse(strings.Fields(tt.args), tt.many)
		if tt.err == "" && (err != nil || !reflect.DeepEqual(got, tt.want)) {
			t.Errorf("%q: %v, %v", tt.args, got, err)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.err)
		}
	}
}

func testState(phase v1alpha1.Phase, observed int64) state {
	r := &v1alpha1.Restart{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "deployment-web", Generation: 2}}
	r.Status.Phase, r.Status.ObservedGeneration, r.Status.Message = phase, observed, "1 of 2 pods\nare new."
	r.Status.OldPods, r.Status.ReplacedPods = make([]v1alpha1.PodReference, 4), []string{"a"}
	w := restart.Wish{Target: v1alpha1.TargetReference{Kind: "Deployment", Name: "web"}}
	return newState(w, r)
}

func TestResult(t *testing.T) {
	gone := testState(v1alpha1.PhaseRunning, 2).seen(nil)
	for _, tt := range []struct {
		name   string
		states []state
		code   int
	}{
		{"done", []state{testState(v1alpha1.PhaseSucceeded, 2)}, ExitDone},
		{"the end of the one before is not this one's", []state{testState(v1alpha1.PhaseSucceeded, 1)}, ExitTimeout},
		{"on its way", []state{testState(v1alpha1.PhaseRunning, 2)}, ExitTimeout},
		{"waits for approval", []state{testState(v1alpha1.PhaseApproval, 2)}, ExitTimeout},
		{"refused", []state{testState(v1alpha1.PhaseRefused, 2), testState(v1alpha1.PhaseSucceeded, 2)}, ExitRefused},
		{"observed", []state{testState(v1alpha1.PhaseObserved, 2)}, ExitRefused},
		{"stalled counts more than refused", []state{testState(v1alpha1.PhaseRefused, 2), testState(v1alpha1.PhaseStalled, 2)}, ExitFailed},
		{"failed", []state{testState(v1alpha1.PhaseFailed, 2)}, ExitFailed},
		{"ineffective", []state{testState(v1alpha1.PhaseIneffective, 2)}, ExitFailed},
		{"deleted", []state{gone}, ExitFailed},
	} {
		code := ExitDone
		if err, ok := errors.AsType[*Ended](result(tt.states)); ok {
			code = err.Code
		}
		if code != tt.code {
			t.Errorf("%s: %d, want %d", tt.name, code, tt.code)
		}
	}
}

// An older sight of the Restart, or its end before this wish, changes nothing.
func TestSeen(t *testing.T) {
	s := testState("", 0)
	old := s.restart.DeepCopy()
	old.Generation, old.Status.Phase, old.Status.ObservedGeneration = 1, v1alpha1.PhaseSucceeded, 1
	if s.seen(old).restart == old {
		t.Error("what is older was taken")
	}
	done := s.restart.DeepCopy()
	done.Status.Phase, done.Status.ObservedGeneration = v1alpha1.PhaseSucceeded, 2
	if s = s.seen(done); !s.ended() {
		t.Error("the end was not taken")
	}
	if s = s.seen(nil); s.gone {
		t.Error("deleted after its end is no failure")
	}
}

func TestDisplays(t *testing.T) {
	now := time.Now()
	asked := func(ago time.Duration, phase v1alpha1.Phase, observed int64) state {
		s := testState(phase, observed)
		s.asked = now.Add(-ago)
		return s
	}
	running := asked(20*time.Second, v1alpha1.PhaseRunning, 2)
	p := picture{states: []state{
		running, asked(20*time.Second, "", 0), asked(0, v1alpha1.PhaseSucceeded, 2), asked(0, v1alpha1.PhaseStalled, 2),
	}, width: 200}
	drawn := strings.Split(p.draw(now), "\n")
	for i, want := range []string{
		"⠋ deployment/web [██        ] 1/4 20s Running: 1 of 2 pods are new.",
		"⠋ deployment/web [          ] 20s asked for; no agent has taken it up yet: see kubectl -n nodeagent get pods",
		"✓ deployment/web [██        ] 1/4 0s Succeeded: 1 of 2 pods are new.",
		"✗ deployment/web [██        ] 1/4 0s Stalled: 1 of 2 pods are new.",
	} {
		if drawn[i] != want {
			t.Errorf("line %d\n got %q\nwant %q", i, drawn[i], want)
		}
	}
	p.width = 20
	for line := range strings.Lines(p.draw(now)) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 20 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	var out bytes.Buffer
	l := &lines{out: &out, told: map[string]string{}}
	for range 3 {
		l.update([]state{running})
	}
	if strings.Count(out.String(), "deployment/web") != 1 {
		t.Errorf("the same is told again: %q", out.String())
	}
}

// A hint is given up after a moment, unless somebody says how long a request may
// take.
func TestHintsAreBounded(t *testing.T) {
	for given, want := range map[string]time.Duration{"": hints, "0": hints, "odd": hints, "1m": time.Minute} {
		o := newOptions()
		o.overrides.Timeout = given
		ctx, cancel := o.hinting(t.Context())
		defer cancel()
		if until, bounded := ctx.Deadline(); !bounded || time.Until(until) > want || (want > hints) != (time.Until(until) > hints) {
			t.Errorf("with --request-timeout=%s bounded by %s, want %s", given, time.Until(until), want)
		}
	}
}
