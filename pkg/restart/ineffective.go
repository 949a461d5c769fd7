package restart

import (
	"fmt"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

const (
	// enough is how many automatic restarts of one workload within enoughSpan
	// show that restarting it does not help. (The cooldown is an hour: a
	// workload that fills its disk three times a day needs a person.)
	enough     = 3
	enoughSpan = 24 * time.Hour
)

// succeeded ends a restart whose pods are replaced: as Succeeded, or as
// Ineffective where that did not help.
func succeeded(w World) Step {
	said := success(w)
	if why := helpless(w); why != "" {
		return end(v1alpha1.PhaseIneffective, said+" "+why+noMore(w.Restart))
	}
	return end(v1alpha1.PhaseSucceeded, said)
}

func noMore(r *v1alpha1.Restart) string {
	return " No more automatic restarts of it until somebody clears that: kubectl delete restart -n " + r.Namespace + " " + r.Name
}

// helpless says why a restart did not help, if so.
func helpless(w World) string {
	r := w.Restart
	if !automatic(r) || r.Spec.Reason != v1alpha1.ReasonDiskFill {
		return ""
	}
	// The pod that gave the reason was seen to have written something, and all
	// of it is still there.
	if written := w.Written[r.Spec.PodUID]; r.Spec.PodUID != "" && written.Bytes > 0 && written.Held && w.held() == len(r.Status.OldPods) {
		return "It freed nothing."
	}
	return tooMany(w)
}

// tooMany says that a restart for a filling disk was one too many in a day, if
// so. One that stalled counts: where it was rolled back the workload is as it
// was, and would be restarted in vain for ever.
func tooMany(w World) string {
	r := w.Restart
	if !automatic(r) || r.Spec.Reason != v1alpha1.ReasonDiskFill {
		return ""
	}
	if n := 1 + recent(r.Status.History, r.Spec, w.Now); n >= enough {
		return fmt.Sprintf("It was the %s within %s.", ordinalOf(n), hours(enoughSpan))
	}
	return ""
}

func hours(d time.Duration) string { return fmt.Sprintf("%d hours", int(d.Hours())) }

func ordinalOf(n int) string {
	if n == 3 {
		return "third"
	}
	return fmt.Sprintf("%dth", n)
}

// recent counts the automatic restarts for the same reason, to a good end or a
// stall, since the last one that a person made. With scope Pod those on the
// same node count.
func recent(history []v1alpha1.RestartRecord, spec v1alpha1.RestartSpec, now time.Time) int {
	n := 0
	for _, past := range history {
		switch {
		case !repeats(past, spec):
		case past.Reason == v1alpha1.ReasonManual:
			return n
		case past.Reason != spec.Reason || past.Finished == nil || now.Sub(past.Finished.Time) >= enoughSpan:
		case past.Phase == v1alpha1.PhaseSucceeded || past.Phase == v1alpha1.PhaseStalled:
			n++
		}
	}
	return n
}

// ineffective tells whether the last restart that this one would repeat did
// not help: it says so itself, or it stalled and was one too many. A person's
// own restart since then clears that.
func ineffective(history []v1alpha1.RestartRecord, want v1alpha1.RestartSpec) bool {
	for i, past := range history {
		switch {
		case !repeats(past, want) || past.Phase == v1alpha1.PhaseRefused || past.Phase == v1alpha1.PhaseObserved:
		case past.Phase == v1alpha1.PhaseIneffective:
			return true
		case past.Phase == v1alpha1.PhaseStalled && past.Reason == v1alpha1.ReasonDiskFill && past.Finished != nil:
			same := v1alpha1.RestartSpec{Reason: past.Reason, Scope: want.Scope, Node: past.Node}
			return recent(history[i:], same, past.Finished.Time) >= enough
		default:
			return false
		}
	}
	return false
}

// repeats tells whether a restart now would repeat a past one.
func repeats(past v1alpha1.RestartRecord, want v1alpha1.RestartSpec) bool {
	return want.Scope != v1alpha1.ScopePod || past.Node == want.Node
}
