package health

import "time"

// Policy is Marathon's: gracePeriodSeconds, intervalSeconds, timeoutSeconds,
// maxConsecutiveFailures.
type Policy struct {
	Delay       time.Duration // from the start, until the first probe
	GracePeriod time.Duration // from the start, until the first success
	Interval    time.Duration
	Timeout     time.Duration
	MaxFailures int // in a row; 0: the task is never ended for it
}

// Verdict is what an answer means.
type Verdict int

// The verdicts.
const (
	Ignored Verdict = iota // a failure within the grace period
	Passed
	Failing // a failure that counts, not yet too often
	GiveUp  // one too many
)

// Tracker counts the answers of one task.
type Tracker struct {
	Policy   Policy
	Started  time.Time // when the task was started
	passed   bool      // once, ever
	failures int       // in a row, those that count
}

// Observe counts one answer that came at now.
func (t *Tracker) Observe(now time.Time, ok bool) Verdict {
	if ok {
		t.passed, t.failures = true, 0
		return Passed
	}
	if !t.passed && now.Sub(t.Started) < t.Policy.GracePeriod {
		return Ignored
	}
	t.failures++
	if t.Policy.MaxFailures > 0 && t.failures >= t.Policy.MaxFailures {
		return GiveUp
	}
	return Failing
}

// Failures returns how many failures in a row count.
func (t *Tracker) Failures() int { return t.failures }

// firstPause is the time between the first two probes.
const firstPause = 50 * time.Millisecond

// pause returns the time until probe number n+1, n from 1.
func pause(n int, passed bool, interval time.Duration) time.Duration {
	if passed || n > 16 {
		return interval
	}
	return min(firstPause<<(n-1), interval)
}
