package restart

import (
	"fmt"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// undoWait bounds how long after the deadline it is tried again to leave
// nothing half done; once it is tried in any case.
const undoWait = time.Minute

// undo is the step that takes back what a stalled restart left half done: an
// old pod gets its labels again, so its Services and its controller take it
// back; a copy goes. There may be none.
func undo(w World) (Step, bool) {
	tried := !w.Now.Before(w.Restart.Status.Started.Add(deadline(w.Restart) + undoWait))
	if tried && w.Trouble != "" {
		return Step{}, false
	}
	for i := range w.Pods {
		p := &w.Pods[i]
		if tried && p.Spec.NodeName != w.Node {
			continue // the agent of its node had the time
		}
		if w.old(p) && w.handled(p) && p.DeletionTimestamp == nil && len(taken(p)) > 0 {
			return Step{Action: Restore, Pod: podRecord(p)}, true
		}
	}
	if next := w.copy(); next != nil && next.DeletionTimestamp == nil && w.inHand() != nil {
		return Step{Action: Evict, Pod: podRecord(next)}, true
	}
	return Step{}, false
}

// abandon ends a restart whose target is lost. A pod that was taken from its
// controller, or a copy, would be left without anybody to end it: it goes as
// the others do.
func abandon(w World, why string) Step {
	left := ""
	for i := range w.Pods {
		p := &w.Pods[i]
		if !w.handled(p) || p.DeletionTimestamp != nil || (!w.old(p) && w.copy() != p) {
			continue
		}
		if w.Trouble == "" {
			return Step{Action: Evict, Pod: podRecord(p)}
		}
		left = fmt.Sprintf(" Pod %s is left: %s.", p.Name, w.Trouble)
	}
	return end(v1alpha1.PhaseFailed, why+left)
}
