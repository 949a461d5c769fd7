package health

import (
	"context"
	"time"
)

// Probe asks once. It returns nil for a success, or why there was none; ctx
// bounds it.
type Probe interface {
	Probe(ctx context.Context) error
}

// Checks are what a task is asked: readiness until it passes once, then health
// until the end. Either may be nil.
type Checks struct {
	Readiness         Probe
	ReadinessInterval time.Duration
	ReadinessTimeout  time.Duration
	Health            Probe
	Policy            Policy
}

// Report is what changed.
type Report struct {
	Verdict Verdict
	Reason  string // of a failure
}

// Watch asks until ctx ends or the task is given up, and hands every change to
// tell: first a Passed once readiness and health passed, then each time health
// turns, and each failure's reason. A task that was seen up before (the agent
// started again) is not asked for readiness.
func (c Checks) Watch(ctx context.Context, started time.Time, wasUp bool, tell func(Report)) {
	if c.Readiness != nil && !wasUp && !c.awaitReady(ctx, tell) {
		return
	}
	if c.Health == nil {
		tell(Report{Verdict: Passed})
		return
	}
	if !wasUp && !sleep(ctx, c.Policy.Delay-time.Since(started)) {
		return
	}
	tracker := Tracker{Policy: c.Policy, Started: started, passed: wasUp}
	last := Ignored
	for n := 1; ; n++ {
		err := ask(ctx, c.Health, c.Policy.Timeout)
		if ctx.Err() != nil {
			return
		}
		verdict := tracker.Observe(time.Now(), err == nil)
		if verdict != last || err != nil {
			tell(Report{Verdict: verdict, Reason: reason(err)})
		}
		if last = verdict; verdict == GiveUp || !sleep(ctx, pause(n, tracker.passed, c.Policy.Interval)) {
			return
		}
	}
}

func (c Checks) awaitReady(ctx context.Context, tell func(Report)) bool {
	for n := 1; ; n++ {
		err := ask(ctx, c.Readiness, c.ReadinessTimeout)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			return true
		}
		tell(Report{Verdict: Ignored, Reason: "not ready: " + err.Error()})
		if !sleep(ctx, pause(n, false, c.ReadinessInterval)) {
			return false
		}
	}
}

func ask(ctx context.Context, p Probe, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return p.Probe(ctx)
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// sleep is false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
