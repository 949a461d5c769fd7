package e2e

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

const hashLabel = "rollouts-pod-template-hash"

// An Argo Rollout leaks, and its template is stamped as a Deployment's is. The
// CRD is Argo's own; what its controller does with ReplicaSets the story plays.
func TestArgoRollout(t *testing.T) {
	s := newStory(t)
	crds := s.Path("pkg/restart/testdata/other-kinds.yaml")
	_, err := s.Kubectl(s.ctx, "apply", "-f", crds)
	s.must(err)
	t.Cleanup(func() {
		if _, err := s.Kubectl(context.WithoutCancel(s.ctx), "delete", "--wait=false", "-f", crds); err != nil {
			t.Errorf("cannot remove the CRDs: %v", err)
		}
	})
	_, err = s.Kubectl(s.ctx, "wait", "--for=condition=Established", "crd/rollouts.argoproj.io", "--timeout=60s")
	s.must(err)
	s.overlay("other-kinds")
	o := s.rollout("web")
	old := s.untilReady("web", 2)

	s.leakIn(&old[0])
	r := s.endedTimes("Rollout", "web", 1)
	if r.Status.Phase != v1alpha1.PhaseSucceeded || r.Status.Method != v1alpha1.MethodTemplate {
		t.Errorf("it ended as %s, by %s", r.Status.Phase, r.Status.Method)
	}
	s.replaced(old, s.untilReady("web", 2), names(old)...)
	s.toldOn("Rollout", "web", "RestartSucceeded")
	generation := o.GetGeneration()
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(o), o))
	if o.GetGeneration() != generation+1 {
		t.Errorf("generation %d after %d, want one change", o.GetGeneration(), generation)
	}
}

// rollout makes one of two replicas, and its controller.
func (s *story) rollout(name string) *unstructured.Unstructured {
	s.t.Helper()
	template := cluster.PodTemplate(name)
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&template)
	s.must(err)
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": map[string]any{"namespace": s.namespace, "name": name},
		"spec": map[string]any{"replicas": int64(2), "selector": map[string]any{"matchLabels": map[string]any{"app": name}}, "template": content},
	}}
	s.create(o)
	ctx, cancel := context.WithCancel(s.ctx)
	var done sync.WaitGroup
	own := o.DeepCopy()
	done.Go(func() {
		for ctx.Err() == nil {
			s.tend(ctx, own)
			select {
			case <-ctx.Done():
			case <-time.After(300 * time.Millisecond):
			}
		}
	})
	s.t.Cleanup(func() { cancel(); done.Wait() })
	return o
}

// tend is one turn of a Rollout's controller: a ReplicaSet for each template,
// the older ones scaled down once the newest has all its pods. What fails is
// done at the next turn.
func (s *story) tend(ctx context.Context, o *unstructured.Unstructured) {
	if s.Get(ctx, client.ObjectKeyFromObject(o), o) != nil {
		return
	}
	var template corev1.PodTemplateSpec
	content, _, _ := unstructured.NestedMap(o.Object, "spec", "template")
	if runtime.DefaultUnstructuredConverter.FromUnstructured(content, &template) != nil {
		return
	}
	hash := fnv.New32a()
	fmt.Fprint(hash, template.Annotations)
	newest := fmt.Sprintf("%x", hash.Sum32())
	template.Labels[hashLabel] = newest
	_ = s.Create(ctx, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: o.GetName() + "-" + newest, Labels: template.Labels, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Name: o.GetName(), UID: o.GetUID(), Controller: new(true)},
		}},
		Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}) // it may be there
	sets, err := s.ReplicaSets(ctx, s.namespace, o.GetName())
	if err != nil {
		return
	}
	var replicas, updated, available int64
	for _, set := range sets {
		replicas += int64(set.Status.Replicas)
		available += int64(set.Status.AvailableReplicas)
		if set.Labels[hashLabel] == newest {
			updated = int64(set.Status.AvailableReplicas)
		}
	}
	for i := range sets {
		if set := &sets[i]; updated == 2 && set.Labels[hashLabel] != newest && *set.Spec.Replicas > 0 {
			set.Spec.Replicas = new(int32(0))
			_ = s.Update(ctx, set)
		}
	}
	phase := "Progressing"
	if replicas == 2 && updated == 2 && available == 2 {
		phase = "Healthy"
	}
	o.Object["status"] = map[string]any{
		"observedGeneration": strconv.FormatInt(o.GetGeneration(), 10), "phase": phase,
		"replicas": replicas, "updatedReplicas": updated, "readyReplicas": available, "availableReplicas": available,
	}
	_ = s.Status().Update(ctx, o)
}
