package notify

import (
	"fmt"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// title is what a person sees first: whose it is, and how it stands.
func title(in Incident) string {
	word := map[v1alpha1.NotifyStage]string{
		v1alpha1.NotifySeen:       "to be restarted",
		v1alpha1.NotifyApproval:   "waits for a person's approval",
		v1alpha1.NotifyObserved:   "would have been restarted",
		v1alpha1.NotifyRestarting: "is being restarted",
		v1alpha1.NotifyDone:       "restarted",
		v1alpha1.NotifyFailed:     "NOT restarted, needs a person",
	}[in.Stage]
	return fmt.Sprintf("%s %s/%s %s", mark(in.Stage), in.Namespace, strings.ToLower(in.Kind)+"/"+in.Workload, word)
}

func mark(s v1alpha1.NotifyStage) string {
	switch s {
	case v1alpha1.NotifyDone:
		return "✅"
	case v1alpha1.NotifyFailed:
		return "🔴"
	case v1alpha1.NotifySeen, v1alpha1.NotifyApproval, v1alpha1.NotifyObserved:
		return "⚠️"
	}
	return "🔄"
}

// text is one message. The first of an incident that a receiver gets tells the
// reason; those that follow in a thread tell what changed.
func text(in Incident, first bool) string {
	lines := []string{title(in)}
	if first {
		lines = append(lines, fmt.Sprintf("%s: %s", in.Reason, in.Why))
	}
	if in.Message != "" {
		phase := ""
		if in.Stage == v1alpha1.NotifyFailed {
			phase = string(in.Phase) + ": "
		}
		lines = append(lines, phase+in.Message)
	}
	if first {
		lines = append(lines, where(in))
		if in.Graph != "" {
			lines = append(lines, in.Graph)
		}
	}
	return strings.Join(lines, "\n")
}

func where(in Incident) string {
	parts := []string{in.ID}
	if in.Pod != "" {
		parts = append(parts, "pod "+in.Pod)
	}
	if in.Node != "" {
		parts = append(parts, "node "+in.Node)
	}
	return strings.Join(parts, " · ")
}
