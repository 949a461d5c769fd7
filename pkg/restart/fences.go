package restart

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Fence is one ValidatingAdmissionPolicy: what the API server refuses although
// the agents' role would allow it. manifests/base/fences.yaml is generated from
// Fences, and a test holds them to Rights: every write has its fence.
type Fence struct {
	Name      string
	Purpose   string
	Everybody bool // not agents alone
	Resources []FencedResource
	Variables []Expression
	Rules     []Expression
}

// FencedResource is what a Fence looks at.
type FencedResource struct {
	Groups     []string
	Resources  []string // pods, pods/eviction
	Operations []string // CREATE, UPDATE
}

// Expression is a variable by its name, or a rule by what is said when it does
// not hold, in CEL.
type Expression struct {
	Name string
	CEL  string
}

const nodeClaim = "authentication.kubernetes.io/node-name"

// AgentAccount is the user that agents are to the API server.
const AgentAccount = "system:serviceaccount:nodeagent:nodeagent"

// Fences lists all of them. A token tells its node since Kubernetes 1.30; from
// one that does not nothing is taken.
func Fences(excluded []string) []Fence {
	node := Expression{"node", fmt.Sprintf(
		"has(request.userInfo.extra) && '%[1]s' in request.userInfo.extra ? request.userInfo.extra['%[1]s'][0] : ''", nodeClaim)}
	claimed := Expression{"the agent's token does not tell its node (Kubernetes 1.30 or later is needed)", "variables.node != ''"}
	elsewhere := Expression{
		"an agent touches nothing in the excluded namespaces", fmt.Sprintf("!(request.namespace in ['%s'])", strings.Join(excluded, "', '")),
	}
	return []Fence{
		fenceWorkloads(elsewhere),
		fencePods(node, claimed, elsewhere),
		fenceCopies(node, claimed, elsewhere),
		fenceEvictions(elsewhere),
		fenceRestarts(node, claimed),
		fenceStatus(node, claimed),
		fenceLeases(node, claimed),
		fenceNodes(node, claimed),
		fenceInstances(node, claimed),
		fenceBinaries(node, claimed),
		fenceApproval(),
	}
}

// sameBut is a CEL expression: two maps are the same but for these keys.
func sameBut(is, was string, keys ...string) string {
	skip := fmt.Sprintf("k in ['%s']", strings.Join(keys, "', '"))
	return fmt.Sprintf("%[1]s.all(k, %[3]s || (k in %[2]s && %[1]s[k] == %[2]s[k])) && %[2]s.all(k, %[3]s || k in %[1]s)", is, was, skip)
}

// orEmpty is a CEL expression for a map that may not be there.
func orEmpty(path string) string { return path + ".orValue({})" }

func fenceWorkloads(elsewhere Expression) Fence {
	const is, was = "object.spec.template", "oldObject.spec.template"
	f := Fence{
		Name: "nodeagent-workloads", Purpose: "Of a workload an agent changes the annotation " + restartedAt + " in its pod template and nothing else.",
		Resources: []FencedResource{{[]string{"apps"}, []string{"deployments", "statefulsets", "daemonsets"}, []string{"UPDATE"}}},
		Variables: []Expression{
			{"is", orEmpty(is + ".?metadata.?annotations")}, {"was", orEmpty(was + ".?metadata.?annotations")},
			{"meta", orEmpty(is + ".?metadata")}, {"metaWas", orEmpty(was + ".?metadata")},
			{"notes", orEmpty("object.metadata.?annotations")}, {"notesWere", orEmpty("oldObject.metadata.?annotations")},
		},
		Rules: []Expression{
			elsewhere,
			{"an agent changes no metadata of a workload", sameBut("object.metadata", "oldObject.metadata", "annotations", "managedFields", "resourceVersion", "generation")},
			// The API server itself counts a DaemonSet's templates there.
			{"an agent changes no annotation of a workload", sameBut("variables.notes", "variables.notesWere", appsv1.DeprecatedTemplateGeneration)},
			{"an agent changes nothing of a workload but its pod template's annotation", sameBut("object.spec", "oldObject.spec", "template")},
			{"an agent changes nothing of a pod template but its annotation", sameBut(is, was, "metadata")},
			{"an agent changes no metadata of a pod template but its annotation", sameBut("variables.meta", "variables.metaWas", "annotations")},
			{"an agent changes no annotation but " + restartedAt, sameBut("variables.is", "variables.was", restartedAt)},
		},
	}
	for _, k := range OtherKinds() {
		f.Resources = append(f.Resources, FencedResource{[]string{k.Group}, []string{k.Resource}, []string{"UPDATE"}})
	}
	return f
}

func fencePods(node, claimed, elsewhere Expression) Fence {
	return Fence{
		Name:      "nodeagent-pods",
		Purpose:   "Of a pod of its own node an agent takes labels off, gives them back, and writes down which. It changes nothing else, and no other pod.",
		Resources: []FencedResource{{[]string{""}, []string{"pods"}, []string{"UPDATE"}}},
		Variables: []Expression{
			node,
			{"is", orEmpty("object.metadata.?labels")}, {"was", orEmpty("oldObject.metadata.?labels")},
			{"notes", orEmpty("object.metadata.?annotations")}, {"notesWere", orEmpty("oldObject.metadata.?annotations")},
			{"taken", fmt.Sprintf("oldObject.metadata.?annotations[?'%s'].orValue('')", v1alpha1.AnnotationLabelsTaken)},
		},
		Rules: []Expression{
			claimed, elsewhere,
			{"an agent touches pods of its own node alone", "oldObject.spec.?nodeName.orValue('') == variables.node"},
			{"an agent does not change what a pod runs", "object.spec == oldObject.spec"},
			{"an agent changes no metadata of a pod but labels and its own annotation", sameBut("object.metadata", "oldObject.metadata", "labels", "annotations", "managedFields", "resourceVersion", "generation")},
			{"an agent changes no annotation of a pod but " + v1alpha1.AnnotationLabelsTaken, sameBut("variables.notes", "variables.notesWere", v1alpha1.AnnotationLabelsTaken)},
			{"an agent gives a pod no label but those that were taken off it", fmt.Sprintf(
				`variables.is.all(k, k == '%s' || (k in variables.was ? variables.is[k] == variables.was[k] : variables.taken.contains('"' + k + '":"' + variables.is[k] + '"')))`, v1alpha1.LabelRestart)},
			{"an agent takes no label off a pod without writing it down", fmt.Sprintf(
				`variables.was.all(k, k == '%s' || k in variables.is || variables.notes[?'%s'].orValue('').contains('"' + k + '":"' + variables.was[k] + '"'))`, v1alpha1.LabelRestart, v1alpha1.AnnotationLabelsTaken)},
		},
	}
}

// fenceCopies bounds what a stolen token could run: nothing that reaches the
// node or has rights of its own. preflightCopied says the same to people.
func fenceCopies(node, claimed, elsewhere Expression) Fence {
	containers := "variables.containers.all(c, %s)"
	return Fence{
		Name:      "nodeagent-copies",
		Purpose:   "A pod that an agent makes is marked as a copy, and has no access to the node, to Secrets or to another account's rights.",
		Resources: []FencedResource{{[]string{""}, []string{"pods"}, []string{"CREATE"}}},
		Variables: []Expression{
			node,
			{"containers", "object.spec.containers + object.spec.?initContainers.orValue([])"},
			{"volumes", "object.spec.?volumes.orValue([])"},
		},
		Rules: []Expression{
			claimed, elsewhere,
			{"an agent makes no pod but a marked copy", fmt.Sprintf("object.metadata.?labels[?'%s'].hasValue() && object.metadata.?annotations[?'%s'].hasValue() && object.metadata.?annotations[?'%s'].hasValue()",
				v1alpha1.LabelRestart, v1alpha1.AnnotationCopyOf, v1alpha1.AnnotationCopied)},
			{"an agent makes no pod that belongs to another object, or that no scheduler places", "!has(object.metadata.ownerReferences) && object.spec.?nodeName.orValue('') == ''"},
			{"a copy has no part in the node's own namespaces", "!object.spec.?hostNetwork.orValue(false) && !object.spec.?hostPID.orValue(false) && !object.spec.?hostIPC.orValue(false)"},
			{"a copy runs as no service account but default", "object.spec.?serviceAccountName.orValue('default') in ['', 'default']"},
			{"a copy mounts neither Secrets nor paths of the node", "variables.volumes.all(v, !has(v.hostPath) && !has(v.secret) && !(has(v.projected) && v.projected.?sources.orValue([]).exists(s, has(s.secret))))"},
			{"a copy reads no Secret", fmt.Sprintf(containers, "c.?env.orValue([]).all(e, !e.?valueFrom.?secretKeyRef.hasValue()) && c.?envFrom.orValue([]).all(e, !has(e.secretRef))")},
			{"a copy has no privileges", fmt.Sprintf(containers, "!c.?securityContext.?privileged.orValue(false) && size(c.?securityContext.?capabilities.?add.orValue([])) == 0")},
			{"a copy takes no port of its node", fmt.Sprintf(containers, "c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0)")},
		},
	}
}

// fenceEvictions: the API server does not show a policy the pod that is
// evicted, so its node cannot be asked for here. PodDisruptionBudgets hold.
func fenceEvictions(elsewhere Expression) Fence {
	return Fence{
		Name:      "nodeagent-evictions",
		Purpose:   "An agent evicts a pod that it has looked at, with the pod's own grace period.",
		Resources: []FencedResource{{[]string{""}, []string{"pods/eviction"}, []string{"CREATE"}}},
		Rules: []Expression{
			elsewhere,
			{"an agent evicts no pod without its uid", "object.?deleteOptions.?preconditions.?uid.orValue('') != ''"},
			{"an agent leaves a pod its grace period", "!object.?deleteOptions.?gracePeriodSeconds.hasValue()"},
		},
	}
}

func fenceRestarts(node, claimed Expression) Fence {
	return Fence{
		Name:      "nodeagent-restarts",
		Purpose:   "An agent asks for restarts in its own node's name, or leaves them to the leader, and never in a person's.",
		Resources: []FencedResource{{[]string{v1alpha1.GroupVersion().Group}, []string{"restarts"}, []string{"CREATE", "UPDATE"}}},
		Variables: []Expression{node, {"asks", "oldObject == null || object.spec != oldObject.spec"}},
		Rules: []Expression{
			claimed,
			{"an agent asks for restarts of its own node alone", "!variables.asks || object.spec.?node.orValue('') in ['', variables.node]"},
			{"an agent asks for nothing in a person's name", "!variables.asks || object.spec.?reason.orValue('Manual') != 'Manual'"},
		},
	}
}

func fenceStatus(node, claimed Expression) Fence {
	return Fence{
		Name:      "nodeagent-restart-status",
		Purpose:   "An agent writes the status of Restarts that it holds, takes up or hands on. Of those of others it writes down whom it told.",
		Resources: []FencedResource{{[]string{v1alpha1.GroupVersion().Group}, []string{"restarts/status"}, []string{"UPDATE"}}},
		Variables: []Expression{node, {"is", orEmpty("object.?status")}, {"was", orEmpty("oldObject.?status")}},
		Rules: []Expression{
			claimed,
			{"an agent writes the status of no Restart that another one holds", "variables.node in [object.?status.?holder.orValue(''), oldObject.?status.?holder.orValue('')] || (" +
				sameBut("variables.is", "variables.was", "notified") + ")"},
		},
	}
}

func fenceLeases(node, claimed Expression) Fence {
	paused := fmt.Sprintf("metadata.?annotations[?'%s']", v1alpha1.AnnotationPaused)
	return Fence{
		Name:      "nodeagent-leases",
		Purpose:   "An agent writes the two Leases that all agents share, leads in its own node's name, and does not end a pause.",
		Resources: []FencedResource{{[]string{"coordination.k8s.io"}, []string{"leases"}, []string{"CREATE", "UPDATE"}}},
		Variables: []Expression{node},
		Rules: []Expression{
			claimed,
			{"an agent writes no Lease but those of the agents", fmt.Sprintf("object.metadata.name in ['%s', '%s']", LeaseSlots, LeaseLeader)},
			{"an agent leads in its own node's name", "object.?spec.?holderIdentity.orValue('') == '' || object.spec.holderIdentity.startsWith(variables.node + '_')"},
			{"an agent neither makes nor ends a pause", fmt.Sprintf("object.%[1]s == (oldObject == null ? optional.none() : oldObject.%[1]s)", paused)},
		},
	}
}

func fenceInstances(node, claimed Expression) Fence {
	return Fence{
		Name:    "nodeagent-instances",
		Purpose: "What is launched on a node its own agent reports, and no other.",
		Resources: []FencedResource{
			{[]string{v1alpha1.GroupVersion().Group}, []string{"binaryinstances"}, []string{"CREATE", "UPDATE", "DELETE"}},
			{[]string{v1alpha1.GroupVersion().Group}, []string{"binaryinstances/status"}, []string{"UPDATE"}},
		},
		Variables: []Expression{node, {"instance", "object == null ? oldObject : object"}},
		Rules: []Expression{
			claimed,
			{"an agent reports what is launched on its own node alone", "variables.instance.spec.node == variables.node && (oldObject == null || oldObject.spec.node == variables.node)"},
		},
	}
}

// fenceBinaries: which agent leads the updates stands in a Lease, which a
// policy cannot read.
func fenceBinaries(node, claimed Expression) Fence {
	return Fence{
		Name:      "nodeagent-binaries",
		Purpose:   "Of a Binary an agent writes the status and nothing of what is to be launched.",
		Resources: []FencedResource{{[]string{v1alpha1.GroupVersion().Group}, []string{"binaries", "binaries/status"}, []string{"CREATE", "UPDATE"}}},
		Variables: []Expression{node},
		Rules: []Expression{
			claimed,
			{"an agent changes nothing of a Binary but its status", "oldObject != null && object.spec == oldObject.spec"},
		},
	}
}

func fenceApproval() Fence {
	approved := fmt.Sprintf("metadata.?annotations[?'%s']", v1alpha1.AnnotationApproved)
	return Fence{
		Name: "nodeagent-approval", Everybody: true,
		Purpose:   "Whoever approves a Restart needs the verb approve on restarts in its namespace.",
		Resources: []FencedResource{{[]string{v1alpha1.GroupVersion().Group}, []string{"restarts"}, []string{"CREATE", "UPDATE"}}},
		Variables: []Expression{{"same", fmt.Sprintf("object.%[1]s == (oldObject == null ? optional.none() : oldObject.%[1]s)", approved)}},
		Rules: []Expression{
			{"to approve a Restart you need the verb approve on restarts.nodeagent.dev (ClusterRole nodeagent-approver)", fmt.Sprintf(
				"variables.same || !object.%s.hasValue() || authorizer.group('%s').resource('restarts').namespace(request.namespace).check('approve').allowed()",
				approved, v1alpha1.GroupVersion().Group)},
		},
	}
}
