package restart

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// patchPod takes labels off a pod or gives them back.
func (c *Controller) patchPod(ctx context.Context, w World, s Step) error {
	p := w.pod(s.Pod.UID)
	if p == nil {
		return fmt.Errorf("cannot find pod %s any more", s.Pod.Name)
	}
	patch, err := patchFor(w, s.Action, p)
	if err != nil {
		return err
	}
	if err := c.client.Patch(ctx, p.DeepCopy(), client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("cannot patch the labels of pod %s: %w", p.Name, err)
	}
	return nil
}

func patchFor(w World, a Action, p *corev1.Pod) ([]byte, error) {
	switch a {
	case Release:
		key, _ := releaseKey(w, p)
		return takeLabels(p, string(w.Restart.UID), []string{key})
	case Withdraw:
		return takeLabels(p, string(w.Restart.UID), slices.Sorted(maps.Keys(serviceLabels(w.Services, p.Labels))))
	}
	return giveLabels(p)
}

// copyPod makes the copy. Its name is made of the Restart, so where it is
// there already nothing is made.
func (c *Controller) copyPod(ctx context.Context, w World, s Step) error {
	p := w.pod(s.Pod.UID)
	if p == nil {
		return fmt.Errorf("cannot find pod %s any more", s.Pod.Name)
	}
	next := copyOf(p, w.Restart)
	if err := c.client.Create(ctx, next); err != nil {
		return fmt.Errorf("cannot make pod %s, a copy of %s: %w", next.Name, p.Name, err)
	}
	return nil
}

// bequeath makes the copy an owner of the Restart too, which keeps it when the
// old pod goes. It is refused when anybody wrote the Restart since.
func (c *Controller) bequeath(ctx context.Context, w World, s Step) error {
	after := w.Restart.DeepCopy()
	after.OwnerReferences = append(after.OwnerReferences, metav1.OwnerReference{
		APIVersion: "v1", Kind: KindPod, Name: s.Pod.Name, UID: types.UID(s.Pod.UID),
	})
	if err := c.client.Update(ctx, after); err != nil {
		return fmt.Errorf("cannot make pod %s an owner of Restart %s: %w", s.Pod.Name, after.Name, err)
	}
	return nil
}
