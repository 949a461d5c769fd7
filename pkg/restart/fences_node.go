package restart

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// fenceNodesName is asked for by an agent, before it puts a taint on.
const fenceNodesName = "nodeagent-nodes"

// fenceNodes: with any other effect, or on any other node, the taints would be a
// way to drive pods away. That of a public node keeps them off, which only who
// labels nodes may ask for.
func fenceNodes(node, claimed Expression) Fence {
	filling := fmt.Sprintf("t.key == '%s' && t.effect == '%s'", v1alpha1.TaintDiskFilling, corev1.TaintEffectPreferNoSchedule)
	public := fmt.Sprintf("t.key == '%s' && t.effect == '%s' && has(t.value) && t.value == '%s' && has(t.timeAdded)", v1alpha1.LabelRole, corev1.TaintEffectNoSchedule, v1alpha1.RolePublic)
	others := fmt.Sprintf("filter(t, !(%s) && !(%s))", filling, public)
	return Fence{
		Name: fenceNodesName,
		Purpose: "Of its own node an agent puts on and takes off the taint " + v1alpha1.TaintDiskFilling + ", and " + v1alpha1.LabelRole +
			" as the node's label says, and changes nothing else.",
		Resources: []FencedResource{{[]string{""}, []string{"nodes"}, []string{"UPDATE"}}},
		Variables: []Expression{
			node,
			{"is", "object.spec.?taints.orValue([])"}, {"was", "oldObject.spec.?taints.orValue([])"},
			{"public", fmt.Sprintf("object.metadata.?labels[?'%s'].orValue('') == '%s'", v1alpha1.LabelRole, v1alpha1.RolePublic)},
		},
		Rules: []Expression{
			claimed,
			{"an agent touches its own node alone", "object.metadata.name == variables.node"},
			{"an agent changes no metadata of a node", sameBut("object.metadata", "oldObject.metadata", "managedFields", "resourceVersion")},
			{"an agent changes nothing of a node but its taints", sameBut("object.spec", "oldObject.spec", "taints")},
			{"an agent changes no taint but " + v1alpha1.TaintDiskFilling + ":" + string(corev1.TaintEffectPreferNoSchedule) + " and its own " +
				v1alpha1.LabelRole + "=" + v1alpha1.RolePublic + ":" + string(corev1.TaintEffectNoSchedule), fmt.Sprintf("variables.is.%[1]s == variables.was.%[1]s", others)},
			{"an agent changes the taint " + v1alpha1.LabelRole + " only to what the node's label says", fmt.Sprintf(
				"variables.is.exists(t, %[1]s) == variables.was.exists(t, %[1]s) || variables.is.exists(t, %[1]s) == variables.public", public)},
		},
	}
}
