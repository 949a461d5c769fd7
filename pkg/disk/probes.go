package disk

import "time"

// A place whose looks are costly is looked at seldom. Between two of them a
// Prober tells how its hot files go on:
//
//	look ──→ probe → probe → … → probe ──→ look
//	          └ each 1.25 s, each second while it grows ┘
//
// A probe may run beside a look, which takes seconds where there are very many
// files. Its figure is a sample as any other, with one exception: when a look finds
// more than its probes had seen, then the files that change are not
// the hot ones, and that nothing changed in the hot ones says nothing. So the
// samples since the look before are taken back, and until a look is content with
// its probes again, those that find no change are no samples. By how much the last
// of them was wrong is a metric.

// probes tells whether a place is to be probed.
func (p *place) probes() bool { return p.hot && p.probeEvery > 0 }

// stirs tells whether the last sample was another than the one before.
func (p *place) stirs() bool {
	n := len(p.series)
	return n > 1 && p.series[n-1].Usage != p.series[n-2].Usage
}

// rebase takes in a look that is no probe, before it becomes a sample.
func (p *place) rebase(l Look) {
	at := l.Started.Add(l.Took)
	if p.foretold {
		p.foretold = false
		p.blind = farther(l.Usage.Bytes, p.usage.Bytes, p.base.Bytes) ||
			farther(l.Usage.Inodes, p.usage.Inodes, p.base.Inodes)
		if p.blind {
			p.takeBack()
		}
	}
	p.base, p.baseAt = l.Usage, at
}

// corrects tells by how much the figure that a look which is no probe replaces was
// wrong, where it was a probe's: what there is, less what was told. What it has
// grown by since at its rate is no error.
func (p *place) corrects(l Look) (by Usage, ok bool) {
	if l.Probed || !p.foretold {
		return Usage{}, false
	}
	since := l.Started.Add(l.Took).Sub(p.at).Seconds()
	wrong := func(is, was int64, t Trend) int64 { return outside(is, was, was+int64(since*t.Rate.High)) }
	return Usage{
		Bytes:  wrong(l.Usage.Bytes, p.usage.Bytes, p.trends.Bytes),
		Inodes: wrong(l.Usage.Inodes, p.usage.Inodes, p.trends.Inodes),
	}, true
}

// outside is how far x is from what lies between a and b; negative: the figures
// were too high.
func outside(x, a, b int64) int64 {
	switch {
	case x < min(a, b):
		return x - min(a, b)
	case x > max(a, b):
		return x - max(a, b)
	}
	return 0
}

// farther tells whether it is farther from b to a than from b to c.
func farther(a, b, c int64) bool { return max(a-b, b-a) > max(b-c, c-b) }

// takeBack lets go of the samples since the last look that was no probe.
func (p *place) takeBack() {
	n := len(p.series)
	for n > 0 && p.series[n-1].At.After(p.baseAt) {
		n--
	}
	p.takenBack = len(p.series) - n
	p.series = p.series[:n]
}

// tells tells whether a probe says something of its place.
func (p *place) tells(l Look) bool { return !p.blind || l.Usage != p.usage }

// probeDue tells whether it is time for a probe.
func (p *place) probeDue(now time.Time) bool {
	return p.probes() && p.probing.IsZero() && !now.Before(p.probed.Add(p.probeEvery))
}

// plan has a place wait for its next look or probe, whichever is first.
func (w *Watcher) plan(p *place) {
	if p.queued || p.asleep || !p.measured() {
		return
	}
	w.schedule.remove(p)
	looks, probes := p.started.IsZero(), p.probes() && p.probing.IsZero()
	switch {
	case !looks && !probes:
		return
	case !probes:
		p.due = p.walked.Add(p.interval)
	case !looks:
		p.due = p.probed.Add(p.probeEvery)
	default:
		p.due = p.walked.Add(p.interval)
		if at := p.probed.Add(p.probeEvery); at.Before(p.due) {
			p.due = at
		}
	}
	w.schedule.add(p)
}

// finishProbe takes in what a probe told. What a look told that ended
// meanwhile is newer.
func (w *Watcher) finishProbe(r result) {
	p := r.place
	begun := p.probing
	p.probing, p.group.running = time.Time{}, p.group.running-1
	p.probeCost, w.spent = probeCost(p.probeCost, r.work), true
	if w.places[p.id] != p {
		return
	}
	switch {
	case r.err != nil:
		p.hot = false // the next look tells why
	case p.known() && !begun.Before(p.at) && p.tells(r.look):
		w.look(p, r.look)
	}
	w.plan(p)
}

// probeCost is what a probe is expected to cost after another took d. Where the
// kernel's caches are cold, or others had the CPU, d is ten times as much; by a
// mean the next probe would come 10 s later for that. So it falls at once and rises by half at most.
func probeCost(cost, d time.Duration) time.Duration {
	if cost == 0 {
		return d
	}
	return min(d, smoothed(cost, min(d, 2*cost)))
}

// paceProbes sets how often each place is probed that is looked at too seldom,
// first what grows, and tells what share of a core that takes: half of what there is for all looks, at most.
func (w *Watcher) paceProbes() float64 {
	var growing, others []*place
	for p := range w.awake {
		switch {
		case !p.hot || !p.measured() || p.id.part == partOrphan || p.interval <= w.opts.Interval:
			p.probeEvery = 0
		case p.growing() || p.stirs():
			growing = append(growing, p)
		default:
			others = append(others, p)
		}
	}
	left := w.opts.Share / 2
	left -= w.paceEach(growing, w.opts.Interval/2, left)
	left -= w.paceEach(others, w.opts.Interval*5/8, max(left, w.opts.Share/20))
	return w.opts.Share/2 - left
}

func (w *Watcher) paceEach(places []*place, least time.Duration, share float64) float64 {
	costs := make([]time.Duration, 0, len(places))
	for _, p := range places {
		costs = append(costs, p.probeCost)
	}
	taken := 0.0
	for i, interval := range pace(costs, least, share) {
		p := places[i]
		p.probeEvery = max(interval, least)
		taken += p.probeCost.Seconds() / p.probeEvery.Seconds()
		if p.slot > 0 && p.due.After(p.probed.Add(p.probeEvery)) {
			w.plan(p)
		}
	}
	return taken
}
