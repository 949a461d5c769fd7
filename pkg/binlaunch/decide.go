package binlaunch

import "github.com/nodeagent/nodeagent/pkg/api/v1alpha1"

// view is all that is known of a unit when its next step is decided.
type view struct {
	Wanted   bool   // by a source, on a node with this role
	Hash     string // of the spec that is wanted
	Rejected string // hash of the spec whose task did not become healthy
	Admitted bool   // this node may exchange its task now
	Beside   bool   // the wanted one can run while the current one does
	Previous bool   // there is an earlier spec to go back to
	Leaving  bool   // an old task is being stopped
	Current  *glimpse
	Next     *glimpse
}

// glimpse is one task of the unit.
type glimpse struct {
	Hash    string
	State   v1alpha1.State
	Fetched bool // its artifacts are in the store
	Settled bool // healthy for long enough to be trusted
	Broken  bool // it failed, gave up, ended too often, or is past its deadline
}

// step is what to do next in a unit.
type step string

const (
	rest           step = "rest"            // nothing, until something happens
	remove         step = "remove"          // nothing is left and nothing wanted
	create         step = "create"          // the current task, by the wanted spec
	createPrevious step = "create previous" // the current task, by the spec before
	createNext     step = "create next"     // the new task of an update
	admitCurrent   step = "admit current"   // see whether its ports are free
	admitNext      step = "admit next"
	prefetchNext   step = "prefetch next" // its artifacts, while the old one runs
	dropCurrent    step = "drop current"  // it is not wanted
	dropNext       step = "drop next"
	yieldCurrent   step = "yield current" // it gives its ports up to the next one
	rejectNext     step = "reject next"   // and remember its spec
	promote        step = "promote"       // the next one is the current one
)

// decide is the whole of an update and of everything simpler.
func decide(v view) step {
	switch {
	case !v.Wanted:
		return unwanted(v)
	case v.Next != nil:
		return updating(v)
	case v.Current == nil:
		if v.Leaving {
			return rest // one after the other: it may have the ports
		}
		if v.Rejected == v.Hash && v.Previous {
			return createPrevious
		}
		return create
	case v.Current.Hash == v.Hash, v.Rejected == v.Hash:
		if v.Current.State == v1alpha1.StateWaiting {
			return admitCurrent
		}
		return rest
	case !serving(v.Current.State):
		return dropCurrent // there is nothing to lose
	case v.Admitted && !v.Leaving:
		return createNext
	}
	return rest
}

func unwanted(v view) step {
	switch {
	case v.Next != nil:
		return dropNext
	case v.Current != nil:
		return dropCurrent
	case v.Leaving:
		return rest
	}
	return remove
}

// updating is decide while there is a next task.
func updating(v view) step {
	next := v.Next
	waiting := next.State == v1alpha1.StateWaiting
	switch {
	case next.Hash != v.Hash:
		return dropNext // changed again, or changed back
	case next.Broken:
		return rejectNext
	case next.Settled:
		return promote
	case waiting && (v.Beside || v.Current == nil) && !v.Leaving:
		return admitNext
	case waiting && !v.Beside && v.Current != nil && !next.Fetched:
		return prefetchNext
	case waiting && !v.Beside && v.Current != nil && !v.Leaving:
		return yieldCurrent
	}
	return rest
}

// serving tells whether a task may be of use to somebody.
func serving(s v1alpha1.State) bool {
	return s == v1alpha1.StateHealthy || s == v1alpha1.StateUnhealthy
}

// beside tells whether a task by the new spec can run while one by the old
// does: they share no port that only one of them can listen on.
func beside(old, fresh *v1alpha1.BinarySpec) bool {
	for _, a := range old.Ports {
		for _, b := range fresh.Ports {
			if a.Port != 0 && a.Port == b.Port && a.Protocol == b.Protocol && (!a.Held || !b.Held) {
				return false
			}
		}
	}
	return true
}
