package restart

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// A restart by the pod template changes one annotation there, so rolling it
// back is writing what stood there before: status.template remembers it. The
// workload's own controller then ends the new pods and keeps the old ones.

// onStallOf is what the Restart says, before that what the workload says,
// before that what its namespace says, and before that the configuration; and
// who said it. It is given as it was written: what is not rollback rolls
// nothing back.
func onStallOf(asked, configured v1alpha1.OnStall, n notes) (v1alpha1.OnStall, string) {
	if asked != "" {
		return asked, fmt.Sprintf("the Restart's onStall is %s", asked)
	}
	if value, said, ok := n.of(v1alpha1.AnnotationOnStall); ok {
		return v1alpha1.OnStall(value), said
	}
	return configured, fmt.Sprintf("restart.onStall is %s", configured)
}

// rollsBack tells whether a restart that stalled is rolled back: only by
// choice, and only while going back is the shorter way. A rollout that is only
// slow would end Ready pods for others of the same template.
func rollsBack(w World) bool {
	return w.OnStall == v1alpha1.OnStallRollback && w.oneWay() == "" && w.method() == v1alpha1.MethodTemplate &&
		w.Restart.Status.Phase == v1alpha1.PhaseRunning && w.inHand() != nil && !w.mostlyNew()
}

// oneWay is why the target's kind cannot be rolled back, if so.
func (w World) oneWay() string {
	if w.Target == nil || w.Target.Other == nil || w.Target.Other.kind.oneWay == "" {
		return ""
	}
	return fmt.Sprintf(w.Target.Other.kind.oneWay, w.Target.object().GetName())
}

// mostlyNew tells whether more pods are new and Ready than there are old ones.
func (w World) mostlyNew() bool { return len(filterPods(w.newPods(), ready)) > w.kept() }

// notRolledBack is a sentence, after a space, where somebody may think that a
// stall is rolled back.
func notRolledBack(w World) string {
	switch {
	case w.method() != v1alpha1.MethodTemplate:
	case w.OnStall == v1alpha1.OnStallRollback && w.oneWay() != "":
		return " A stall is not rolled back: " + w.oneWay()
	case w.OnStall == v1alpha1.OnStallRollback && w.Restart.Status.Phase == v1alpha1.PhaseRunning:
		if w.inHand() != nil {
			return " It is not rolled back, for more pods are new and Ready than old."
		}
		return " It is not rolled back, for no old pod is left."
	case w.OnStall != "" && w.OnStall != v1alpha1.OnStallLeave && w.OnStall != v1alpha1.OnStallRollback:
		return fmt.Sprintf(" A stall is not rolled back: %s, which is neither leave nor rollback.", w.OnStallSaid)
	}
	return ""
}

// rollBack is the next step of a restart that stalled and is rolled back. It
// takes as long as the restart was given at most. What somebody else writes
// into the template meanwhile is theirs.
func rollBack(w World) Step {
	said, until := stall(w)
	switch w.templateState() {
	case templateStamped:
		if w.inHand() == nil {
			return endStalled(w, said+" It is not rolled back: meanwhile no old pod is left.")
		}
		if w.Trouble != "" && !w.Now.Before(until) {
			return endStalled(w, fmt.Sprintf("%s It could not be rolled back: %s.", said, w.Trouble))
		}
		if w.Trouble != "" { // its holder is not away
			if alive := goOnWaiting(w, fmt.Sprintf("%s Rolling it back is tried again: %s.", said, w.Trouble)); alive.Action == Report {
				return alive
			}
		}
		return Step{Action: RollBack}
	case templateForeign:
		return endStalled(w, fmt.Sprintf("%s It is rolled back no further: somebody else changed the pod template of %s meanwhile, and their rollout is left to go on.",
			said, describe(w.Restart.Spec.Target)))
	case templateBefore, templateReverted:
	}
	r := w.rollout()
	if r.complete {
		return endStalled(w, fmt.Sprintf("%s It was rolled back and is whole again: %s available, %d of them from before the restart.",
			said, pods(int(r.available)), w.kept()))
	}
	so := fmt.Sprintf("%d of %s have the earlier template, %d are available.", r.updated, pods(int(r.wanted)), r.available)
	if why := trouble(w); why != "" {
		so += " " + why
	}
	if !w.Now.Before(until) {
		return endStalled(w, fmt.Sprintf("%s It was rolled back, and is not whole again after %s: %s", said, deadline(w.Restart), so))
	}
	return goOnWaiting(w, said+" It is rolled back: "+so)
}

// stall is why the restart stalled, and until when rolling it back is tried.
func stall(w World) (said string, until time.Time) {
	status, within := w.Restart.Status, deadline(w.Restart)
	if c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionStalled); c != nil {
		return c.Message, c.LastTransitionTime.Add(within)
	}
	return stallPrefix + " " + within.String() + ".", status.Started.Add(2 * within) // somebody took it out
}

// kept counts the pods from before the restart that stay.
func (w World) kept() int {
	return len(filterPods(w.oldPods(), func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil }))
}
