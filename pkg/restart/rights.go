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
// grants exactly these and OwnRights; a test holds the two together.
func Rights() []Right {
	return []Right{
		{"nodeagent.dev", "restarts", "", "get", "the lock of a workload: is one running, when did the last one end"},
		{"nodeagent.dev", "restarts", "", "list", "at start: which of this node's restarts are to be finished"},
		{"nodeagent.dev", "restarts", "", "watch", "restarts of this node that are asked for while it runs"},
		{"nodeagent.dev", "restarts", "", "create", "the offence becomes a Restart"},
		{"nodeagent.dev", "restarts", "", "update", "the next restart of a workload is written into the same object; the copy of a pod becomes its owner"},
		{"nodeagent.dev", "restarts", "status", "patch", "how far it has come; resourceVersion keeps two holders apart"},
		{"", "pods", "", "get", "the owner of the pod that fills the disk"},
		{"", "pods", "", "list", "the pods of the workload that is replaced; this node's ephemeral-storage limits"},
		{"", "pods", "", "watch", "this node's pods: their ephemeral-storage limits"},
		{"", "pods", "eviction", "create", "the end of every pod that is replaced one by one, with PodDisruptionBudgets kept; nothing is ever deleted past them"},
		{"", "pods", "", "patch", "labels of a pod that is replaced: its controller lets go of it, then its Services do"},
		{"", "pods", "", "create", "the copy of a pod without owner"},
		{"", "services", "", "list", "which labels of a pod that is replaced lead to it"},
		{"discovery.k8s.io", "endpointslices", "", "list", "a copy serves before the old pod goes, and no endpoint names the old pod any more when it does"},
		{"apps", "deployments", "", "get", "the state of a rollout, and what would make it unclean"},
		{"apps", "statefulsets", "", "get", "the state of a rollout, and what would make it unclean"},
		{"apps", "daemonsets", "", "get", "the workload of a pod, and what would make a restart unclean"},
		{"apps", "replicasets", "", "get", "the Deployment that a pod's ReplicaSet belongs to"},
		{"apps", "replicasets", "", "list", "a Deployment's ReplicaSets: which pods are old"},
		{"apps", "daemonsets", "", "patch", "the annotation kubectl.kubernetes.io/restartedAt in the pod template, when the whole set is asked for"},
		{"", "replicationcontrollers", "", "get", "the workload of a pod, and what would make a restart unclean"},
		{"batch", "jobs", "", "get", "whether the Job's owner allows it, and its failure policy makes it free"},
		{"apps", "deployments", "", "patch", "the annotation kubectl.kubernetes.io/restartedAt in the pod template"},
		{"apps", "statefulsets", "", "patch", "the annotation kubectl.kubernetes.io/restartedAt in the pod template"},
		{"", "persistentvolumeclaims", "", "get", "its access mode: a claim that one pod holds cannot be held by two"},
		{"policy", "poddisruptionbudgets", "", "list", "how many pods a rollout may take down at once: rollouts themselves do not ask"},
		{"", "resourcequotas", "", "list", "whether there is room for a new pod beside the old ones"},
		{"", "nodes", "", "get", "whether the node of the pod that gave the reason is under pressure; this node's taints"},
		{"", "nodes", "", "patch", "the taint nodeagent.dev/disk-filling on its own node: new pods are kept off a disk that fills; with launch.taintPublicNode the taint of a public node"},
		{"", "namespaces", "", "get", "its annotations nodeagent.dev/restart (act, approve, observe or never) and nodeagent.dev/notify"},
		{"", "events", "", "create", "tells the owners on the pod, the workload and the Restart what happened and why"},
	}
}

// OwnRights lists what the agent needs in its own namespace alone: the three
// Leases by which all agents are one.
func OwnRights() []Right {
	return []Right{
		{"coordination.k8s.io", "leases", "", "get", "which restarts run, whether all are paused, who leads the agents"},
		{"coordination.k8s.io", "leases", "", "watch", "whether the leader is still there"},
		{"coordination.k8s.io", "leases", "", "create", "the first agent makes them"},
		{"coordination.k8s.io", "leases", "", "update", "a slot is taken, kept and given back; the leader stays the leader"},
	}
}

// LaunchRights lists what the agent needs beyond Rights to launch Binaries.
// manifests/overlays/launch grants exactly these.
func LaunchRights() []Right {
	return []Right{
		{"nodeagent.dev", "binaries", "", "list", "what is to be launched on this node"},
		{"nodeagent.dev", "binaries", "", "watch", "what is to be launched on this node"},
		{"nodeagent.dev", "binaries", "status", "patch", "the agent that leads sums up what the nodes report, and lets them change one after the other"},
		{"nodeagent.dev", "binaryinstances", "", "list", "what this node has reported; to the agent that leads: what all nodes have"},
		{"nodeagent.dev", "binaryinstances", "", "create", "what is launched on this node"},
		{"nodeagent.dev", "binaryinstances", "", "delete", "it is launched here no more"},
		{"nodeagent.dev", "binaryinstances", "status", "patch", "how it stands on this node"},
		{"", "nodes", "", "list", "this node's role, and its uid: what it reports goes with it"},
		{"", "nodes", "", "watch", "this node's role"},
	}
}

// OtherRights lists what the agent needs beyond Rights to restart the
// workloads of OtherKinds. manifests/overlays/other-kinds grants exactly these.
func OtherRights() []Right {
	var rights []Right
	for _, k := range OtherKinds() {
		rights = append(rights,
			Right{k.Group, k.Resource, "", "get", "the state of a rollout, and what would make it unclean"},
			Right{k.Group, k.Resource, "", "patch", "the annotation kubectl.kubernetes.io/restartedAt in the pod template"})
	}
	return append(rights, Right{"", "replicationcontrollers", "", "list", "a DeploymentConfig's ReplicationControllers: which pods are old"})
}
