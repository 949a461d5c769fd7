package restart

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

const (
	// fenceAgain is how long it takes until a fence that was not there is looked
	// for again.
	fenceAgain = 5 * time.Minute
	// taintProbe is a taint that no agent may put on its node. It is soft, and
	// asked for as a dry run alone.
	taintProbe = "nodeagent.dev/fence-probe"
)

// fenced proves that the API server refuses this agent all but its one taint:
// it tries another, as a dry run. Where that is let through it is told, once.
func (n *NodeTaint) fenced(ctx context.Context) (bool, error) {
	if !n.unfenced.IsZero() && n.now().Before(n.unfenced.Add(fenceAgain)) {
		return false, nil
	}
	node, err := n.get(ctx)
	if err != nil {
		return false, err
	}
	fenced, err := proveFence(ctx, n.client, node)
	if err != nil {
		return false, err
	}
	if fenced {
		n.unfenced = time.Time{}
		return true, nil
	}
	if n.unfenced.IsZero() {
		n.tell(ctx, node, corev1.EventTypeWarning, EventNotFenced, notFenced)
	}
	n.unfenced = n.now()
	n.metrics.errors.WithLabelValues("Taint").Inc()
	return false, nil
}

// proveFence tries a taint that no agent may put on a node.
func proveFence(ctx context.Context, c client.Client, node *corev1.Node) (bool, error) {
	probe := node.DeepCopy()
	probe.Spec.Taints = append(probe.Spec.Taints, corev1.Taint{Key: taintProbe, Effect: corev1.TaintEffectPreferNoSchedule})
	err := c.Patch(ctx, probe, client.MergeFrom(node), client.DryRunAll)
	switch {
	case err == nil:
		return false, nil
	case refusedByFence(err):
		return true, nil
	}
	return false, fmt.Errorf("cannot find out whether the fence %s of node %s is there: %w", fenceNodesName, node.Name, err)
}

const (
	notFenced = "The disk of this node fills, and new pods are not kept off it: it has no taint " + v1alpha1.TaintDiskFilling +
		", " + unfencedWhy
	unfencedWhy = "for the API server would let its agent change all of the node. The ValidatingAdmissionPolicy " + fenceNodesName +
		" or its binding is not there, or does not deny: kubectl apply -f manifests/base/fences.yaml"
)

// refusedByFence tells the fence's refusal from any other: of a role, a webhook,
// another policy.
func refusedByFence(err error) bool {
	return apierrors.IsInvalid(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy") && strings.Contains(err.Error(), fenceNodesName)
}
