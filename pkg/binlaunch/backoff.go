package binlaunch

import (
	"math"
	"math/rand/v2"
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

// The pauses after a fetch that failed. Most of what an artifact can lack comes
// by itself: it is uploaded, a name is entered, a certificate renewed, a disk
// emptied.
const (
	firstFetchPause   = 5 * time.Second
	longestFetchPause = 5 * time.Minute
	// longestWrongPause is that of what was sent whole and was the wrong thing:
	// each try costs its server all of it.
	longestWrongPause = time.Hour
)

// fetchPause returns the pause after the nth fetch in a row that failed, n from
// 1: twice as long each time, and up to a quarter shorter by chance, so that not
// all nodes ask a server that comes back at the same moment.
func fetchPause(n int, longest time.Duration) time.Duration {
	pause := min(firstFetchPause<<min(max(n, 1)-1, 20), longest)
	return pause - rand.N(pause/4) //nolint:gosec // spreads load, guards nothing
}

// stable tells whether a task that was up for so long counts as one that ran:
// ten times its last pause, so that one that is up for a minute and ends is
// not started again every second.
func stable(up time.Duration, ends int) bool {
	return up >= stableFor && up >= 10*backoff(ends)
}
