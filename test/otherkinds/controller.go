package otherkinds

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const turn = 200 * time.Millisecond

// counts are of pods.
type counts struct{ all, updated, available int64 }

func (n counts) done() bool { return n == counts{replicas, replicas, replicas} }

// tend does one turn of a controller's work and counts the pods after it. What
// fails is done at the next turn.
type tend func(ctx context.Context, c client.Client, o *unstructured.Unstructured, template corev1.PodTemplateSpec) counts

// play does the work of an object's controller until the context ends. A status
// that the kind's schema does not take is an error.
func (k Kind) play(ctx context.Context, c client.Client, o *unstructured.Unstructured) error {
	c = client.WithFieldValidation(c, metav1.FieldValidationStrict)
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if c.Get(ctx, client.ObjectKeyFromObject(o), o) != nil {
			continue
		}
		var template corev1.PodTemplateSpec
		content, _, _ := unstructured.NestedMap(o.Object, "spec", "template")
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, &template); err != nil {
			return fmt.Errorf("cannot read the pod template of %s %s: %w", k.Kind, o.GetName(), err)
		}
		o.Object["status"] = k.say(o.GetGeneration(), k.tend(ctx, c, o, template))
		if err := c.Status().Update(ctx, o); apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
			return fmt.Errorf("cannot write the status of %s %s: %w", k.Kind, o.GetName(), err)
		}
	}
}

func rolloutStatus(generation int64, n counts) map[string]any {
	phase := "Progressing"
	if n.done() {
		phase = "Healthy"
	}
	return map[string]any{
		"observedGeneration": strconv.FormatInt(generation, 10), "phase": phase,
		"replicas": n.all, "updatedReplicas": n.updated, "readyReplicas": n.available, "availableReplicas": n.available,
	}
}

func cloneSetStatus(generation int64, n counts) map[string]any {
	return map[string]any{
		"observedGeneration": generation, "replicas": n.all, "updatedReplicas": n.updated,
		"updatedReadyReplicas": min(n.updated, n.available), "readyReplicas": n.available, "availableReplicas": n.available,
	}
}

func statefulSetStatus(generation int64, n counts) map[string]any {
	return map[string]any{
		"observedGeneration": generation, "replicas": n.all, "currentReplicas": n.all - n.updated, "updatedReplicas": n.updated,
		"readyReplicas": n.available, "availableReplicas": n.available,
	}
}

func deploymentConfigStatus(generation int64, n counts) map[string]any {
	return map[string]any{
		"observedGeneration": generation, "replicas": n.all, "updatedReplicas": n.updated,
		"readyReplicas": n.available, "availableReplicas": n.available,
	}
}
