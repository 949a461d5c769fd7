package restart

import (
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// OtherKind is a workload of somebody else's API that has a pod template and
// a controller that rolls out what is written there.
type OtherKind struct {
	Group    string
	Kind     string
	Resource string
	Versions []string
	Template []string // where the pod template stands
	// Through is the kind that stands between it and its pods, empty if none.
	Through string
	// oneWay says, after a colon, why a stall is not rolled back and what else
	// can be done, with the object's name as %[1]s; empty: the earlier template,
	// written back, brings back the earlier pods.
	oneWay string
	// preflight says what speaks against a restart, beyond what is read the
	// same way of all kinds.
	preflight func(*Other) []Finding
}

// OtherKinds lists all of them. None is known to the scheme: they are read as
// maps, field by field.
func OtherKinds() []OtherKind {
	template := []string{"spec", "template"}
	return []OtherKind{
		{"argoproj.io", "Rollout", "rollouts", []string{"v1alpha1"}, template, KindReplicaSet, "", preflightRollout},
		{"apps.kruise.io", "CloneSet", "clonesets", []string{"v1alpha1", "v1beta1"}, template, "", "", preflightCloneSet},
		{"apps.kruise.io", KindStatefulSet, "statefulsets", []string{"v1beta1", "v1alpha1"}, template, "", "", preflightKruiseStatefulSet},
		{"apps.openshift.io", "DeploymentConfig", "deploymentconfigs", []string{"v1"}, template, KindReplicationController, oneWayDeploymentConfig, preflightDeploymentConfig},
	}
}

// oneWayDeploymentConfig: each template that is written becomes a new version
// with pods of its own, the one from before too, and the old pods go. To cancel
// the version that hangs is another thing, and needs a right on its
// ReplicationController.
const oneWayDeploymentConfig = "of the template from before a DeploymentConfig makes new pods too, in another rollout. " +
	"`oc rollout cancel dc/%[1]s` ends this one and keeps the old pods, as OpenShift does by itself after the strategy's timeoutSeconds."

// Other is one object of an OtherKind.
type Other struct {
	kind   OtherKind
	object *unstructured.Unstructured
}

// newOther is an empty one to read the target into; nil where the table does
// not have its kind.
func newOther(t v1alpha1.TargetReference) *Other {
	gv, err := schema.ParseGroupVersion(t.APIVersion)
	if err != nil {
		return nil
	}
	for _, k := range OtherKinds() {
		for _, version := range k.Versions {
			if k.Group == gv.Group && version == gv.Version && k.Kind == t.Kind {
				o := &Other{kind: k, object: &unstructured.Unstructured{}}
				o.object.SetGroupVersionKind(gv.WithKind(t.Kind))
				return o
			}
		}
	}
	return nil
}

// template is empty where there is none, or none that can be read.
func (o *Other) template() corev1.PodTemplateSpec {
	var t corev1.PodTemplateSpec
	if m := o.mapAt(o.kind.Template...); m != nil {
		_ = runtime.DefaultUnstructuredConverter.FromUnstructured(m, &t)
	}
	return t
}

// selector is a LabelSelector or, in a DeploymentConfig, a plain map.
func (o *Other) selector() *metav1.LabelSelector {
	if plain, ok, err := unstructured.NestedStringMap(o.object.Object, "spec", "selector"); err == nil && ok {
		return &metav1.LabelSelector{MatchLabels: plain}
	}
	selector := &metav1.LabelSelector{}
	if m := o.mapAt("spec", "selector"); m != nil {
		_ = runtime.DefaultUnstructuredConverter.FromUnstructured(m, selector)
	}
	return selector
}

func (o *Other) mapAt(path ...string) map[string]any {
	m, _, err := unstructured.NestedMap(o.object.Object, path...)
	if err != nil {
		return nil
	}
	return m
}

func (o *Other) text(path ...string) string {
	v, _, _ := unstructured.NestedFieldNoCopy(o.object.Object, path...)
	s, _ := v.(string)
	return s
}

func (o *Other) flag(path ...string) (value, there bool) {
	value, there, err := unstructured.NestedBool(o.object.Object, path...)
	return value, there && err == nil
}

// number reads a count; there is none where the field is missing.
func (o *Other) number(path ...string) (value int64, there bool) {
	v, ok, err := unstructured.NestedFieldNoCopy(o.object.Object, path...)
	if err != nil || !ok {
		return 0, false
	}
	switch n := v.(type) {
	case int64:
		return n, true
	case float64:
		return int64(n), true
	case string: // a Rollout keeps its observed generation as text
		value, err := strconv.ParseInt(n, 10, 64)
		return value, err == nil
	}
	return 0, false
}

// positive tells whether a count or a share is there and not none: 1, "25%".
func (o *Other) positive(path ...string) bool {
	if n, ok := o.number(path...); ok {
		return n > 0
	}
	text := o.text(path...)
	return text != "" && text != "0%"
}

func (o *Other) replicas() int32 {
	if n, ok := o.number("spec", "replicas"); ok {
		return int32(n)
	}
	return 1
}

// rolloutOther reads the fields that all these kinds have taken over from
// Deployment, as far as this one has them.
func rolloutOther(o *Other) rollout {
	want := o.replicas()
	observed, _ := o.number("status", "observedGeneration")
	updated, _ := o.number("status", "updatedReplicas")
	available, there := o.number("status", "availableReplicas")
	if !there {
		available, _ = o.number("status", "readyReplicas")
	}
	total, there := o.number("status", "replicas")
	if !there {
		total = updated
	}
	complete := int32(updated) == want && int32(total) == want && int32(available) == want
	if phase := o.text("status", "phase"); phase != "" {
		complete = complete && phase == "Healthy" // a Rollout's
	}
	return newRollout(complete, observed >= o.object.GetGeneration(), int32(updated), int32(available), want)
}
