package restart

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Action is what one step does.
type Action string

// The actions. Each but Rest and Wait is one write to the API server, and may
// be repeated.
const (
	Rest   Action = "Rest"   // nothing more for this agent to do here
	Queue  Action = "Queue"  // take the Restart up, which has to wait: holder, since when, for what
	Admit  Action = "Admit"  // take a slot
	Begin  Action = "Begin"  // begin it: holder, start, what there is now
	Stamp  Action = "Stamp"  // change the pod template, so that its controller rolls out
	Evict  Action = "Evict"  // evict a pod, so that its controller makes another
	Report Action = "Report" // write how it stands, and that the holder is alive
	Wait   Action = "Wait"   // look again in a moment
	End    Action = "End"    // write the result

	Release  Action = "Release"  // take the label off a pod by which its controller holds it
	Copy     Action = "Copy"     // make the copy of a pod without owner
	Bequeath Action = "Bequeath" // make the copy an owner of the Restart, which would go with the old pod
	Withdraw Action = "Withdraw" // take the labels off a pod by which Services select it
	Restore  Action = "Restore"  // give a pod back the labels that were taken off it
	Hand     Action = "Hand"     // hand the Restart on to the agent of the pod's node
	RollBack Action = "RollBack" // write the pod template as it was before Stamp
)

// Step is the one thing to do next.
type Step struct {
	Action   Action
	Phase    v1alpha1.Phase // after Begin, Report and End
	Message  string         // how it stands, in a sentence
	Replaced bool           // the new pods are Ready and the old ones gone
	Stalled  string         // why, where it is rolled back from here on
	Pod      v1alpha1.PodReference
	Again    time.Duration // after Wait: until the next look
}

const (
	// renewEvery is how often the holder says that it is alive while nothing
	// else is to be said.
	renewEvery = 10 * time.Second
	// releaseWait bounds the wait, after the old pods are gone from the API,
	// for their layers to be gone from the disk. A kubelet that does not remove
	// a container with its pod does so in its next round, a minute later; on a
	// busy node that took 72 s.
	releaseWait = 3 * time.Minute
)

// Next decides the one step that follows from the world as it was read. It is
// the whole life of a Restart:
//
//	(asked for) ──Queue──→ Approval, Pending ──Admit──┐
//	(asked for) ──Admit───────────────────────────────┴──Begin──→ Pending ──Stamp, Evict, Release or Copy──→ Running ──→ Verifying ──→ Succeeded
//	     └─→ Refused, Observed, Failed  └─→ Refused, Failed, Stalled                ├────────────┴─→ Stalled, Failed, Ineffective
//	                                                                                └─→ RollingBack ──RollBack──→ Stalled, Failed
//
// What follows in Running, pod by pod, stands in podbypod.go; what follows in
// RollingBack in rollback.go.
func Next(w World) Step {
	s := next(w)
	switch s.Action {
	case Release, Withdraw, Restore:
		// A pod's labels are for the agent of its node to change: that is all
		// that its token allows.
		if s.Pod.Node != "" && s.Pod.Node != w.Node {
			return Step{
				Action: Hand, Phase: w.Restart.Status.Phase, Pod: s.Pod,
				Message: fmt.Sprintf("Pod %s is the next one: the agent of its node %s goes on.", s.Pod.Name, s.Pod.Node),
			}
		}
	}
	return s
}

func next(w World) Step {
	if !mine(w.Restart, w.Node) {
		return Step{Action: Rest}
	}
	if fresh(w.Restart) || queued(w.Restart) {
		return enter(w)
	}
	if why := targetLost(w); why != "" {
		return abandon(w, why)
	}
	switch w.Restart.Status.Phase {
	case v1alpha1.PhasePending:
		return touch(w)
	case v1alpha1.PhaseRunning:
		return follow(w)
	case v1alpha1.PhaseVerifying:
		return verify(w)
	case v1alpha1.PhaseRollingBack:
		return rollBack(w)
	}
	return Step{Action: Rest}
}

// mine tells whether there is anything for this node's agent to do about it.
func mine(r *v1alpha1.Restart, node string) bool {
	switch {
	case r.DeletionTimestamp != nil:
		return false
	case fresh(r):
		return r.Spec.Node == node
	}
	return known(r.Status.Phase) && r.Status.Holder == node
}

// known are the phases that Next goes on from. One that a later version wrote
// is left to that version.
func known(p v1alpha1.Phase) bool {
	switch p {
	case v1alpha1.PhaseApproval, v1alpha1.PhasePending, v1alpha1.PhaseRunning, v1alpha1.PhaseVerifying, v1alpha1.PhaseRollingBack:
		return true
	}
	return false
}

func end(phase v1alpha1.Phase, message string) Step {
	return Step{Action: End, Phase: phase, Message: message}
}

func report(phase v1alpha1.Phase, message string) Step {
	return Step{Action: Report, Phase: phase, Message: message}
}

func begin(w World) Step {
	if f := unsupported(w); f != nil {
		return end(v1alpha1.PhaseRefused, f.Sentence)
	}
	name := describe(w.Restart.Spec.Target)
	if w.Target == nil {
		return end(v1alpha1.PhaseFailed, fmt.Sprintf("There is no %s.", name))
	}
	if w.Target.object().GetDeletionTimestamp() != nil {
		return end(v1alpha1.PhaseFailed, fmt.Sprintf("%s is being deleted.", name))
	}
	found := Preflight(w)
	if why := objection(found, w.Restart.Spec.AllowDowntime); why != "" {
		return end(v1alpha1.PhaseRefused, why)
	}
	message := strings.Join(append([]string{"Taken up by " + w.Node + "."}, warnings(found)...), " ")
	return Step{Action: Begin, Phase: v1alpha1.PhasePending, Message: message}
}

func targetLost(w World) string {
	name := describe(w.Restart.Spec.Target)
	switch {
	case w.method() == v1alpha1.MethodCopy && w.Restart.Status.Phase == v1alpha1.PhaseVerifying:
		return "" // it is meant to go
	case w.Target == nil:
		return fmt.Sprintf("%s was deleted meanwhile.", name)
	case w.Target.object().GetDeletionTimestamp() != nil:
		return fmt.Sprintf("%s is being deleted.", name)
	case string(w.Target.uid()) != w.Restart.Status.TargetUID:
		return fmt.Sprintf("%s was deleted and made anew meanwhile.", name)
	}
	return ""
}

// touch makes the one write that sets the replacement going, unless it was
// made already.
func touch(w World) Step {
	if w.method() != v1alpha1.MethodTemplate {
		return beginPods(w)
	}
	name := describe(w.Restart.Spec.Target)
	switch w.templateState() {
	case templateStamped:
		return report(v1alpha1.PhaseRunning, w.rollout().sentence)
	case templateReverted:
		return end(v1alpha1.PhaseFailed, reverted(name))
	case templateForeign:
		if w.wasStamped() {
			return end(v1alpha1.PhaseFailed, changed(name))
		}
		return end(v1alpha1.PhaseRefused, fmt.Sprintf("The pod template of %s was changed by somebody else before the restart began: its own rollout replaces the pods.", name))
	}
	if w.overdue() {
		return stalled(w)
	}
	if why := objection(Preflight(w), w.Restart.Spec.AllowDowntime); why != "" {
		return end(v1alpha1.PhaseRefused, why)
	}
	return Step{Action: Stamp}
}

func follow(w World) Step {
	if why := interfered(w); why != "" {
		return end(v1alpha1.PhaseFailed, why)
	}
	if w.method() != v1alpha1.MethodTemplate {
		return followPods(w)
	}
	r := w.rollout()
	if r.complete {
		return report(v1alpha1.PhaseVerifying, "The new pods are Ready; the old ones are on their way out.")
	}
	return waitOn(w, r.sentence)
}

func verify(w World) Step {
	done := meta.FindStatusCondition(w.Restart.Status.Conditions, v1alpha1.ConditionReplaced)
	if done == nil {
		return verifyPods(w)
	}
	if held := w.held(); held > 0 && w.Now.Before(done.LastTransitionTime.Add(releaseWait)) {
		return waitOn(w, fmt.Sprintf("The old pods are gone; the space of %d is still held.", held))
	}
	return succeeded(w)
}

func verifyPods(w World) Step {
	if why := interfered(w); why != "" {
		return end(v1alpha1.PhaseFailed, why)
	}
	r, left, untouched := w.rollout(), len(w.oldPods()), w.inHand()
	switch {
	case untouched != nil && w.method() == v1alpha1.MethodCopy:
		return replaceByCopy(w, untouched) // which makes sure first that the Restart outlives it
	case !r.complete:
		return waitOn(w, r.sentence)
	case left > 0:
		return waitOn(w, fmt.Sprintf("The new pods are Ready; %d old ones are still terminating.", left))
	}
	if w.held() == 0 {
		s := succeeded(w)
		s.Replaced = true
		return s
	}
	return Step{Action: Report, Phase: v1alpha1.PhaseVerifying, Replaced: true, Message: "The old pods are gone; their space is on its way."}
}

// interfered says who else changed the template while the restart ran. What
// they want goes on; it is not fought.
func interfered(w World) string {
	if w.method() != v1alpha1.MethodTemplate {
		return ""
	}
	switch w.templateState() {
	case templateStamped:
		return ""
	case templateReverted:
		return reverted(describe(w.Restart.Spec.Target))
	}
	return changed(describe(w.Restart.Spec.Target))
}

func reverted(name string) string {
	return fmt.Sprintf("Somebody took the restart's annotation out of the pod template of %s, a GitOps controller perhaps; it is not written again.", name)
}

func changed(name string) string {
	return fmt.Sprintf("Somebody else changed the pod template of %s while it was being restarted; their rollout is left to go on.", name)
}

// waitOn waits for what the sentence tells, until the deadline.
func waitOn(w World, sentence string) Step {
	replaced := meta.FindStatusCondition(w.Restart.Status.Conditions, v1alpha1.ConditionReplaced) != nil
	if w.overdue() && !replaced {
		return stalled(w)
	}
	return goOnWaiting(w, sentence)
}

// goOnWaiting looks again in a moment, and says now and then that the holder is
// alive.
func goOnWaiting(w World, sentence string) Step {
	status := w.Restart.Status
	if status.Renewed == nil || !w.Now.Before(status.Renewed.Add(renewEvery)) {
		return report(status.Phase, sentence)
	}
	return Step{Action: Wait, Message: sentence, Again: again(w.Now.Sub(status.Started.Time))}
}

// again is how long to wait until the next look: most restarts are over soon,
// and one that is not has no use for being asked after every second.
func again(running time.Duration) time.Duration {
	if running < 30*time.Second {
		return time.Second
	}
	return 5 * time.Second
}

func stalled(w World) Step {
	said := w.Restart.Status.Message
	if !strings.HasPrefix(said, stallPrefix) {
		said = fmt.Sprintf("%s %s. %s", stallPrefix, deadline(w.Restart), stallReason(w))
	}
	if rollsBack(w) {
		return Step{Action: Report, Phase: v1alpha1.PhaseRollingBack, Stalled: said, Message: said + " It is rolled back: " + w.OnStallSaid + "."}
	}
	if s, left := undo(w); left {
		if said != w.Restart.Status.Message {
			// The reason goes with what is undone, so it is written down first.
			return report(w.Restart.Status.Phase, said)
		}
		return s
	}
	return endStalled(w, said+notRolledBack(w)+" Nothing more is done; old pods that are left keep serving.")
}

// endStalled says as well when it was one restart too many.
func endStalled(w World, said string) Step {
	if why := tooMany(w); why != "" {
		said += " " + why + noMore(w.Restart)
	}
	return end(v1alpha1.PhaseStalled, said)
}

const stallPrefix = "Not complete after"

func podRecord(p *corev1.Pod) v1alpha1.PodReference {
	return v1alpha1.PodReference{Name: p.Name, UID: string(p.UID), Node: p.Spec.NodeName}
}
