package restart

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// fenceAgain is how long it takes until a fence that was not there is looked
	// for again.
	fenceAgain = 5 * time.Minute
	// taintProbe is a taint that no agent may put on its node. It is soft, and
	// asked for as a dry run alone.
	taintProbe = "nodeagent.dev/fence-probe"
)

// fenced proves that the API server refuses this agent all but its own taints:
// it tries another, as a dry run. Where that is let through, otherwise is told,
// once.
func (t *tainter) fenced(ctx context.Context, otherwise string) (bool, error) {
	if !t.unfenced.IsZero() && t.now().Before(t.unfenced.Add(fenceAgain)) {
		return false, nil
	}
	node, err := t.get(ctx)
	if err != nil {
		return false, err
	}
	probe := node.DeepCopy()
	probe.Spec.Taints = append(probe.Spec.Taints, corev1.Taint{Key: taintProbe, Effect: corev1.TaintEffectPreferNoSchedule})
	err = t.client.Patch(ctx, probe, client.MergeFrom(node), client.DryRunAll)
	switch {
	case err == nil:
		if t.unfenced.IsZero() {
			t.tell(ctx, node, corev1.EventTypeWarning, EventNotFenced, otherwise)
		}
		t.unfenced = t.now()
		t.metrics.errors.WithLabelValues(t.step).Inc()
		return false, nil
	case refusedByFence(err):
		t.unfenced = time.Time{}
		return true, nil
	}
	return false, fmt.Errorf("cannot find out whether the fence %s of node %s is there: %w", fenceNodesName, t.node, err)
}

// unfencedWhy says why there is no taint, and what to do.
const unfencedWhy = "for the API server would let its agent change all of the node. The ValidatingAdmissionPolicy " + fenceNodesName +
	" or its binding is not there, or does not deny: kubectl apply -f manifests/base/fences.yaml"

// refusedByFence tells the fence's refusal from any other: of a role, a webhook,
// another policy.
func refusedByFence(err error) bool {
	return apierrors.IsInvalid(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy") && strings.Contains(err.Error(), fenceNodesName)
}
