package reload

import "github.com/nodeagent/nodeagent/pkg/restart"

// Rights lists what the agent needs beyond restart.Rights to look for changes.
// manifests/overlays/reload grants exactly these, and nothing else does.
func Rights() []restart.Right {
	var rights []restart.Right
	add := func(group, resource, reason string, verbs ...string) {
		for _, verb := range verbs {
			rights = append(rights, restart.Right{Group: group, Resource: resource, Verb: verb, Reason: reason})
		}
	}
	for _, resource := range []string{"deployments", "statefulsets", "daemonsets"} {
		add("apps", resource, "which workloads ask for it, and what they use", "list", "watch")
	}
	for _, resource := range []string{"configmaps", "secrets"} {
		add("", resource, "which of them changed: their metadata alone is asked for", "list", "watch")
		add("", resource, "the data of one that changed and that a workload asked for, to make its fingerprint", "get")
	}
	return rights
}

// OwnRights are those in the agent's own namespace alone.
func OwnRights() []restart.Right {
	return []restart.Right{
		{Resource: "secrets", Verb: "create", Reason: "the fingerprints that workloads were last started with: nodeagent-reload-0 to -f"},
		{Resource: "secrets", Verb: "update", Reason: "the same, when they changed"},
	}
}
