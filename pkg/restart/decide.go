package restart

import (
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// OutcomeKind says what became of a Request.
type OutcomeKind string

// What can become of a Request.
const (
	Created     OutcomeKind = "Created"     // the workload's first Restart was made
	Renewed     OutcomeKind = "Renewed"     // the ended Restart was asked for anew
	Joined      OutcomeKind = "Joined"      // one is on its way already, from here or elsewhere
	CoolingDown OutcomeKind = "CoolingDown" // one ended not long ago; see Until
	Gone        OutcomeKind = "Gone"        // the pod is gone or going: nothing to restart
	Excluded    OutcomeKind = "Excluded"    // configuration forbids it
	Unfit       OutcomeKind = "Unfit"       // no Restart can be made for its owner, whose reference is odd or forged
	Ineffective OutcomeKind = "Ineffective" // the last one did not help, and nobody has cleared that
)

// Outcome is what became of a Request.
type Outcome struct {
	Kind OutcomeKind
	// Restart is the name of the workload's Restart, in the pod's namespace.
	Restart string
	// Target is the workload the pod belongs to.
	Target v1alpha1.TargetReference
	// Until is when the cooldown is over, for CoolingDown alone.
	Until time.Time
}

// sentence says for the pod's owner what becomes of the offence.
func (o Outcome) sentence() string {
	switch o.Kind {
	case Created, Renewed:
		return "Restart " + o.Restart + " was asked for."
	case Joined:
		return "Restart " + o.Restart + " is on its way."
	case CoolingDown:
		return "Restart " + o.Restart + " ended not long ago: nothing more is done before " + o.Until.UTC().Format(time.RFC3339) + "."
	case Ineffective:
		return "Restart " + o.Restart + " did not help: nothing more is done until somebody deletes it or asks for one."
	case Unfit:
		return "Nothing can be restarted: the pod's owner, as its ownerReferences name it, is no workload that a Restart can be made for."
	case Gone, Excluded:
	}
	return ""
}

// active tells whether a Restart is asked for and not yet ended.
func active(r *v1alpha1.Restart) bool {
	return fresh(r) || !r.Status.Phase.Ended()
}

// fresh tells whether a Restart is asked for and not yet taken up: it is new,
// or it ended and its spec was written again since.
func fresh(r *v1alpha1.Restart) bool {
	idle := r.Status.Phase == "" || r.Status.Phase.Ended()
	return idle && r.Generation > r.Status.ObservedGeneration
}

// decide says what is to be done about a request when the workload has this
// Restart already; nil means it has none.
func decide(existing *v1alpha1.Restart, want v1alpha1.RestartSpec, o Options, now time.Time) Outcome {
	if existing == nil {
		return Outcome{Kind: Created}
	}
	if active(existing) && !abandoned(existing, now) {
		return Outcome{Kind: Joined}
	}
	// A person's own restart takes an ended one's place at once.
	if want.Reason == v1alpha1.ReasonManual {
		return Outcome{Kind: Renewed}
	}
	if ineffective(existing.Status.History, want) {
		return Outcome{Kind: Ineffective}
	}
	if until := coolUntil(existing.Status.History, want, o); now.Before(until) {
		return Outcome{Kind: CoolingDown, Until: until}
	}
	return Outcome{Kind: Renewed}
}

// abandoned tells whether a Restart is asked for and nobody will take it up:
// its node's agent, and the leader after it, had all the time in which it was
// to be complete. It must not keep the workload from being restarted for ever. Taking
// its place is safe: whoever takes it up after all finds that it was written
// since, and that it is another node's.
func abandoned(r *v1alpha1.Restart, now time.Time) bool {
	if !fresh(r) {
		return false
	}
	return now.Sub(askedAt(r)) >= deadline(r)
}

// askedAt is when a Restart was asked for, as far as it tells.
func askedAt(r *v1alpha1.Restart) time.Time {
	if r.Spec.RequestedAt.After(r.CreationTimestamp.Time) {
		return r.Spec.RequestedAt.Time
	}
	return r.CreationTimestamp.Time
}

// coolUntil is when the cooldowns of all restarts that this one would repeat
// are over: one that was refused does not end that of one before it. With scope
// Pod those on the same node count.
func coolUntil(history []v1alpha1.RestartRecord, want v1alpha1.RestartSpec, o Options) time.Time {
	var latest time.Time
	for _, past := range history {
		if past.Finished == nil || want.Scope == v1alpha1.ScopePod && past.Node != want.Node {
			continue
		}
		until := past.Finished.Add(o.Cooldown)
		if past.Phase == v1alpha1.PhaseRefused || past.Phase == v1alpha1.PhaseObserved {
			until = past.Finished.Add(o.RefusedCooldown)
		}
		if until.After(latest) {
			latest = until
		}
	}
	return latest
}
