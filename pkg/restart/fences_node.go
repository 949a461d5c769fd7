package restart

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// fenceNodesName is asked for by an agent, before it puts its taint on.
const fenceNodesName = "nodeagent-nodes"

// fenceNodes: with any other effect, or on any other node, the taint would be a
// way to drive pods away.
func fenceNodes(node, claimed Expression) Fence {
	others := fmt.Sprintf("filter(t, t.key != '%s' || t.effect != '%s')", v1alpha1.TaintDiskFilling, corev1.TaintEffectPreferNoSchedule)
	return Fence{
		Name:      fenceNodesName,
		Purpose:   "Of its own node an agent puts on and takes off the taint " + v1alpha1.TaintDiskFilling + ", and changes nothing else.",
		Resources: []FencedResource{{[]string{""}, []string{"nodes"}, []string{"UPDATE"}}},
		Variables: []Expression{
			node,
			{"is", "object.spec.?taints.orValue([])"}, {"was", "oldObject.spec.?taints.orValue([])"},
		},
		Rules: []Expression{
			claimed,
			{"an agent touches its own node alone", "object.metadata.name == variables.node"},
			{"an agent changes no metadata of a node", sameBut("object.metadata", "oldObject.metadata", "managedFields", "resourceVersion")},
			{"an agent changes nothing of a node but its taints", sameBut("object.spec", "oldObject.spec", "taints")},
			{"an agent changes no taint but " + v1alpha1.TaintDiskFilling + ":" + string(corev1.TaintEffectPreferNoSchedule), fmt.Sprintf("variables.is.%[1]s == variables.was.%[1]s", others)},
		},
	}
}
