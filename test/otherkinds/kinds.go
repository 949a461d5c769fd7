// Package otherkinds makes workloads of other projects and plays their
// controllers, which run in no test: what one of them does to ReplicaSets or
// pods after a pod template was written, and says of it in the status, the
// player does by the API alone. It writes nothing that the kind's own schema
// does not know. The CustomResourceDefinitions are the projects' own, which
// test/lab takes out of their modules; OpenShift has none.
package otherkinds

import (
	"context"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Kind is one of them.
type Kind struct {
	APIVersion, Kind string
	Resource         string // as kubectl takes it
	// Part of the lab has File, its definition, and Variable says to tests where
	// that part is. All are empty where there is no definition.
	Part, File, Variable string
	Surges               bool // new pods come before the old ones go

	more func(spec map[string]any)
	tend tend
	say  func(generation int64, n counts) map[string]any
}

// All lists them.
func All() []Kind {
	return []Kind{
		{
			"argoproj.io/v1alpha1", "Rollout", "rollouts.argoproj.io", "argo-rollouts", "rollout-crd.yaml", "NODEAGENT_TEST_ARGO_ROLLOUTS", true,
			func(spec map[string]any) { spec["strategy"] = map[string]any{"canary": surge()} }, tendReplicaSets, rolloutStatus,
		},
		{
			"apps.kruise.io/v1alpha1", "CloneSet", "clonesets.apps.kruise.io", "kruise", "apps.kruise.io_clonesets.yaml", "NODEAGENT_TEST_KRUISE", true,
			func(spec map[string]any) { spec["updateStrategy"] = surge() }, tendPods, cloneSetStatus,
		},
		{
			"apps.kruise.io/v1beta1", "StatefulSet", "statefulsets.apps.kruise.io", "kruise", "apps.kruise.io_statefulsets.yaml", "NODEAGENT_TEST_KRUISE", false,
			func(spec map[string]any) { spec["podManagementPolicy"] = "OrderedReady" }, tendOrdinals, statefulSetStatus,
		},
		{
			"apps.openshift.io/v1", "DeploymentConfig", "deploymentconfigs.apps.openshift.io", "", "", "", true,
			func(spec map[string]any) {
				selector, _ := spec["selector"].(map[string]any)
				spec["selector"] = selector["matchLabels"] // a plain map
				spec["triggers"] = []any{map[string]any{"type": "ConfigChange"}}
			}, tendControllers, deploymentConfigStatus,
		},
	}
}

func surge() map[string]any { return map[string]any{"maxSurge": "100%", "maxUnavailable": int64(0)} }

// replicas is how many each of them has.
const replicas = 2

// Start makes one whose pods have the label app, which is its name, and does the
// work of its controller until the test ends.
func (k Kind) Start(t testing.TB, c client.Client, namespace, name string, template corev1.PodTemplateSpec) *unstructured.Unstructured {
	t.Helper()
	o, err := k.object(namespace, name, template)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), o, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	own := o.DeepCopy()
	done.Go(func() {
		if err := k.play(ctx, c, own); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return o
}

func (k Kind) object(namespace, name string, template corev1.PodTemplateSpec) (*unstructured.Unstructured, error) {
	template.Labels = map[string]string{"app": name}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&template)
	if err != nil {
		return nil, fmt.Errorf("cannot take up the pod template of %s: %w", name, err)
	}
	spec := map[string]any{
		"replicas": int64(replicas), "selector": map[string]any{"matchLabels": map[string]any{"app": name}}, "template": content,
	}
	k.more(spec)
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": k.APIVersion, "kind": k.Kind, "metadata": map[string]any{"namespace": namespace, "name": name}, "spec": spec,
	}}, nil
}
