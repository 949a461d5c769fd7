package health

import (
	"testing"
	"time"
)

func TestTracker(t *testing.T) {
	type answer struct {
		at   time.Duration // after the start
		ok   bool
		want Verdict
	}
	policy := Policy{GracePeriod: 300 * time.Second, Interval: 60 * time.Second, Timeout: 20 * time.Second, MaxFailures: 3}
	never := policy
	never.MaxFailures = 0
	for _, tt := range []struct {
		name    string
		policy  Policy
		answers []answer
	}{
		{"healthy at once", policy, []answer{{0, true, Passed}, {time.Minute, true, Passed}}},
		{"failures within the grace period do not count", policy, []answer{
			{0, false, Ignored}, {100 * time.Second, false, Ignored}, {299 * time.Second, false, Ignored},
			{300 * time.Second, false, Failing}, {360 * time.Second, false, Failing}, {420 * time.Second, false, GiveUp}}},
		{"the first success ends the grace period", policy, []answer{
			{time.Second, true, Passed}, {2 * time.Second, false, Failing}, {3 * time.Second, false, Failing}, {4 * time.Second, false, GiveUp}}},
		{"a success forgives", policy, []answer{
			{0, true, Passed}, {1, false, Failing}, {2, false, Failing}, {3, true, Passed}, {4, false, Failing}, {5, false, Failing}, {6, false, GiveUp}}},
		{"without a maximum it is never given up", never, []answer{
			{0, true, Passed}, {1, false, Failing}, {2, false, Failing}, {3, false, Failing}, {4, false, Failing}, {5, false, Failing}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Unix(1000, 0)
			tracker := Tracker{Policy: tt.policy, Started: start}
			for i, a := range tt.answers {
				if got := tracker.Observe(start.Add(a.at), a.ok); got != a.want {
					t.Fatalf("answer %d: %v, want %v", i, got, a.want)
				}
			}
		})
	}
}

func TestPause(t *testing.T) {
	for _, tt := range []struct {
		n      int
		passed bool
		want   time.Duration
	}{
		{1, false, 50 * time.Millisecond}, {2, false, 100 * time.Millisecond}, {5, false, 800 * time.Millisecond},
		{8, false, 6400 * time.Millisecond}, {9, false, 10 * time.Second}, {1000, false, 10 * time.Second}, {1, true, 10 * time.Second},
	} {
		if got := pause(tt.n, tt.passed, 10*time.Second); got != tt.want {
			t.Errorf("pause(%d, %v) = %s, want %s", tt.n, tt.passed, got, tt.want)
		}
	}
}
