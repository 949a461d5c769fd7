package disk

import "time"

// State is what a verdict remembers of the one before. The zero State is that
// of a container that was never looked at.
type State struct {
	Offender bool
	Since    time.Time // when it became one
	Bound    Bound     // by which
	Resource Resource
	// Filesystem is its mount point where the bound is a file system's.
	Filesystem string
	Calm       time.Time // since when no bound is near; zero: one is
}

// minLooks is in how many looks a growth must have been seen.
const minLooks = 4

// inodeBytes turns MinRate into inodes: one block each.
const inodeBytes = 4096

// Judge makes the verdict on one container, of which at least one part is
// known. It is pure: the same facts, policy
// and state give the same verdict.
//
// A container becomes an offender when one bound is sure to be reached within
// the Horizon: even at the lowest rate that its samples allow, after it has
// grown for Sustain on end. It stays one until, for Calm on end, no bound is
// expected within twice the Horizon. A limit that is exceeded already makes an
// offender at once: the kubelet is about to evict the pod.
//
// For what it shares with others, a file system or its pod's limit, it is
// blamed only when its own growth is a good part of the whole.
func Judge(f Facts, p Policy, was State) (Verdict, State) {
	all := forecasts(f, p)
	now := next(f, p, was, all)
	b := first(all, now)
	v := Verdict{
		Container: f.Container, Node: f.Node, At: f.At,
		Offender: now.Offender, Since: now.Since,
		Bound: b.bound, Resource: b.resource, Room: b.room,
		Filesystem: b.mount, Until: b.until, Evidence: b.evidence(f),
		Parts: make(map[Part]Usage),
	}
	for _, h := range f.Parts {
		v.Usage = v.Usage.plus(h.Usage)
		v.Parts[h.Part] = v.Parts[h.Part].plus(h.Usage)
		v.Rate = sum(v.Rate, h.Trends.Bytes.Rate)
		v.InodeRate = sum(v.InodeRate, h.Trends.Inodes.Rate)
	}
	if v.Offender {
		v.Message = message(v, b)
	}
	return v, now
}

// next is the transition: none → offender when sure, offender → none when calm.
func next(f Facts, p Policy, was State, all []forecast) State {
	if f.Container.Sandbox {
		return State{}
	}
	if !was.Offender {
		if b, ok := offence(f, all, p); ok {
			return State{Offender: true, Since: f.At, Bound: b.bound, Resource: b.resource, Filesystem: b.of()}
		}
		return State{}
	}
	now := was
	if b, ok := offence(f, all, p); ok { // it may have become another bound's
		now.Bound, now.Resource, now.Filesystem = b.bound, b.resource, b.of()
	}
	switch {
	case near(all, p):
		now.Calm = time.Time{}
	case was.Calm.IsZero():
		now.Calm = f.At
	}
	if !now.Calm.IsZero() && f.At.Sub(now.Calm) >= p.Calm {
		return State{}
	}
	return now
}

// offence is the nearest bound that is sure to be reached.
func offence(f Facts, all []forecast, p Policy) (forecast, bool) {
	var worst forecast
	found := false
	for _, b := range all {
		if sure(f, b, p) && (!found || b.until.Expected < worst.until.Expected) {
			worst, found = b, true
		}
	}
	return worst, found
}

// sure tells whether the container is an offender by this bound.
func sure(f Facts, b forecast, p Policy) bool {
	if exceeded(b) {
		return true
	}
	if b.own.Rising < sustain(f, b, p) || b.own.Looks < minLooks || b.until.Latest > p.Horizon {
		return false
	}
	return !regrowth(b, p) && toBlame(b, p, 1)
}

// sustain is for how long it must have grown to be sure. One that was never
// seen quiet may be unpacking, warming a cache, or in the middle of a tooth:
// that gets longer, as far as there is time for it.
func sustain(f Facts, b forecast, p Policy) time.Duration {
	if f.Watched.IsZero() || b.own.Began.Sub(f.Watched) > p.Startup {
		return p.Sustain
	}
	return max(p.Sustain, min(p.StartupSustain, b.until.Latest/10))
}

// exceeded tells whether a limit is behind already, and that by this
// container: its own, or its pod's of which it holds most.
func exceeded(b forecast) bool {
	switch b.bound {
	case BoundContainer:
		return b.room < 0
	case BoundPod:
		return b.room < 0 && 2*b.held >= b.limit
	}
	return false
}

// near tells whether an offender still is near a bound.
func near(all []forecast, p Policy) bool {
	for _, b := range all {
		if exceeded(b) {
			return true
		}
		if b.until.Expected <= 2*p.Horizon && !regrowth(b, p) && toBlame(b, p, 0.5) {
			return true
		}
	}
	return false
}

// regrowth tells whether it only grows back to where it has been before, or not
// far above, and there is room for that, with time to act should it go on: the
// tooth of a saw. No tooth is as high as the one before.
func regrowth(b forecast, p Policy) bool {
	within := func(times float64, left time.Duration) bool {
		beyond := float64(b.held+b.room) - times*b.own.Peak
		return float64(b.held) < times*b.own.Peak && beyond > 0 && timeFor(int64(beyond), b.rate.High) >= left
	}
	return within(habit, p.Horizon/6) || within(again, p.Horizon/30)
}

const (
	again = 1.05 // of a peak: where it was before, or about there
	habit = 2.0  // of a peak: what may still be a higher tooth
)

// outgrew tells whether something stands far above where it stood before it
// dropped.
func outgrew(held, peak float64) bool { return held >= habit*peak }

// toBlame tells whether the container's own growth counts; ease lowers the bar.
func toBlame(b forecast, p Policy, ease float64) bool {
	own := b.own.Rate.Expected
	if b.bound == BoundContainer {
		return own > 0
	}
	if own <= 0 || own < ease*p.MinShare*b.rate.Expected {
		return false
	}
	if b.bound == BoundPod {
		return true
	}
	least, rate := p.MinBytes, p.MinRate
	if b.resource == Inodes {
		least, rate = p.MinInodes, p.MinRate/inodeBytes
	}
	return b.held >= least && own >= ease*rate
}

// first is the bound to be told: an offender's own, else the one that is
// reached first, else the one with the least room for its size.
func first(all []forecast, s State) forecast {
	best := all[0]
	for _, b := range all {
		if s.Offender && b.bound == s.Bound && b.resource == s.Resource && b.of() == s.Filesystem {
			return b
		}
		if b.until.Expected < best.until.Expected ||
			(b.until.Expected == best.until.Expected && b.bound != BoundFilesystem && b.room < best.room) {
			best = b
		}
	}
	return best
}
