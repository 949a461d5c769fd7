package binlaunch

import (
	"math"
	"time"
)

// Marathon's backoffSeconds, backoffFactor and maxLaunchDelaySeconds.
const (
	firstBackoff   = time.Second
	backoffFactor  = 1.15
	longestBackoff = time.Hour
	// stableFor is how long a task has to be up, at least, before its next
	// pause is the first one again.
	stableFor = 10 * time.Second
)

// backoff returns the pause after a task ended for the nth time in a row, n
// from 1.
func backoff(n int) time.Duration {
	pause := float64(firstBackoff) * math.Pow(backoffFactor, float64(max(n, 1)-1))
	return time.Duration(min(pause, float64(longestBackoff)))
}

// stable tells whether a task that was up for so long counts as one that ran:
// ten times its last pause, so that one that is up for a minute and ends is
// not started again every second.
func stable(up time.Duration, ends int) bool {
	return up >= stableFor && up >= 10*backoff(ends)
}
