package restart

import "fmt"

// Right is one thing the agent may do in the API, and why it has to.
type Right struct {
	Group       string // "" is the core group
	Resource    string
	Subresource string
	Verb        string
	Reason      string
}

// String names a right as kubectl auth can-i does.
func (r Right) String() string {
	name := r.Resource
	if r.Group != "" {
		name += "." + r.Group
	}
	if r.Subresource != "" {
		name += "/" + r.Subresource
	}
	return fmt.Sprintf("%s %s", r.Verb, name)
}

// Rights lists all that an agent asks of the API. manifests/base/rbac.yaml
// grants exactly these; a test holds the two together.
func Rights() []Right {
	return []Right{
		{"nodeagent.dev", "restarts", "", "get", "the lock of a workload: is one running, when did the last one end"},
		{"nodeagent.dev", "restarts", "", "list", "at start: which of this node's restarts are to be finished"},
		{"nodeagent.dev", "restarts", "", "watch", "restarts of this node that are asked for while it runs"},
		{"nodeagent.dev", "restarts", "", "create", "the offence becomes a Restart"},
		{"nodeagent.dev", "restarts", "", "update", "the next restart of a workload is written into the same object"},
		{"nodeagent.dev", "restarts", "status", "patch", "how far it has come; resourceVersion keeps two holders apart"},
		{"", "pods", "", "get", "the owner of the pod that fills the disk"},
		{"", "pods", "", "list", "the pods of the workload that is replaced; this node's ephemeral-storage limits"},
		{"", "pods", "", "watch", "this node's pods: their ephemeral-storage limits"},
		{"", "pods", "eviction", "create", "a DaemonSet's pod on this node, with PodDisruptionBudgets kept"},
		{"apps", "deployments", "", "get", "the state of a rollout, and what would make it unclean"},
		{"apps", "statefulsets", "", "get", "the state of a rollout, and what would make it unclean"},
		{"apps", "daemonsets", "", "get", "the workload of a pod, and what would make a restart unclean"},
		{"apps", "replicasets", "", "get", "the Deployment that a pod's ReplicaSet belongs to"},
		{"apps", "replicasets", "", "list", "a Deployment's ReplicaSets: which pods are old"},
		{"apps", "deployments", "", "patch", "the annotation kubectl.kubernetes.io/restartedAt in the pod template"},
		{"apps", "statefulsets", "", "patch", "the annotation kubectl.kubernetes.io/restartedAt in the pod template"},
		{"", "persistentvolumeclaims", "", "get", "its access mode: a claim that one pod holds cannot be held by two"},
		{"", "events", "", "create", "tells the owners on the pod, the workload and the Restart what happened and why"},
	}
}
