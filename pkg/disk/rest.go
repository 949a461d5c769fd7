package disk

import (
	"math/rand/v2"
	"time"
)

// A place of which a Listener tells when something happens needs no look while
// nothing does. It is in one of three states:
//
//	awake   looked at every interval
//	calm    no figure of it changed in the last minutes and no file of it is
//	        watched without events, but it is looked at: it is the witness of
//	        its file system, whose own figures need looks
//	asleep  the same, and left alone but for a seldom look. Its figure is as
//	        old as what was last heard of all places, not as its last look.
//
//	       a look that finds nothing moving
//	awake ─────────────────────────────────→ calm or asleep
//	  ↑    an event; a look that fails or      │
//	  └──── finds otherwise; nothing heard; ───┘
//	        the witness is gone (one of them)
//
// A place that wakes gets the samples that looks would have found meanwhile, so
// forecast and verdict do not know that it slept.

// restInterval is the longest time between two looks at a place that sleeps.
const restInterval = 5 * time.Minute

// rest decides after a good look whether a place is left alone.
func (w *Watcher) rest(p *place, still bool) {
	p.calm = still && w.listener != nil && !p.woken && !p.moves() && !p.accused()
	fs := p.fs
	if p.calm && p.id.part != partOrphan && fs.witness == nil {
		fs.witness = p
	}
	if !p.calm || fs.witness == nil || fs.witness == p {
		return
	}
	w.schedule.remove(p)
	p.asleep, p.due = true, restUntil()
	delete(w.awake, p)
	p.series = Series{p.series[len(p.series)-1]} // the memory of the others is given back
	w.listener.Rest(p.id.folder)
}

func restUntil() time.Time {
	return time.Now().Add(restInterval - time.Duration(rand.Int64N(int64(restInterval/4)))) //nolint:gosec // spreads load
}

// confirm takes in a look at a place that sleeps, and found it as it was.
func (w *Watcher) confirm(p *place, l Look) {
	p.since, p.at, p.failures = l.Started, l.Started.Add(l.Took), 0
	p.fs = w.filesystem(p, l)
	p.due = restUntil()
	for _, t := range p.tracks {
		w.judge(t, p.at)
	}
}

// resign lets another place be the witness: one that sleeps, or else whichever
// is calm first.
func (w *Watcher) resign(p *place) {
	fs := p.fs
	if fs == nil || fs.witness != nil && fs.witness != p {
		return
	}
	fs.witness = nil
	for _, other := range w.places {
		if other != p && other.asleep && other.fs == fs && len(other.tracks) > 0 {
			w.rouse(other, time.Now())
			return
		}
	}
}

// accused tells whether a container that has the place is an offender: that
// it is one no longer takes looks.
func (p *place) accused() bool {
	for _, t := range p.tracks {
		if t.state.Offender {
			return true
		}
	}
	return false
}

// hear asks what happened since it was last asked, and wakes those places. It
// costs nothing for all others. One that is awake and cheap is looked at twice as
// often while it has events, so that a write is seen within about a second; where
// all together are not cheap, some are, for as much again at most.
func (w *Watcher) hear(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener == nil {
		return
	}
	hurry := int(w.opts.Share * float64(relist/briefLook))
	until, err := w.listener.Woken(func(folder string) {
		for _, part := range [...]Part{PartLayer, PartLogs, PartEmptyDir, PartVolume, partOrphan} {
			p := w.places[placeID{part: part, folder: folder}]
			if p == nil {
				continue
			}
			p.woken, p.calm = true, false
			switch {
			case p.asleep:
				w.rouse(p, now)
			case now.Sub(p.at) < w.opts.Interval/2-w.together():
			case p.interval <= w.opts.Interval:
				w.hasten(p, now)
			case p.cost < briefLook && hurry > 0:
				hurry--
				w.hasten(p, now)
			}
		}
	})
	if err == nil {
		w.heard = until
		return
	}
	w.listener = nil // its meter tells why
	for _, p := range w.places {
		p.calm = false
		if p.asleep {
			w.rouse(p, now)
		}
	}
}

// waiting is the schedule that a place is in while it waits for a look.
func (w *Watcher) waiting(p *place) *schedule {
	if p.asleep {
		return &w.sleepers
	}
	return &w.schedule
}

// rouse wakes a place and has it looked at now, unless it just is.
func (w *Watcher) rouse(p *place, now time.Time) {
	waits := p.slot > 0
	w.sleepers.remove(p)
	w.wake(p)
	if waits {
		p.due = now
		w.schedule.add(p)
	}
}

// hasten has a place that waits for a look looked at now.
func (w *Watcher) hasten(p *place, now time.Time) {
	if p.slot > 0 {
		w.schedule.remove(p)
		p.due = now
		w.schedule.add(p)
	}
}

// wake ends a place's sleep: nothing happened in it until what was last heard
// of all.
func (w *Watcher) wake(p *place) {
	at := w.at(p)
	p.asleep, p.calm = false, false
	w.awake[p] = true
	for _, x := range p.fs.series {
		if x.At.After(p.at) && !x.At.After(at) {
			p.series = p.series.Add(Sample{At: x.At, Usage: p.usage, Filesystem: x.Usage})
		}
	}
	p.at = at
}

// at is when a place's figure was true.
func (w *Watcher) at(p *place) time.Time {
	if p.asleep && w.heard.After(p.at) {
		return w.heard
	}
	return p.at
}

// confirmed is the verdict on a container, true until what was last heard of a
// place of it.
func (w *Watcher) confirmed(t *track) Verdict {
	v := t.verdict
	for _, h := range t.holds {
		if at := w.at(h.place); at.After(v.At) {
			v.At = at
		}
	}
	return v
}
