//go:build linux

package disk

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// probing is a stage whose looks are costly and that can be probed.
type probing struct {
	*stage
	mu      sync.Mutex
	base    map[string]Look // by upper folder, of the last walk
	probes  map[string]int
	busy    map[string]bool
	hot     func(s float64) int64 // bytes by which hot files grew since the start
	cost    time.Duration
	walkedS map[string]float64
}

func newProbing() *probing {
	return &probing{
		stage: newStage(), base: make(map[string]Look), probes: make(map[string]int), busy: make(map[string]bool),
		walkedS: make(map[string]float64), hot: func(float64) int64 { return 0 },
	}
}

func (p *probing) options(t *testing.T) Options {
	o := p.stage.options(t)
	o.Meter = p
	return o
}

func (p *probing) Measure(ctx context.Context, t Target) (Look, error) {
	l, err := p.stage.Measure(ctx, t)
	l.Hot = true
	p.mu.Lock()
	defer p.mu.Unlock()
	p.base[t.Layer.Upper], p.walkedS[t.Layer.Upper] = l, time.Since(p.begun).Seconds()
	return l, err
}

func (p *probing) Probe(_ context.Context, t Target) (Look, error) {
	upper := t.Layer.Upper
	p.mu.Lock()
	if p.busy[upper] {
		panic("two probes of one layer at once")
	}
	p.busy[upper] = true
	p.mu.Unlock()
	if p.cost > 0 {
		time.Sleep(p.cost)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy[upper] = false
	p.probes[upper]++
	l := p.base[upper]
	l.Usage.Bytes += p.hot(time.Since(p.begun).Seconds()) - p.hot(p.walkedS[upper])
	l.Started, l.Took, l.Probed = time.Now().Add(-p.cost), p.cost, true
	return l, nil
}

func (p *probing) probed(upper string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.probes[upper]
}

// TestWatcherProbesBetweenLooks: a layer whose look takes 8 s, so that it may
// be looked at every 160 s alone, is told of in time all the same, while
// it is looked at too.
func TestWatcherProbesBetweenLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newProbing()
		leak := func(s float64) float64 { return 10 + 20*max(0, s-400) }
		s.hot = func(s float64) int64 { return int64(leak(s) * mib) }
		giant := s.add(app, holds(leak))
		s.stage.cost[giant.Layer.Upper] = 8 * time.Second
		o := s.options(t)
		w := watch(t, o)
		pass(400 * time.Second)
		if n := s.count(giant); n > 4 {
			t.Errorf("walked %d times in 400 s, want 3", n)
		}
		if n := s.probed(giant.Layer.Upper); n < 250 || n > 330 {
			t.Errorf("probed %d times in 400 s, want one each 1.25 s", n)
		}
		pass(12 * time.Second)
		select {
		case v := <-w.Offences():
			if v.Container.ID != app.ID {
				t.Errorf("told %+v", v)
			}
		default:
			t.Error("not told 12 s after the leak began")
		}
		before, last, walks := s.probed(giant.Layer.Upper), int64(0), s.count(giant)
		for range 400 {
			pass(time.Second)
			v := w.Verdicts()[0]
			if late := s.hot(time.Since(s.begun).Seconds()) - v.Usage.Bytes; late > 42*mib {
				t.Fatalf("%d MiB behind: more than 2 s", late/mib)
			}
			if v.Usage.Bytes < last {
				t.Fatalf("%d after %d: a look went back", v.Usage.Bytes, last)
			}
			last = v.Usage.Bytes
		}
		if n := s.probed(giant.Layer.Upper) - before; n < 380 {
			t.Errorf("probed %d times in 400 s of growth", n)
		}
		if s.count(giant) == walks {
			t.Error("never looked at while it grew")
		}
		if n, below, above := probeErrors(t, o.Registerer); n < 2 || below > mib || above > mib {
			t.Errorf("%d walks found probes wrong by %.0f bytes below and %.0f above; they saw all", n, below, above)
		}
	})
}

// probeErrors are how often a walk corrected a probe, and by how many bytes in all.
func probeErrors(t *testing.T, r prometheus.Registerer) (n uint64, below, above float64) {
	t.Helper()
	for _, m := range gather(t, r)["nodeagent_disk_measure_error_bytes"] {
		labels := make(map[string]string)
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if labels["method"] != "probe" {
			continue
		}
		n += m.GetHistogram().GetSampleCount()
		if labels["direction"] == tooLow {
			below += m.GetHistogram().GetSampleSum()
		} else {
			above += m.GetHistogram().GetSampleSum()
		}
	}
	return n, below, above
}

// TestWatcherBelievesNoBlindProbe: where the files that grow are not the hot
// ones, the looks alone make the forecast, as if there were no probes.
func TestWatcherBelievesNoBlindProbe(t *testing.T) {
	verdict := func(probes bool) Verdict {
		var out Verdict
		synctest.Test(t, func(t *testing.T) {
			s := newProbing()
			giant := s.add(app, holds(func(s float64) float64 { return 10 + 2*s }))
			s.stage.cost[giant.Layer.Upper] = 2 * time.Second
			o := s.options(t)
			if !probes {
				o.Meter = s.stage
			}
			w := watch(t, o)
			pass(20 * time.Minute)
			out = w.Verdicts()[0]
			// The first probes told 10 MiB as of the start, the walk after them
			// of 40 s later and more.
			if n, below, above := probeErrors(t, o.Registerer); probes != (n > 0) || probes != (below > 40*mib) || above > 0 {
				t.Errorf("with probes %v: %d walks corrected one, by %.0f bytes that it had not seen and %.0f too many", probes, n, below, above)
			}
		})
		return out
	}
	with, without := verdict(true), verdict(false)
	if !with.Offender && without.Offender || without.Rate.Expected == 0 {
		t.Errorf("offender %v, without probes %v", with.Offender, without.Offender)
	}
	if r, want := with.Rate.Expected, without.Rate.Expected; r < 0.9*want || r > 1.1*want {
		t.Errorf("it grows by %.0f bytes/s, without probes by %.0f", r, want)
	}
}

// TestCorrects: what a place grew by between a probe and the end of the walk, at
// the rate that its samples allow, is no error of the probe.
func TestCorrects(t *testing.T) {
	for _, c := range []struct {
		name     string
		foretold bool
		probed   bool
		grew     int64 // MiB, in the second since
		want     int64
		corrects bool
	}{
		{"as expected", true, false, 20, 0, true},
		{"nothing more", true, false, 0, 0, true},
		{"more than the probe saw", true, false, 50, 30, true},
		{"less", true, false, -5, -5, true},
		{"a probe", true, true, 50, 0, false},
		{"after a walk", false, false, 50, 0, false},
	} {
		p := &place{foretold: c.foretold, at: epoch, usage: Usage{Bytes: 100 * mib, Inodes: 7}}
		p.trends.Bytes.Rate.High = 20 * mib
		by, corrects := p.corrects(Look{
			Started: epoch, Took: time.Second, Probed: c.probed, Usage: Usage{Bytes: (100 + c.grew) * mib, Inodes: 7},
		})
		if by != (Usage{Bytes: c.want * mib}) || corrects != c.corrects {
			t.Errorf("%s: %+v, %v; want %d MiB, %v", c.name, by, corrects, c.want, c.corrects)
		}
	}
}

// TestProbesHaveAShare: costly probes of many layers take half of what there is
// for looks at most, and what grows comes first.
func TestProbesHaveAShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newProbing()
		s.cost = 10 * time.Millisecond
		var all []string
		for i := range 40 {
			id := string(rune('A' + i))
			look := still(5)
			c := s.add(container(id, "u-"+id, "app", id), look)
			s.stage.cost[c.Layer.Upper] = 100 * time.Millisecond
			all = append(all, c.Layer.Upper)
		}
		o := s.options(t)
		watch(t, o)
		pass(time.Minute)
		before, begun := 0, make(map[string]int)
		for _, upper := range all {
			begun[upper] = s.probed(upper)
			before += begun[upper]
		}
		pass(10 * time.Minute)
		after := 0
		for _, upper := range all {
			n := s.probed(upper)
			after += n
			if n-begun[upper] < 25 {
				t.Errorf("%s was probed %d times in 10 min, want 37", upper, n-begun[upper])
			}
		}
		// 0.025 of a core for 600 s at 10 ms each.
		if n := after - before; n < 1300 || n > 1600 {
			t.Errorf("%d probes in 10 min, want 1500", n)
		}
	})
}

// TestProbeCost: one outlier does not keep a place from its next probe, and what
// lasts is learnt.
func TestProbeCost(t *testing.T) {
	const usual = 100 * time.Microsecond
	cost := probeCost(0, 10*usual)
	if cost = probeCost(cost, usual); cost != usual {
		t.Errorf("%v after a cold first one, want %v", cost, usual)
	}
	if got := probeCost(cost, 100*usual); got != usual*3/2 {
		t.Errorf("%v after an outlier, want half as much again", got)
	}
	for range 8 {
		cost = probeCost(cost, 10*usual)
	}
	if cost < 9*usual || cost > 10*usual {
		t.Errorf("%v after eight of %v", cost, 10*usual)
	}
}
