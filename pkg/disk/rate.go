package disk

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Point is one value of a series: bytes or inodes at a time.
type Point struct {
	At    time.Time
	Value float64
}

// Trend is what a series of points says about growth.
type Trend struct {
	Rate Rate
	// Rising is for how long it has been growing, without a pause longer
	// than those it had made before; 0 when it does not grow. Looks is how
	// many points that growth was seen in.
	Rising time.Duration
	Looks  int
	// Began is since when it has grown, at a tenth of its rate or more, with
	// no pause above 5 s; zero when it does not grow. Rising goes by a window.
	Began time.Time
	// Floor tells that the rate is that of the floor: what stays when files
	// that come and go have gone.
	Floor bool
	// Peak is the level it stood at before it last dropped. Growing back to
	// it is nothing new: a log that is rotated does it all the time.
	Peak float64
}

const (
	newest    = 5  // points of the shortest window: one more than a growth must be seen in
	thinned   = 24 // points of a window after thinning: 276 pairs
	outlier   = 0.1
	riseShare = 0.1  // of the expected growth: less than that is a pause
	onset     = 0.01 // of a rise: up to there it is quiet
	riseGap   = 5 * time.Second
	teeth     = 5    // drops that a floor must have been seen at
	z95       = 1.96 // two-sided 95% of the normal distribution
)

// Estimate tells how a series grows. Points are in order of time. It is a pure
// function; the cost is some 30 µs for a series that moves and nothing for one
// that does not.
//
// The slope of one window is Theil and Sen's: the median of the slopes of all
// pairs, with the bounds that Sen (1968) derives from Kendall's tau, so that no
// single wrong point moves it far. Windows of growing length, the newest points
// first, are joined as long as their bounds overlap (the rule of intersecting
// confidence intervals): a steady leak is judged by five minutes, one that just
// began by ten seconds.
//
// Growth that paused for longer than it ever did while it grew may be over:
// its Low is 0. That is how a start-up fill differs from a leak.
//
// A drop starts it over. Where there were many, as of temporary files or of a
// log that is rotated, the low points between them tell whether something
// stays: then that is the growth.
func Estimate(points []Point) Trend {
	seg, peak := sinceDrop(points)
	t := sinceThen(seg)
	t.Peak = peak
	f := floor(points)
	last := seg[max(0, len(seg)-1):]
	switch {
	case f.Rate.Low <= 0:
		return t
	case t.Rate.Low > f.Rate.Low && outgrew(last[0].Value, peak):
		return t // it outgrows what comes and goes
	}
	return f
}

// sinceThen is the trend of a segment without a drop.
func sinceThen(seg []Point) Trend {
	var t Trend
	if flat(seg) {
		return t
	}
	seg = sinceOnset(seg)
	rate, window := intersect(seg)
	t.Rate = rate
	if rate.Low <= 0 {
		t.Rate = positive(rate)
		return t
	}
	t.Rising, t.Looks = rising(window, rate.Expected)
	if t.Looks == 0 {
		t.Rate.Low = 0
		return t
	}
	t.Began = began(seg, rate.Expected)
	return t
}

// sinceOnset cuts off the quiet time before the growth, which says nothing of
// its rate: all but the last two points of the first hundredth of the rise.
func sinceOnset(seg []Point) []Point {
	top := seg[0].Value
	for _, p := range seg {
		top = max(top, p.Value)
	}
	quiet := seg[0].Value + onset*(top-seg[0].Value)
	i := 1
	for i < len(seg) && seg[i].Value <= quiet {
		i++
	}
	return seg[max(0, i-2):]
}

// floor is the trend of the lowest points after each drop.
func floor(points []Point) Trend {
	var lows []Point
	for rest := points; len(rest) > 0; {
		seg, _ := sinceDrop(rest)
		rest = rest[:len(rest)-len(seg)]
		if len(rest) > 0 { // what was before the first drop may be anything
			lows = append(lows, lowest(seg))
		}
	}
	if len(lows) < teeth {
		return Trend{}
	}
	slices.Reverse(lows)
	t := Trend{Floor: true, Rate: theilSen(thin(lows)), Looks: len(lows), Began: lows[0].At}
	t.Rising = points[len(points)-1].At.Sub(lows[0].At)
	return t
}

// lowest is the first of the lowest points.
func lowest(p []Point) Point {
	return slices.MinFunc(p, func(a, b Point) int { return cmp.Compare(a.Value, b.Value) })
}

// began goes back as long as it grew, and tells when within the first step the
// growth must have begun.
func began(seg []Point, rate float64) time.Time {
	at := seg[len(seg)-1].At
	for i := len(seg) - 1; i > 0 && at.Sub(seg[i].At) <= riseGap; i-- {
		if grows(seg[i-1], seg[i], rate) {
			took := time.Duration((seg[i].Value - seg[i-1].Value) / rate * float64(time.Second))
			at = seg[i].At.Add(-min(took, seg[i].At.Sub(seg[i-1].At)))
		}
	}
	return at
}

// grows tells whether a good part of the expected growth is between two points.
func grows(a, b Point, rate float64) bool {
	return b.Value-a.Value >= riseShare*rate*b.At.Sub(a.At).Seconds()
}

func positive(r Rate) Rate {
	return Rate{Low: max(r.Low, 0), Expected: max(r.Expected, 0), High: max(r.High, 0)}
}

func flat(points []Point) bool {
	for _, p := range points[min(1, len(points)):] {
		if p.Value != points[0].Value {
			return false
		}
	}
	return true
}

// sinceDrop cuts off what was before the last drop, and tells the level from
// which it dropped. One point that is alone, above or below, is an outlier and
// no drop.
func sinceDrop(p []Point) (seg []Point, peak float64) {
	if len(p) < 2 {
		return p, 0
	}
	lo, hi := p[len(p)-1].Value, p[len(p)-1].Value
	for i := len(p) - 1; i > 0; i-- {
		lo, hi = min(lo, p[i].Value), max(hi, p[i].Value)
		before := p[i-1].Value
		if i > 1 {
			before = min(before, p[i-2].Value)
		}
		level := before - outlier*(max(hi, before)-lo)
		if p[i].Value < level && (i+1 == len(p) || p[i+1].Value < level) {
			return p[i:], held(p[:i])
		}
	}
	return p, 0
}

// held is the highest level that lasted for two points.
func held(p []Point) float64 {
	if len(p) == 1 {
		return p[0].Value
	}
	top := 0.0
	for i := 1; i < len(p); i++ {
		top = max(top, min(p[i-1].Value, p[i].Value))
	}
	return top
}

// intersect joins windows of growing length while their bounds overlap, and
// returns the rate with the longest window that was joined.
func intersect(seg []Point) (Rate, []Point) {
	window := seg[max(0, len(seg)-newest):]
	rate := theilSen(window)
	for n := 2 * newest; len(window) < len(seg); n *= 2 {
		longer := seg[max(0, len(seg)-n):]
		r := theilSen(thin(longer))
		lo, hi := max(rate.Low, r.Low), min(rate.High, r.High)
		if lo > hi {
			break
		}
		rate = Rate{Low: lo, Expected: min(max(r.Expected, lo), hi), High: hi}
		window = longer
	}
	return rate, window
}

// thin takes at most `thinned` points, evenly, the first and the last among them.
func thin(p []Point) []Point {
	if len(p) <= thinned {
		return p
	}
	out := make([]Point, thinned)
	for i := range out {
		out[i] = p[i*(len(p)-1)/(thinned-1)]
	}
	return out
}

// theilSen is the median slope of all pairs with its 95% bounds.
func theilSen(p []Point) Rate {
	slopes := make([]float64, 0, len(p)*(len(p)-1)/2)
	for i := range p {
		for j := i + 1; j < len(p); j++ {
			if dt := p[j].At.Sub(p[i].At).Seconds(); dt > 0 {
				slopes = append(slopes, (p[j].Value-p[i].Value)/dt)
			}
		}
	}
	if len(slopes) == 0 {
		return Rate{}
	}
	slices.Sort(slopes)
	n, pairs := float64(len(p)), float64(len(slopes))
	spread := z95 * math.Sqrt(n*(n-1)*(2*n+5)/18)
	low := max(0, int((pairs-spread)/2))
	r := Rate{
		Low:      slopes[low],
		Expected: (slopes[(len(slopes)-1)/2] + slopes[len(slopes)/2]) / 2,
		High:     slopes[len(slopes)-1-low],
	}
	if len(p) < 4 { // too few to be sure of anything
		r.Low = min(r.Low, 0)
	}
	return r
}

// rising tells since when a window's growth goes on: 0 looks when the pause it
// makes now is longer than any it made before.
func rising(p []Point, rate float64) (time.Duration, int) {
	first, last, longest := -1, -1, time.Duration(0)
	for i := 1; i < len(p); i++ {
		if !grows(p[i-1], p[i], rate) {
			continue
		}
		if first < 0 {
			first = i - 1
		} else {
			longest = max(longest, p[i-1].At.Sub(p[last].At))
		}
		last = i
	}
	if first < 0 {
		return 0, 0
	}
	end := p[len(p)-1].At
	if end.Sub(p[last].At) > longest {
		return 0, 0
	}
	return end.Sub(p[first].At), len(p) - first
}
