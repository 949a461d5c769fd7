package restart

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

const (
	// maxHistory is how many ended restarts a Restart remembers in full.
	maxHistory = 10
	// maxNodes is of how many nodes more it remembers the last one, so that each
	// pod of a DaemonSet has its cooldown. They end one after the other: within
	// an hour there are fewer.
	maxNodes = 490
	// maxOldPods is how many pods a Restart names: the API server takes objects
	// of 1.5 MB. A rollout of more is followed by the workload's own counts.
	maxOldPods = 500
)

// followers is the transition table: which phases may come after which. The
// empty phase stands for a restart that is asked for and not taken up, be the
// object new or left over from the one before.
func followers(p v1alpha1.Phase) []v1alpha1.Phase {
	switch p {
	case "":
		return []v1alpha1.Phase{v1alpha1.PhaseApproval, v1alpha1.PhasePending, v1alpha1.PhaseRefused, v1alpha1.PhaseObserved, v1alpha1.PhaseFailed}
	case v1alpha1.PhaseApproval:
		return []v1alpha1.Phase{v1alpha1.PhaseApproval, v1alpha1.PhasePending, v1alpha1.PhaseRefused, v1alpha1.PhaseObserved, v1alpha1.PhaseFailed}
	case v1alpha1.PhasePending:
		return []v1alpha1.Phase{v1alpha1.PhaseApproval, v1alpha1.PhasePending, v1alpha1.PhaseRunning, v1alpha1.PhaseRefused, v1alpha1.PhaseObserved, v1alpha1.PhaseStalled, v1alpha1.PhaseFailed}
	case v1alpha1.PhaseRunning:
		return []v1alpha1.Phase{v1alpha1.PhaseRunning, v1alpha1.PhaseVerifying, v1alpha1.PhaseRollingBack, v1alpha1.PhaseStalled, v1alpha1.PhaseFailed}
	case v1alpha1.PhaseVerifying:
		return []v1alpha1.Phase{v1alpha1.PhaseVerifying, v1alpha1.PhaseSucceeded, v1alpha1.PhaseIneffective, v1alpha1.PhaseStalled, v1alpha1.PhaseFailed}
	case v1alpha1.PhaseRollingBack:
		return []v1alpha1.Phase{v1alpha1.PhaseRollingBack, v1alpha1.PhaseStalled, v1alpha1.PhaseFailed}
	}
	return nil
}

func mayFollow(from, to v1alpha1.Phase) bool {
	for _, p := range followers(from) {
		if p == to {
			return true
		}
	}
	return false
}

// nextStatus is the status after a step, made of the world before it.
func nextStatus(w World, s Step) (v1alpha1.RestartStatus, error) {
	from := w.Restart.Status.Phase
	if fresh(w.Restart) {
		from = ""
	}
	if !mayFollow(from, s.Phase) {
		return v1alpha1.RestartStatus{}, fmt.Errorf("cannot go from phase %q to %q", from, s.Phase)
	}
	status := *w.Restart.Status.DeepCopy()
	switch {
	case s.Action == Queue:
		status = queueStatus(w.Restart, w.Now)
		status.Holder = w.Node
	case fresh(w.Restart), queued(w.Restart) && s.Action != Report:
		status = startStatus(w)
	}
	if s.Action == Hand {
		status.Holder = s.Pod.Node
	}
	status.Phase, status.Message = s.Phase, cut(s.Message, maxMessage) // it may quote others, who have no bound
	status.Renewed = new(metav1.NewMicroTime(w.Now))
	count(w, &status)
	if s.Replaced {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionReplaced, Status: metav1.ConditionTrue, Reason: "OldPodsGone",
			ObservedGeneration: status.ObservedGeneration,
			LastTransitionTime: metav1.NewTime(w.Now),
			Message:            "The new pods are Ready, the old ones are gone.",
		})
	}
	if s.Stalled != "" {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: "DeadlineExceeded",
			ObservedGeneration: status.ObservedGeneration,
			LastTransitionTime: metav1.NewTime(w.Now),
			Message:            s.Stalled,
		})
	}
	if s.Action == End {
		status.Finished = new(metav1.NewTime(w.Now))
		status.History = remember(status.History, w.Restart.Spec, status)
	}
	return status, nil
}

// queueStatus is of a restart that was taken up and has to wait. One that
// waited already goes on waiting.
func queueStatus(r *v1alpha1.Restart, now time.Time) v1alpha1.RestartStatus {
	status := v1alpha1.RestartStatus{
		ObservedGeneration: r.Generation, History: r.Status.History, Queued: new(metav1.NewTime(now)),
		Notified: r.Status.Notified, // as startStatus has it
	}
	if queued(r) && r.Status.Queued != nil {
		status.Queued = r.Status.Queued
	}
	return status
}

// startStatus is a restart's first, with what was before it kept as history.
func startStatus(w World) v1alpha1.RestartStatus {
	status := v1alpha1.RestartStatus{
		ObservedGeneration: w.Restart.Generation,
		Holder:             w.Node,
		Started:            new(startTime(w)),
		History:            w.Restart.Status.History,
		Notified:           w.Restart.Status.Notified, // it says itself which generation it speaks of
	}
	if queued(w.Restart) {
		status.Queued = w.Restart.Status.Queued
	}
	if w.Target == nil {
		return status
	}
	status.TargetUID = string(w.Target.uid())
	toGo := func(p *corev1.Pod) bool { return hasToGo(w.Restart.Spec, p) }
	status.Method = w.method()
	if status.Method == v1alpha1.MethodTemplate {
		status.Template = recordTemplate(w.Target.template())
	} else {
		status.Capacity = w.capacity(toGo)
	}
	for i := range w.Pods {
		if p := &w.Pods[i]; p.DeletionTimestamp == nil && toGo(p) {
			status.OldPods = append(status.OldPods, podRecord(p))
		}
	}
	sortOldPods(w, status.OldPods)
	status.Pods = int32(len(status.OldPods))
	if len(status.OldPods) > maxOldPods {
		slices.SortStableFunc(status.OldPods, func(a, b v1alpha1.PodReference) int { return elsewhere(w, a) - elsewhere(w, b) })
		status.OldPods = status.OldPods[:maxOldPods]
	}
	return status
}

func elsewhere(w World, p v1alpha1.PodReference) int {
	if p.Node == w.Node {
		return 0
	}
	return 1
}

// startTime is now in whole seconds, as the API keeps it, and never what the
// template is stamped with already: two restarts within one second would look
// like one.
func startTime(w World) metav1.Time {
	at := metav1.NewTime(w.Now.UTC().Truncate(time.Second))
	if w.Target != nil && w.Target.template().Annotations[restartedAt] == at.Format(time.RFC3339) {
		return metav1.NewTime(at.Add(time.Second))
	}
	return at
}

func hasToGo(spec v1alpha1.RestartSpec, p *corev1.Pod) bool {
	return spec.Scope != v1alpha1.ScopePod || spec.Pod == p.Name || spec.Target.Kind == KindPod
}

// count brings the figures up to date: what the old pods have written, which
// of them are gone, and what that freed.
func count(w World, status *v1alpha1.RestartStatus) {
	there := map[string]bool{}
	for i := range w.Pods {
		there[string(w.Pods[i].UID)] = true
	}
	status.ReplacedPods, status.FreedBytes, status.Freed = nil, 0, ""
	for i := range status.OldPods {
		old := &status.OldPods[i]
		if known := w.Written[old.UID].Bytes; known > 0 {
			old.Bytes = known
		}
		if there[old.UID] || (w.Target == nil && status.Method != v1alpha1.MethodCopy) {
			continue
		}
		status.ReplacedPods = append(status.ReplacedPods, old.Name)
		if !w.Written[old.UID].Held {
			status.FreedBytes += old.Bytes
		}
	}
	if status.FreedBytes > 0 {
		status.Freed = formatBytes(status.FreedBytes)
	}
}

// held counts the old pods that are gone from the API and whose layers are
// not gone from the disk.
func (w World) held() int {
	held := 0
	for _, old := range w.Restart.Status.OldPods {
		if w.Written[old.UID].Held {
			held++
		}
	}
	return held
}

// remember puts an ended restart in front of those before it.
func remember(history []v1alpha1.RestartRecord, spec v1alpha1.RestartSpec, status v1alpha1.RestartStatus) []v1alpha1.RestartRecord {
	record := v1alpha1.RestartRecord{
		Reason: spec.Reason, Scope: spec.Scope, Pod: spec.Pod, Node: spec.Node,
		Phase: status.Phase, Started: status.Started, Finished: status.Finished,
		FreedBytes: status.FreedBytes, Message: status.Message,
	}
	kept, nodes := []v1alpha1.RestartRecord{record}, map[string]bool{spec.Node: true}
	for _, past := range history {
		switch {
		case len(kept) < maxHistory:
			kept = append(kept, past)
		case past.Scope == v1alpha1.ScopePod && !nodes[past.Node] && len(kept) < maxHistory+maxNodes:
			past.Message = ""
			kept = append(kept, past)
		}
		nodes[past.Node] = true
	}
	return kept
}

func success(w World) string {
	var after v1alpha1.RestartStatus
	w.Restart.Status.DeepCopyInto(&after)
	count(w, &after)
	said := fmt.Sprintf("%s replaced in %s", pods(max(len(after.OldPods), int(after.Pods))), w.Now.Sub(after.Started.Time).Round(time.Second))
	if after.FreedBytes > 0 {
		said += fmt.Sprintf(", %s freed on %s", after.Freed, w.Node)
	}
	if held := w.held(); held > 0 {
		said += fmt.Sprintf("; the space of %s was not seen to go", pods(held))
	}
	return said + "."
}

func pods(n int) string {
	if n == 1 {
		return "1 pod"
	}
	return strconv.Itoa(n) + " pods"
}

// formatBytes writes bytes as Kubernetes does, with one digit after the
// point: 4.1Gi.
func formatBytes(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	value, units := float64(n)/1024, []string{"Ki", "Mi", "Gi", "Ti", "Pi"}
	i := 0
	for ; value >= 1023.95 && i < len(units)-1; i++ {
		value /= 1024
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + units[i]
}
