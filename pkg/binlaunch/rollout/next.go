package rollout

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/intstr"
)

// Node is what one node reports of the Binary.
type Node struct {
	Name     string
	Up       bool  // its task is Healthy, by whatever generation
	Running  int64 // the generation of the task that is up
	Rejected int64 // the generation whose task did not become healthy there
	Message  string
}

// Decision is what the Binary's status is to say.
type Decision struct {
	Up, Updated int
	Admitted    []string
	Message     string
}

// Next decides which nodes may exchange their task. admitted are those that
// were allowed to for this generation.
func Next(generation int64, maxUnavailable intstr.IntOrString, nodes []Node, admitted []string) Decision {
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	var d Decision
	var failed *Node
	var busy, old []string
	for i, n := range nodes {
		updated := n.Up && n.Running >= generation
		if n.Up {
			d.Up++
		}
		if updated {
			d.Updated++
		}
		switch {
		case n.Rejected == generation:
			failed = &nodes[i]
		case updated:
		case slices.Contains(admitted, n.Name):
			d.Admitted = append(d.Admitted, n.Name)
			busy = append(busy, n.Name)
		case !n.Up:
			busy = append(busy, n.Name)
		default:
			old = append(old, n.Name)
		}
	}
	if failed != nil {
		d.Admitted = nil
		d.Message = fmt.Sprintf("halted at %d of %d nodes: on %s %s", d.Updated, len(nodes), failed.Name, failed.Message)
		return d
	}
	free := min(max(budget(maxUnavailable, len(nodes))-len(busy), 0), len(old))
	d.Admitted = append(d.Admitted, old[:free]...)
	slices.Sort(d.Admitted)
	if d.Updated < len(nodes) {
		d.Message = fmt.Sprintf("%d of %d nodes are updated, %d are up", d.Updated, len(nodes), d.Up)
	}
	return d
}

// budget is maxUnavailable in nodes, at least one.
func budget(m intstr.IntOrString, nodes int) int {
	n, err := intstr.GetScaledValueFromIntOrPercent(&m, nodes, true)
	if err != nil {
		return 1
	}
	return max(n, 1)
}
