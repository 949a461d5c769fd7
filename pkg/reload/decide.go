package reload

import (
	"maps"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// AnnotationDigest is on a Restart that a change made: of which data.
const AnnotationDigest = "nodeagent.dev/reload-digest"

const (
	// Quiet is how long nothing may have changed before a workload is restarted:
	// what is applied as several objects is one change.
	quiet = 5 * time.Second
	// pause is between the end of one restart because of a change and the next.
	pause = 30 * time.Second
	// refusedAgain is after how long a refused restart is asked for again: the
	// rollout or the pause in its way may be over.
	refusedAgain = 10 * time.Minute
	// poll is how often a restart that is on its way is looked at.
	poll = 2 * time.Second
)

// view is all that is known of one workload at one moment.
type view struct {
	at      time.Time
	refs    []reference
	applied prints            // what its pods were started with; nil: never looked at
	now     prints            // what there is
	changed time.Time         // when the last change of it was seen; zero: before this agent led
	restart *v1alpha1.Restart // the workload's; nil: there is none
}

// action is what is to be done about a workload.
type action int

const (
	nothing  action = iota
	remember        // write down what was applied
	ask             // ask for its restart
	later           // look again at a time
)

// step is one action with what it needs.
type step struct {
	action  action
	applied prints   // with remember
	changed []string // with ask
	digest  string   // with ask
	until   time.Time
}

// decide is the whole of it:
//
//	known? ─no→ remember
//	  └yes→ changed? ─no→ remember what is new in the template
//	           └yes→ quiet? ─no→ later
//	                   └yes→ restart for this very data: none→ ask · on its way→ later · refused→ ask again later · ended→ remember
//	                                                     for other data, or on its way for another reason→ later
func decide(v view) step {
	changed, remembered := changes(v.refs, v.applied, v.now)
	if len(changed) == 0 {
		if v.applied != nil && maps.Equal(remembered, v.applied) {
			return step{action: nothing}
		}
		return step{action: remember, applied: remembered}
	}
	if until := v.changed.Add(quiet); v.at.Before(until) {
		return step{action: later, until: until}
	}
	want := digest(v.refs, v.now)
	asked := step{action: ask, changed: changed, digest: want}
	r := v.restart
	switch {
	case r == nil:
		return asked
	case !restart.Ended(r):
		return step{action: later, until: v.at.Add(poll)}
	case r.Annotations[AnnotationDigest] == want:
		return afterwards(v, asked)
	case startedWith(v):
		return step{action: remember, applied: v.now}
	}
	if f := r.Status.Finished; r.Spec.Reason == v1alpha1.ReasonConfigChange && f != nil && v.at.Before(f.Add(pause)) {
		return step{action: later, until: f.Add(pause)}
	}
	return asked
}

// afterwards is for a Restart that was made for this very data and has ended,
// or whose place another one has taken since.
func afterwards(v view, asked step) step {
	r := v.restart
	if r.Spec.Reason != v1alpha1.ReasonConfigChange || r.Status.Phase != v1alpha1.PhaseRefused || r.Status.Finished == nil {
		return step{action: remember, applied: v.now}
	}
	if again := r.Status.Finished.Add(refusedAgain); v.at.Before(again) {
		return step{action: later, until: again}
	}
	return asked
}

// startedWith tells whether a restart for another reason replaced all pods
// after the change: they have the new data already.
func startedWith(v view) bool {
	s := v.restart.Status
	return s.Phase == v1alpha1.PhaseSucceeded && v.restart.Spec.Scope != v1alpha1.ScopePod &&
		s.Started != nil && !v.changed.IsZero() && s.Started.After(v.changed)
}
