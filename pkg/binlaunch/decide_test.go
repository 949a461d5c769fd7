package binlaunch

import (
	"testing"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestDecide(t *testing.T) {
	const waiting, starting, healthy = v1alpha1.StateWaiting, v1alpha1.StateStarting, v1alpha1.StateHealthy
	at := func(hash string, s v1alpha1.State) *glimpse { return &glimpse{Hash: hash, State: s} }
	wanted := view{Wanted: true, Hash: "new", Admitted: true, Beside: true}
	with := func(change func(*view)) view { v := wanted; change(&v); return v }
	for _, tt := range []struct {
		name string
		v    view
		want step
	}{
		{"nothing wanted, nothing there", view{}, remove},
		{"nothing wanted, one stopping", view{Leaving: true}, rest},
		{"nothing wanted, one there", view{Current: at("a", healthy)}, dropCurrent},
		{"nothing wanted in the middle of an update", view{Current: at("a", healthy), Next: at("b", starting)}, dropNext},
		{"the first start", wanted, create},
		{"the first start needs no admission", with(func(v *view) { v.Admitted = false }), create},
		{"a new start after the old task is gone", with(func(v *view) { v.Leaving = true }), rest},
		{"waits for its ports", with(func(v *view) { v.Current = at("new", waiting) }), admitCurrent},
		{"runs", with(func(v *view) { v.Current = at("new", healthy) }), rest},
		{"changed", with(func(v *view) { v.Current = at("old", healthy) }), createNext},
		{"changed, but it is not this node's turn", with(func(v *view) { v.Current, v.Admitted = at("old", healthy), false }), rest},
		{"changed while an older one still stops", with(func(v *view) { v.Current, v.Leaving = at("old", healthy), true }), rest},
		{"changed, and the old one is of no use", with(func(v *view) { v.Current = at("old", v1alpha1.StateBackingOff) }), dropCurrent},
		{"changed, and the old one failed", with(func(v *view) { v.Current, v.Admitted = at("old", v1alpha1.StateFailed), false }), dropCurrent},
		{"an unhealthy one may still serve", with(func(v *view) { v.Current = at("old", v1alpha1.StateUnhealthy) }), createNext},
		{"changed to what was rejected", with(func(v *view) { v.Current, v.Rejected = at("old", healthy), "new" }), rest},
		{"the old one waits for its port again", with(func(v *view) { v.Current, v.Rejected = at("old", waiting), "new" }), admitCurrent},
		{"beside: the next one is admitted while the old one runs", with(func(v *view) { v.Current, v.Next = at("old", healthy), at("new", waiting) }), admitNext},
		{"beside: the next one starts", with(func(v *view) { v.Current, v.Next = at("old", healthy), at("new", starting) }), rest},
		{"beside: the next one is healthy, not yet settled", with(func(v *view) { v.Current, v.Next = at("old", healthy), at("new", healthy) }), rest},
		{"beside: the next one is settled", with(func(v *view) {
			v.Current, v.Next = at("old", healthy), &glimpse{Hash: "new", State: healthy, Settled: true}
		}), promote},
		{"beside: the next one is broken", with(func(v *view) {
			v.Current, v.Next = at("old", healthy), &glimpse{Hash: "new", State: starting, Broken: true}
		}), rejectNext},
		{"changed again", with(func(v *view) { v.Current, v.Next = at("old", healthy), at("newer", starting) }), dropNext},
		{"changed back", with(func(v *view) { v.Hash, v.Current, v.Next = "old", at("old", healthy), at("new", starting) }), dropNext},
		{"in place: the artifacts first", with(func(v *view) { v.Beside, v.Current, v.Next = false, at("old", healthy), at("new", waiting) }), prefetchNext},
		{"in place: then the old one yields", with(func(v *view) {
			v.Beside, v.Current, v.Next = false, at("old", healthy), &glimpse{Hash: "new", State: waiting, Fetched: true}
		}), yieldCurrent},
		{"in place: until it is gone", with(func(v *view) {
			v.Beside, v.Leaving, v.Next = false, true, &glimpse{Hash: "new", State: waiting, Fetched: true}
		}), rest},
		{"in place: then the next one", with(func(v *view) { v.Beside, v.Next = false, &glimpse{Hash: "new", State: waiting, Fetched: true} }), admitNext},
		{"in place: broken", with(func(v *view) {
			v.Beside, v.Next = false, &glimpse{Hash: "new", State: v1alpha1.StateBackingOff, Broken: true}
		}), rejectNext},
		{"in place: back to the one before", with(func(v *view) { v.Rejected, v.Previous = "new", true }), createPrevious},
		{"in place: not before the rejected one is gone", with(func(v *view) { v.Rejected, v.Previous, v.Leaving = "new", true, true }), rest},
		{"rejected, and nothing to go back to", with(func(v *view) { v.Rejected = "new" }), create},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := decide(tt.v); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// Whatever the states, a task that serves is given up only for one that is
// settled, because nothing is wanted any more, or in place of it once the new
// one's artifacts are there.
func TestDecideKeepsWhatServes(t *testing.T) {
	states := []v1alpha1.State{"", v1alpha1.StateWaiting, v1alpha1.StateFetching, v1alpha1.StateStarting, v1alpha1.StateHealthy,
		v1alpha1.StateUnhealthy, v1alpha1.StateStopping, v1alpha1.StateBackingOff, v1alpha1.StateFailed, v1alpha1.StateFinished}
	n := 0
	for _, state := range states {
		for bits := range 1 << 9 {
			on := func(i int) bool { return bits&(1<<i) != 0 }
			v := view{Wanted: true, Hash: "new", Admitted: on(0), Beside: on(1), Previous: on(2), Leaving: on(3),
				Current: &glimpse{Hash: "old", State: v1alpha1.StateHealthy}}
			if on(4) {
				v.Rejected = "new"
			}
			if state != "" {
				v.Next = &glimpse{Hash: "new", State: state, Fetched: on(5), Settled: on(6), Broken: on(7)}
				if on(8) {
					v.Next.Hash = "other"
				}
			}
			switch got := decide(v); got {
			case dropCurrent:
				t.Errorf("%+v with next %+v drops what serves", v, v.Next)
			case promote:
				if !v.Next.Settled || v.Next.Hash != "new" {
					t.Errorf("%+v promotes what is not settled", v.Next)
				}
			case yieldCurrent:
				if v.Beside || !v.Next.Fetched {
					t.Errorf("%+v with next %+v yields without need", v, v.Next)
				}
			}
			n++
		}
	}
	if n < 5000 {
		t.Fatalf("only %d views tried", n)
	}
}
