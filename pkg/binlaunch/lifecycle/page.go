package lifecycle

import (
	"bytes"
	"fmt"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

const pageHead = `<!-- Generated from pkg/binlaunch/lifecycle by make generate; change it there. -->
# The life of a launched task

Every task goes through these states. ` + "`nodeagent ps`, `kubectl get binaryinstances` and the metric `nodeagent_binary_state`" + ` tell the one it is in. What is not in the table changes nothing.

A task that the agent finds running when it starts begins where it was last seen: Starting, Healthy or Unhealthy.

| state | |
|---|---|
`

// meaning says each state in a line.
func meaning(s v1alpha1.State) string {
	switch s {
	case v1alpha1.StateWaiting:
		return "for a port that another holds, or for its node's turn in an update; the message names the holder"
	case v1alpha1.StateFetching:
		return "its artifacts are fetched, verified and unpacked"
	case v1alpha1.StateStarting:
		return "its process runs and has not yet passed health and readiness"
	case v1alpha1.StateHealthy:
		return "it is up"
	case v1alpha1.StateUnhealthy:
		return "its process runs and its health check fails"
	case v1alpha1.StateStopping:
		return "SIGTERM, the grace period, the kill of its cgroup, until that is proved empty"
	case v1alpha1.StateBackingOff:
		return "it ended, and is started again after a pause: 1 s, 1.15 times as long each time, one hour at most; 1 s again once it was up for as long as ten pauses, and for 10 s. Or it could not be fetched, and that is tried again: after 5 s, twice as long each time, 5 minutes at most; one hour where what came was the wrong thing"
	case v1alpha1.StateFailed:
		return "as it is written it cannot run here; it is tried again when its spec changes or the agent starts anew"
	case v1alpha1.StateFinished:
		return "it ended, and its restart policy wants no other"
	}
	return "nothing of it is left"
}

// Page is docs/launch/lifecycle.md.
func Page() []byte {
	out := bytes.NewBufferString(pageHead)
	for _, s := range States() {
		fmt.Fprintf(out, "| %s | %s |\n", s, meaning(s))
	}
	out.WriteString("\n| in | when | becomes | |\n|---|---|---|---|\n")
	for _, t := range Table() {
		fmt.Fprintf(out, "| %s | %s: %s | %s | %s |\n", t.From, t.Event, t.Event.meaning(), t.To, t.Then)
	}
	return out.Bytes()
}

func (e Event) meaning() string {
	switch e {
	case Admitted:
		return "its ports are its own, and it is its turn"
	case Fetched:
		return "its artifacts are in the store, verified"
	case Refused:
		return "as it is written it can never run here"
	case Failed:
		return "it did not work this time"
	case Passed:
		return "health and readiness passed"
	case Failing:
		return "the health check failed, not yet too often"
	case GaveUp:
		return "the health check failed too often in a row"
	case Ended:
		return "its process ended, and another is to be started"
	case Completed:
		return "its process ended, and the restart policy wants no other"
	case PauseOver:
		return "the pause is over"
	case Unwanted:
		return "its spec is gone, its node has another role, or a new task took its place"
	}
	return "its cgroup is proved empty"
}
