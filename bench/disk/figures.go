package main

import (
	"slices"
	"time"
)

// figure is what somebody told of a layer at one moment.
type figure struct {
	at     time.Time // when it was told
	made   time.Time // when it was true, as its teller says
	bytes  int64
	method string
}

// point is what a layer really held at one moment.
type point struct {
	at    time.Time
	bytes int64
}

// seenAfter is the longest that what was written stayed unseen: for each
// point, the time until a figure shows at least as much; what no figure shows
// counts until the last one. ok is false without points or figures.
func seenAfter(truth []point, figures []figure) (longest time.Duration, ok bool) {
	if len(truth) == 0 || len(figures) == 0 {
		return 0, false
	}
	for _, p := range truth {
		seen := figures[len(figures)-1].at
		for _, f := range figures {
			if !f.at.Before(p.at) && f.bytes >= p.bytes {
				seen = f.at
				break
			}
		}
		longest = max(longest, seen.Sub(p.at))
	}
	return longest, true
}

// grain is how closely a figure's own time is known: that of the truth's steps
// and of the age in a metric.
const grain = 50 * time.Millisecond

// largestError is the largest distance of a figure from the truth at the time it
// was made, as a part of that truth. Figures from before the first point are not
// looked at. ok is false when there were no others.
func largestError(truth []point, figures []figure) (worst float64, ok bool) {
	for _, f := range figures {
		if len(truth) == 0 || f.made.Before(truth[0].at) {
			continue
		}
		ok = true
		low, high := at(truth, f.made.Add(-grain)), at(truth, f.made.Add(grain))
		var off int64
		switch {
		case f.bytes < low:
			off = low - f.bytes
		case f.bytes > high:
			off = f.bytes - high
		}
		worst = max(worst, float64(off)/float64(max(1, low)))
	}
	return worst, ok
}

// at is what was there at a time: the last point not after it, or the first.
func at(truth []point, t time.Time) int64 {
	i, _ := slices.BinarySearchFunc(truth, t, func(p point, t time.Time) int {
		if p.at.After(t) {
			return 1
		}
		return -1
	})
	return truth[max(0, i-1)].bytes
}

// taken counts the figures that were newly taken, by the times they were made.
// The age in a metric moves a little against the clock from one answer to the
// next.
func taken(figures []figure) int {
	n := 0
	var last time.Time
	for _, f := range figures {
		if f.made.Sub(last) > grain {
			n++
			last = f.made
		}
	}
	return n
}

// median of at least one value.
func median(values []float64) float64 {
	v := slices.Clone(values)
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
