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
			name: "a leak under temporary files",
			points: curve(0, 300, func(s float64) float64 {
				return s + 30*math.Mod(s, 12)/12
			}),
			expected: span{0.95, 1.05}, low: span{0.9, 1}, rising: 250 * time.Second, peak: -1,
		},
		{
			name: "a saw has no floor that rises",
			points: curve(0, 298, func(s float64) float64 {
				return 50 + 2*math.Mod(s, 50)
			}),
			expected: span{1.9, 2.1}, low: span{1.9, 2.1}, rising: 40 * time.Second, peak: 142,
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

// TestPeaksAreRemembered: a tooth that is longer than the series is none the
// less known to have been higher before.
func TestPeaksAreRemembered(t *testing.T) {
	var series Series
	var trends Trends
	at := func(s int, mb float64) {
		u := Usage{Bytes: int64(mb * mib)}
		series = series.Add(Sample{At: epoch.Add(time.Duration(s) * time.Second), Usage: u})
		trends = series.Trends().remembering(trends, u)
	}
	for s := 0; s < 7200; s += 2 { // each tooth an hour
		at(s, 100+float64(s%3600)/10)
	}
	if got := trends.Bytes.Peak / mib; got < 459 || got > 460 {
		t.Errorf("an hour after the drop the peak is %.0f MiB", got)
	}
	for s := 7200; s < 14400; s += 2 { // and then it does not stop
		at(s, 100+float64(s-7200)/5)
	}
	if trends.Bytes.Peak != 0 {
		t.Errorf("the peak of %.0f MiB is remembered at %.0f MiB", trends.Bytes.Peak/mib, 100+7200.0/5)
	}
}

// TestBegan: growth is told to have begun within the step that first saw it.
func TestBegan(t *testing.T) {
	for _, c := range []struct {
		name   string
		points []Point
		began  float64 // seconds
	}{
		{"from the first look on", every(2*time.Second, 0, 20, 40, 60, 80), 0},
		{"half-way between two looks", every(2*time.Second, 0, 0, 10, 30, 50, 70), 3},
		{"after a pause", every(2*time.Second, 0, 20, 40, 60, 60, 60, 60, 60, 80, 100, 120, 140, 160, 180, 200, 220), 14},
	} {
		got := Estimate(c.points).Began.Sub(epoch).Seconds()
		if math.Abs(got-c.began) > 0.5 {
			t.Errorf("%s: began at %.1f s, want %.1f", c.name, got, c.began)
		}
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
