package notify

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Incident is one restart of one workload as people are told of it.
type Incident struct {
	// ID is the same in every message of one incident: NAMESPACE/RESTART#N.
	ID        string               `json:"incident"`
	Stage     v1alpha1.NotifyStage `json:"stage"`
	Namespace string               `json:"namespace"`
	Kind      string               `json:"kind"`
	Workload  string               `json:"workload"`
	Restart   string               `json:"restart"`
	Pod       string               `json:"pod,omitempty"`
	Node      string               `json:"node,omitempty"`
	Reason    v1alpha1.Reason      `json:"reason"`
	// Why names the file, its rate and when the disk is full, or is what a
	// person gave as reason.
	Why   string         `json:"why,omitempty"`
	Phase v1alpha1.Phase `json:"phase,omitempty"`
	// Message is how the restart stands.
	Message    string     `json:"message,omitempty"`
	FreedBytes int64      `json:"freedBytes,omitempty"`
	Asked      time.Time  `json:"asked"`
	Started    *time.Time `json:"started,omitempty"`
	Finished   *time.Time `json:"finished,omitempty"`
	// Graph is a link to what the workload wrote.
	Graph string `json:"graph,omitempty"`

	generation int64
}

// incidentOf reads a Restart. A fresh one is told by its spec alone: its status
// is still the last one's.
func incidentOf(r *v1alpha1.Restart, graph string) Incident {
	in := Incident{
		Namespace: r.Namespace, Restart: r.Name, Kind: r.Spec.Target.Kind, Workload: r.Spec.Target.Name,
		Pod: r.Spec.Pod, Node: r.Spec.Node, Reason: r.Spec.Reason, Why: r.Spec.Message,
		Stage: stageOf(r), Asked: r.CreationTimestamp.Time, generation: r.Generation,
	}
	if r.Spec.RequestedAt.After(in.Asked) {
		in.Asked = r.Spec.RequestedAt.Time
	}
	if in.Stage != v1alpha1.NotifySeen {
		in.generation = r.Status.ObservedGeneration
		in.Phase, in.Message, in.FreedBytes = r.Status.Phase, r.Status.Message, r.Status.FreedBytes
		if r.Status.Holder != "" && in.Node == "" {
			in.Node = r.Status.Holder
		}
		if r.Status.Started != nil {
			in.Started = &r.Status.Started.Time
		}
		if r.Status.Finished != nil && rank(in.Stage) == rank(v1alpha1.NotifyDone) {
			in.Finished = &r.Status.Finished.Time
		}
	}
	in.ID = fmt.Sprintf("%s/%s#%d", in.Namespace, in.Restart, in.generation)
	in.Graph = link(graph, in)
	return in
}

// stageOf is how far a Restart has come, for people.
func stageOf(r *v1alpha1.Restart) v1alpha1.NotifyStage {
	phase := r.Status.Phase
	switch {
	case phase == "", phase.Ended() && r.Generation > r.Status.ObservedGeneration:
		return v1alpha1.NotifySeen
	case phase == v1alpha1.PhaseApproval:
		return v1alpha1.NotifyApproval
	case phase == v1alpha1.PhaseObserved:
		return v1alpha1.NotifyObserved
	case phase == v1alpha1.PhaseSucceeded:
		return v1alpha1.NotifyDone
	case phase.Ended():
		return v1alpha1.NotifyFailed
	}
	return v1alpha1.NotifyRestarting
}

// rank orders the stages of one incident.
func rank(s v1alpha1.NotifyStage) int {
	switch s {
	case v1alpha1.NotifySeen:
		return 1
	case v1alpha1.NotifyApproval:
		return 2
	case v1alpha1.NotifyRestarting:
		return 3
	case v1alpha1.NotifyDone, v1alpha1.NotifyFailed, v1alpha1.NotifyObserved:
		return 4
	}
	return 0
}

// stale is how long after its end an incident is still worth telling: longer
// than a receiver is away, shorter than the time after which nobody asks.
const stale = 4 * time.Hour

// due tells whether a receiver has not been told of this stage yet.
func due(in Incident, told v1alpha1.NotifiedRecord, now time.Time) bool {
	if in.Finished != nil && now.Sub(*in.Finished) > stale {
		return false
	}
	if told.Generation > in.generation {
		return false
	}
	return told.Generation < in.generation || rank(told.Stage) < rank(in.Stage)
}

// link fills the placeholders of the configured link in.
func link(template string, in Incident) string {
	if template == "" {
		return ""
	}
	e := url.QueryEscape
	return strings.NewReplacer("{namespace}", e(in.Namespace), "{pod}", e(in.Pod), "{node}", e(in.Node),
		"{kind}", e(in.Kind), "{workload}", e(in.Workload)).Replace(template)
}
