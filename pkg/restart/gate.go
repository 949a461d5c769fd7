package restart

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Before anything of a Restart is begun it passes the gate: the preflight
// first, then its mode, then the pause, the windows and the slots.

// queueRenew is how often the holder of a Restart that waits says that it is
// alive.
const queueRenew = time.Minute

// How long to wait until a Restart that waits is looked at again. Of an
// approval the watch tells.
const (
	againSlot     = 5 * time.Second
	againApproval = 30 * time.Second
	againWindow   = 20 * time.Second
	againUnseen   = time.Second
)

// unseenFor is how long a workload's controller may take to see its last change.
const unseenFor = 10 * time.Second

// enter is the next step of a Restart that was not begun yet.
func enter(w World) Step {
	r := w.Restart
	switch {
	case unapproved(r) && !w.Now.Before(r.Status.Queued.Add(w.ApprovalTimeout)):
		return end(v1alpha1.PhaseRefused, fmt.Sprintf("Nobody approved it within %s.", w.ApprovalTimeout))
	case unapproved(r):
		return hold(w, v1alpha1.PhaseApproval, askApproval(r), againApproval)
	case queued(r) && w.Waits != "":
		return hold(w, v1alpha1.PhasePending, w.Waits, w.Again)
	}
	first := begin(w)
	switch {
	case first.Action == End && unseen(w):
		return Step{Action: Wait, Message: fmt.Sprintf("The controller of %s has not seen its last change.", describe(r.Spec.Target)), Again: againUnseen}
	case first.Action == End:
		return first
	}
	switch w.Mode {
	case ModeNever:
		return end(v1alpha1.PhaseRefused, "Nothing is restarted: "+w.ModeSaid+".")
	case ModeObserve:
		return end(v1alpha1.PhaseObserved, "Nothing was done: "+w.ModeSaid+". "+wouldDo(w))
	case ModeApprove:
		if !approved(r) {
			return Step{Action: Queue, Phase: v1alpha1.PhaseApproval, Message: askApproval(r) + " " + wouldDo(w)}
		}
	}
	switch {
	case w.Waits != "":
		return Step{Action: Queue, Phase: v1alpha1.PhasePending, Message: w.Waits}
	case w.Ledger != nil && !w.Ledger.holds(r):
		return Step{Action: Admit}
	}
	return first
}

// unseen tells whether the controller of a workload that was changed has still
// a moment to see that, for a Restart that was asked for just now. Until then
// its status may tell of a rollout that there is not: a Deployment's generation
// is raised by an annotation alone.
func unseen(w World) bool {
	age := w.Now.Sub(askedAt(w.Restart))
	return fresh(w.Restart) && -unseenFor < age && age < unseenFor && w.Target != nil && !w.Target.observed()
}

// hold goes on waiting.
func hold(w World, phase v1alpha1.Phase, sentence string, again time.Duration) Step {
	status := w.Restart.Status
	if phase != status.Phase || status.Renewed == nil || !w.Now.Before(status.Renewed.Add(queueRenew)) {
		if phase == v1alpha1.PhaseApproval && status.Message != "" {
			sentence = status.Message // it says what would be done, too
		}
		return report(phase, sentence)
	}
	return Step{Action: Wait, Message: sentence, Again: again}
}

// queued tells whether it was taken up and has to wait.
func queued(r *v1alpha1.Restart) bool {
	return !fresh(r) && r.Status.Started == nil
}

func unapproved(r *v1alpha1.Restart) bool {
	return queued(r) && r.Status.Phase == v1alpha1.PhaseApproval && !approved(r) && r.Status.Queued != nil
}

func approved(r *v1alpha1.Restart) bool {
	return r.Annotations[v1alpha1.AnnotationApproved] == strconv.FormatInt(r.Generation, 10)
}

func askApproval(r *v1alpha1.Restart) string {
	return fmt.Sprintf("Waits for approval: kubectl annotate --overwrite -n %s restart %s %s=%d",
		r.Namespace, r.Name, v1alpha1.AnnotationApproved, r.Generation)
}

// wouldDo says what the restart comes to.
func wouldDo(w World) string {
	going := int(startStatus(w).Pods)
	said := fmt.Sprintf("It replaces %s of %s", pods(going), describe(w.Restart.Spec.Target))
	switch w.method() {
	case v1alpha1.MethodTemplate:
		said += " by its own rollout"
	case v1alpha1.MethodEvict:
		said += ", each evicted before its next starts"
	case v1alpha1.MethodRelease:
		said += ", each after its next is Ready"
	case v1alpha1.MethodCopy:
		said += " by a copy, which serves before the old one goes"
	}
	var bytes int64
	for _, old := range startStatus(w).OldPods {
		bytes += w.Written[old.UID].Bytes
	}
	if bytes > 0 {
		said += fmt.Sprintf(", which frees %s on %s", formatBytes(bytes), w.Node)
	}
	for _, warning := range warnings(Preflight(w)) {
		said += ". " + warning[:len(warning)-1]
	}
	return said + "."
}

// waits says why a Restart cannot be begun now whatever its workload looks
// like; empty if it can.
func waits(r *v1alpha1.Restart, l *Ledger, o Options) (why string, again time.Duration) {
	if l.holds(r) {
		return "", 0
	}
	now := o.Now()
	if l.paused != nil {
		return fmt.Sprintf("Waits: all restarts are paused (%s).", cmp.Or(*l.paused, "no reason is given")), againSlot
	}
	if open, opens := o.Windows.open(now); automatic(r) && !open && !urgent(r, o.Urgent, now) {
		if opens.IsZero() {
			return "Waits for a window, and none ever opens.", againWindow
		}
		return fmt.Sprintf("Waits for the next window, which opens at %s.", opens.Format(time.RFC3339)), againWindow
	}
	return l.full(r, o.Limits, now), againSlot
}

// urgent tells whether the disk is full before a window is worth waiting for.
func urgent(r *v1alpha1.Restart, within time.Duration, now time.Time) bool {
	return r.Spec.FullAt != nil && within > 0 && r.Spec.FullAt.Sub(now) <= within
}

// modeOf is what the workload says, before that what its namespace says, and
// before that the configuration; and who said it.
func modeOf(configured Mode, n notes) (Mode, string) {
	value, said, ok := n.of(v1alpha1.AnnotationRestart)
	if !ok {
		return configured, fmt.Sprintf("restart.mode is %s", configured)
	}
	switch mode := Mode(value); mode {
	case ModeAct, ModeApprove, ModeObserve, ModeNever:
		return mode, said
	}
	return ModeNever, said + ", which is none of act, approve, observe and never"
}

// notes are the annotations by which people say what becomes of a workload.
type notes struct {
	namespace, workload     string // as a person calls them
	ofNamespace, ofWorkload map[string]string
}

// of is what the workload's annotation says, or else its namespace's.
func (n notes) of(key string) (value, said string, ok bool) {
	value, ok = n.ofWorkload[key]
	by := n.workload
	if !ok {
		value, ok = n.ofNamespace[key]
		by = n.namespace
	}
	return value, fmt.Sprintf("the annotation %s of %s is %s", key, by, value), ok
}

// choices reads what people and the configuration say.
func (l *looker) choices(ctx context.Context, w *World) error {
	var namespace corev1.Namespace
	if err := l.client.Get(ctx, client.ObjectKey{Name: w.Restart.Namespace}, &namespace); err != nil {
		return fmt.Errorf("cannot read namespace %s: %w", w.Restart.Namespace, err)
	}
	n := notes{
		namespace: "namespace " + namespace.Name, ofNamespace: namespace.Annotations,
		workload: describe(w.Restart.Spec.Target),
	}
	if w.Target != nil {
		n.ofWorkload = w.Target.object().GetAnnotations()
	}
	w.Mode, w.ModeSaid = modeOf(l.options.Mode, n)
	w.OnStall, w.OnStallSaid = onStallOf(w.Restart.Spec.OnStall, l.options.OnStall, n)
	return nil
}
