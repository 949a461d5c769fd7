package lifecycle

import "github.com/nodeagent/nodeagent/pkg/api/v1alpha1"

// Event is what happens to a task.
type Event string

// The events.
const (
	Admitted  Event = "Admitted"  // its ports are its own, and it is its turn
	Fetched   Event = "Fetched"   // its artifacts are in the store, verified
	Refused   Event = "Refused"   // as it is written it can never run here
	Failed    Event = "Failed"    // fetch or launch did not work this time
	Passed    Event = "Passed"    // health and readiness passed
	Failing   Event = "Failing"   // a health check failed, not yet too often
	GaveUp    Event = "GaveUp"    // the health check failed too often in a row
	Ended     Event = "Ended"     // its process ended, or its cgroup was emptied, and another is to be started
	Completed Event = "Completed" // its process ended, and the restart policy wants no other
	PauseOver Event = "PauseOver" // the backoff is over
	Unwanted  Event = "Unwanted"  // spec deleted, role gone, or the old one after an update
	Emptied   Event = "Emptied"   // the cgroup of an unwanted task is proved empty
)

// Transition is one row of the table.
type Transition struct {
	From  v1alpha1.State
	Event Event
	To    v1alpha1.State
	Then  string // what is done on the way, in a few words
}

// Table returns all transitions, in the order of a task's life. An event that
// has no row in a state changes nothing there.
func Table() []Transition {
	const (
		waiting, fetching, starting   = v1alpha1.StateWaiting, v1alpha1.StateFetching, v1alpha1.StateStarting
		healthy, unhealthy            = v1alpha1.StateHealthy, v1alpha1.StateUnhealthy
		stopping, backingOff          = v1alpha1.StateStopping, v1alpha1.StateBackingOff
		failed, finished, gone        = v1alpha1.StateFailed, v1alpha1.StateFinished, v1alpha1.StateGone
		stop, release, pause, nothing = "TERM, grace, kill of the cgroup", "its ports are given back", "a pause, longer each time", ""
	)
	return []Transition{
		{waiting, Admitted, fetching, "the artifacts are fetched, or found in the store"},
		{waiting, Refused, failed, "told once"},
		{waiting, Unwanted, gone, release},
		{fetching, Fetched, starting, "the process is started in its cgroup"},
		{fetching, Failed, backingOff, pause},
		{fetching, Refused, failed, "told once"},
		{fetching, Unwanted, gone, "the fetch is cancelled; " + release},
		{starting, Passed, healthy, "it is up"},
		{starting, Failed, backingOff, pause},
		{starting, Refused, failed, "told once"},
		{starting, Ended, backingOff, pause},
		{starting, Completed, finished, release},
		{starting, GaveUp, stopping, stop},
		{starting, Unwanted, stopping, stop},
		{healthy, Failing, unhealthy, "told; it runs on"},
		{healthy, Ended, backingOff, pause},
		{healthy, Completed, finished, release},
		{healthy, GaveUp, stopping, stop},
		{healthy, Unwanted, stopping, stop},
		{unhealthy, Passed, healthy, "it is up again"},
		{unhealthy, Ended, backingOff, pause},
		{unhealthy, Completed, finished, release},
		{unhealthy, GaveUp, stopping, stop},
		{unhealthy, Unwanted, stopping, stop},
		{stopping, Ended, backingOff, pause},
		{stopping, Emptied, gone, release},
		{backingOff, PauseOver, waiting, nothing},
		{backingOff, Unwanted, gone, release},
		{failed, Unwanted, gone, release},
		{finished, Unwanted, gone, nothing},
	}
}

// Next returns the state that an event leads to, and whether it changes
// anything.
func Next(from v1alpha1.State, e Event) (v1alpha1.State, bool) {
	for _, t := range Table() {
		if t.From == from && t.Event == e {
			return t.To, true
		}
	}
	return from, false
}

// Running tells whether a process may exist in this state.
func Running(s v1alpha1.State) bool {
	switch s {
	case v1alpha1.StateStarting, v1alpha1.StateHealthy, v1alpha1.StateUnhealthy, v1alpha1.StateStopping:
		return true
	}
	return false
}

// Up tells whether the task does its work as far as is known. An Unhealthy one
// may be serving still; it does not count.
func Up(s v1alpha1.State) bool { return s == v1alpha1.StateHealthy }

// States returns all states in the order of a task's life.
func States() []v1alpha1.State {
	return []v1alpha1.State{
		v1alpha1.StateWaiting, v1alpha1.StateFetching, v1alpha1.StateStarting, v1alpha1.StateHealthy, v1alpha1.StateUnhealthy,
		v1alpha1.StateStopping, v1alpha1.StateBackingOff, v1alpha1.StateFailed, v1alpha1.StateFinished, v1alpha1.StateGone,
	}
}
