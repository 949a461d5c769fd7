package disk

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

const mib = 1 << 20

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// every makes a series of values in MiB, one each `step`.
func every(step time.Duration, values ...float64) []Point {
	out := make([]Point, len(values))
	for i, v := range values {
		out[i] = Point{At: epoch.Add(time.Duration(i) * step), Value: v * mib}
	}
	return out
}

// curve samples a function of seconds that gives MiB, every 2 s.
func curve(from, to float64, f func(s float64) float64) []Point {
	var out []Point
	for s := from; s <= to; s += 2 {
		out = append(out, Point{At: epoch.Add(time.Duration(s * float64(time.Second))), Value: f(s) * mib})
	}
	return out
}

func TestEstimate(t *testing.T) {
	type span struct{ low, high float64 } // MiB/s
	none := span{0, 0}
	for _, c := range []struct {
		name          string
		points        []Point
		expected, low span
		rising        time.Duration // at least; 0: not rising
		peak          float64
	}{
		{name: "nothing"},
		{name: "one", points: every(time.Second, 5)},
		{name: "flat", points: every(time.Second, 5, 5, 5, 5, 5, 5)},
		{name: "two are not sure", points: every(time.Second, 0, 10), expected: span{10, 10}},
		{name: "three are not sure", points: every(time.Second, 0, 10, 20), expected: span{10, 10}},
		{
			name: "steady", points: every(2*time.Second, 0, 40, 80, 120, 160, 200, 240),
			expected: span{20, 20}, low: span{20, 20}, rising: 12 * time.Second,
		},
		{
			name:     "leak after five idle minutes",
			points:   curve(0, 300, func(s float64) float64 { return 20 * max(0, s-290) }),
			expected: span{15, 20}, low: span{10, 20}, rising: 8 * time.Second,
		},
		{
			name: "one step", points: every(2*time.Second, 0, 0, 0, 300, 300, 300, 300, 300),
			expected: none,
		},
		{
			name: "fill of 3 s, just over", points: every(2*time.Second, 0, 0, 50, 250, 300, 300),
			expected: span{0, 100}, low: none,
		},
		{
			name: "outlier above", points: every(2*time.Second, 0, 40, 80, 920, 160, 200, 240, 280, 320, 360),
			expected: span{19, 21}, low: span{15, 20}, rising: 18 * time.Second,
		},
		{
			name: "outlier below", points: every(2*time.Second, 1000, 1040, 1080, 0, 1160, 1200, 1240, 1280, 1320, 1360),
			expected: span{19, 21}, low: span{15, 20}, rising: 18 * time.Second,
		},
		{
			name: "a zero as the newest is no growth", points: every(2*time.Second, 1000, 1040, 1080, 1120, 1160, 0),
			expected: none, peak: 1120,
		},
		{
			name: "reset on a drop", points: every(2*time.Second, 0, 100, 200, 300, 400, 10, 30, 50, 70, 90),
			expected: span{10, 10}, low: span{10, 10}, rising: 8 * time.Second, peak: 300,
		},
		{name: "shrinking", points: every(2*time.Second, 100, 99, 98, 97, 96, 95), expected: none, peak: -1},
		{
			name: "bursts each 10 s for five minutes",
			points: curve(0, 300, func(s float64) float64 {
				return 30 * math.Floor(s/10)
			}),
			expected: span{2.5, 3.5}, low: span{1, 3}, rising: 250 * time.Second,
		},
		{
			name:     "fast, then slow",
			points:   curve(0, 200, func(s float64) float64 { return min(100*s, 10000) + 2*max(0, s-100) }),
			expected: span{1.9, 2.1}, low: span{1.9, 2.1}, rising: 8 * time.Second,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Estimate(c.points)
			in := func(what string, v float64, s span) {
				if v /= mib; v < s.low-1e-9 || v > s.high+1e-9 {
					t.Errorf("%s %.2f MiB/s, want from %.2f to %.2f", what, v, s.low, s.high)
				}
			}
			in("expected", got.Rate.Expected, c.expected)
			in("low", got.Rate.Low, c.low)
			if got.Rate.Low > got.Rate.Expected || got.Rate.Expected > got.Rate.High {
				t.Errorf("rate %+v is not in order", got.Rate)
			}
			if got.Rising < c.rising || (c.rising == 0 && got.Rising != 0) {
				t.Errorf("rising for %v, want at least %v", got.Rising, c.rising)
			}
			if c.peak >= 0 && got.Peak != c.peak*mib {
				t.Errorf("peak %.0f MiB, want %.0f", got.Peak/mib, c.peak)
			}
		})
	}
}

// TestEstimateBounds checks on random leaks with noise and one outlier that
// the true rate is within the bounds, and that they are worth something.
func TestEstimateBounds(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	within, rounds := 0, 500
	for range rounds {
		rate := 1 + 50*random.Float64()
		points := curve(0, 60, func(s float64) float64 {
			return 1000 + rate*s + rate*random.NormFloat64()*0.5
		})
		points[5+random.IntN(20)].Value *= 3 * random.Float64()
		r := Estimate(points).Rate
		if r.Low <= rate*mib && rate*mib <= r.High {
			within++
		}
		if math.Abs(r.Expected-rate*mib) > 0.2*rate*mib {
			t.Errorf("rate %.1f MiB/s estimated as %.1f", rate, r.Expected/mib)
		}
	}
	if within < rounds*8/10 {
		t.Errorf("the true rate was within the bounds in %d of %d", within, rounds)
	}
}

func TestSeriesIsBounded(t *testing.T) {
	var s Series
	for i := range 1000 {
		s = s.Add(Sample{At: epoch.Add(time.Duration(i) * 500 * time.Millisecond)})
	}
	if len(s) != seriesMost {
		t.Errorf("%d samples each 0.5 s, want %d", len(s), seriesMost)
	}
	s = nil
	for i := range 1000 {
		s = s.Add(Sample{At: epoch.Add(time.Duration(i) * time.Minute)})
	}
	if len(s) != seriesLeast {
		t.Errorf("%d samples a minute, want %d", len(s), seriesLeast)
	}
	if !s[len(s)-1].At.Equal(epoch.Add(999 * time.Minute)) {
		t.Errorf("the newest sample is of %v", s[len(s)-1].At)
	}
}

func BenchmarkEstimate(b *testing.B) {
	points := curve(0, 300, func(s float64) float64 { return 20*s + math.Sin(s) })
	for b.Loop() {
		Estimate(points)
	}
}
