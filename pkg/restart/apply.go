package restart

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// apply takes one step. Every write is conditional on the world still being
// the one the step was decided from.
func (c *Controller) apply(ctx context.Context, w World, s Step) error {
	switch s.Action {
	case Stamp:
		return c.stampTemplate(ctx, w, stamp(w.Restart))
	case RollBack:
		return c.stampTemplate(ctx, w, w.Restart.Status.Template.RestartedAt)
	case Evict:
		return c.evict(ctx, w, s)
	case Release, Withdraw, Restore:
		return c.patchPod(ctx, w, s)
	case Copy:
		return c.copyPod(ctx, w, s)
	case Bequeath:
		return c.bequeath(ctx, w, s)
	case Admit:
		return c.slots.take(ctx, w.Ledger, w.Restart)
	case Queue, Begin, Report, Hand, End:
		return c.writeStatus(ctx, w, s)
	}
	return nil
}

func (c *Controller) stampTemplate(ctx context.Context, w World, value string) error {
	patch, err := stampPatch(w.Target, value)
	if err != nil {
		return err
	}
	into := w.Target.object().DeepCopyObject().(client.Object)
	if err := c.client.Patch(ctx, into, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("cannot patch the pod template of %s: %w", describe(w.Restart.Spec.Target), err)
	}
	return nil
}

// evict asks for the pod's end as kubectl drain does, so that a
// PodDisruptionBudget has its say. A pod that is gone is what was wanted. The
// precondition is the uid alone: a resourceVersion is compared after the budget
// was charged (EvictionREST.Create), and a kubelet may write the pod's status at
// any moment.
func (c *Controller) evict(ctx context.Context, w World, s Step) error {
	uid := types.UID(s.Pod.UID)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.Restart.Namespace, Name: s.Pod.Name}}
	eviction := &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}},
	}
	err := c.client.SubResource("eviction").Create(ctx, pod, eviction)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("cannot evict pod %s: %w", s.Pod.Name, err)
	}
	return nil
}

// writeStatus is refused by the API server when anybody wrote the Restart
// since it was read.
func (c *Controller) writeStatus(ctx context.Context, w World, s Step) error {
	status, err := nextStatus(w, s)
	if err != nil {
		return err
	}
	after := w.Restart.DeepCopy()
	after.Status = status
	patch := client.MergeFromWithOptions(w.Restart, client.MergeFromWithOptimisticLock{})
	if err := c.client.Status().Patch(ctx, after, patch); err != nil {
		return fmt.Errorf("cannot write the status of Restart %s/%s: %w", after.Namespace, after.Name, err)
	}
	after.Status = status
	if s.Action == End && (w.Ledger == nil || w.Ledger.holds(after)) {
		if err := c.slots.keep(ctx, after, true); err != nil { // it is found to be over by those who wait
			c.log.Warn("slot not given back", "restart", after.Name, "error", err)
		}
	}
	c.tell(ctx, w, s, after)
	return nil
}
