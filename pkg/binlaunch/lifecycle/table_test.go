package lifecycle

import (
	"slices"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Each pair of state and event leads to one state, between states that exist.
func TestTableIsAFunction(t *testing.T) {
	type key struct {
		from  v1alpha1.State
		event Event
	}
	seen := map[key]bool{}
	for _, row := range Table() {
		k := key{row.From, row.Event}
		if seen[k] {
			t.Errorf("%s on %s stands twice", row.From, row.Event)
		}
		seen[k] = true
		for _, s := range []v1alpha1.State{row.From, row.To} {
			if !slices.Contains(States(), s) {
				t.Errorf("%s is no state", s)
			}
		}
		if to, ok := Next(row.From, row.Event); !ok || to != row.To {
			t.Errorf("Next(%s, %s) is %s, %v; the table says %s", row.From, row.Event, to, ok, row.To)
		}
	}
}

// From every state a task that is no longer wanted comes to Gone, and while a
// process may exist only through Stopping and a proof.
func TestUnwantedAlwaysEnds(t *testing.T) {
	for _, s := range States() {
		if s == v1alpha1.StateGone {
			continue
		}
		to, ok := Next(s, Unwanted)
		switch {
		case s == v1alpha1.StateStopping:
			if ok {
				t.Errorf("a task that is being stopped goes to %s", to)
			}
		case !ok:
			t.Errorf("%s does not hear Unwanted", s)
		case Running(s) && to != v1alpha1.StateStopping:
			t.Errorf("%s goes to %s with a process running", s, to)
		case !Running(s) && to != v1alpha1.StateGone:
			t.Errorf("%s goes to %s; nothing of it runs", s, to)
		}
	}
	if to, _ := Next(v1alpha1.StateStopping, Emptied); to != v1alpha1.StateGone {
		t.Errorf("an emptied task is %s", to)
	}
}

// Every state can be reached from Waiting, and Waiting again from every state
// that ends in a pause.
func TestEveryStateIsReached(t *testing.T) {
	reached := map[v1alpha1.State]bool{v1alpha1.StateWaiting: true}
	for range States() {
		for _, row := range Table() {
			if reached[row.From] {
				reached[row.To] = true
			}
		}
	}
	for _, s := range States() {
		if !reached[s] {
			t.Errorf("nothing leads to %s", s)
		}
	}
	for _, row := range Table() {
		if row.From == v1alpha1.StateGone {
			t.Errorf("something leads out of Gone: %s", row.Event)
		}
		if row.To == v1alpha1.StateHealthy && row.Event != Passed {
			t.Errorf("%s makes a task healthy", row.Event)
		}
		if Running(row.From) && !Running(row.To) && !slices.Contains([]Event{Ended, Completed, Emptied, Failed, Refused}, row.Event) {
			t.Errorf("%s on %s leaves a process behind", row.From, row.Event)
		}
	}
}
