package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// A Deployment's new pod never turns Ready, for what it needs to start is gone.
// It chose to be rolled back: it comes back to its old pods, and of the clients
// that never stop asking none sees a failure.
func TestRolledBack(t *testing.T) {
	s := newStory(t)
	web := cluster.Deployment(s.namespace, "web", 3)
	slowToEnd(&web.Spec.Template.Spec)
	settings := s.rolledBackWithout(web)
	s.create(settings, web)
	asked := s.askAll("web", 3)
	old, template := s.untilReady("web", 3), s.template("web")
	s.must(s.Delete(s.ctx, settings))

	r := s.ended(s.person(web, "apps/v1", "Deployment", func(spec *v1alpha1.RestartSpec) {
		spec.Deadline = &metav1.Duration{Duration: 30 * time.Second}
	}), v1alpha1.PhaseStalled)
	for _, words := range []string{"waits in CreateContainerConfigError", "It was rolled back and is whole again: 3 pods available, 3 of them from before the restart."} {
		if !strings.Contains(r.Status.Message, words) {
			t.Errorf("it ended with %q, want %q", r.Status.Message, words)
		}
	}
	s.untilPods("web", 3)
	s.replaced(old, s.untilReady("web", 3))
	asked.clean(manyRequests, 3)
	if now := s.template("web"); now != template {
		t.Errorf("the template was\n%s and is\n%s", template, now)
	}
	s.must(cluster.Until(s.ctx, "one ReplicaSet serves", func(ctx context.Context) (bool, error) {
		sets, err := s.ReplicaSets(ctx, s.namespace, "web")
		serving := 0
		for i := range sets {
			if sets[i].Status.Replicas > 0 {
				serving++
			}
		}
		return len(sets) == 2 && serving == 1, err
	}))
	s.toldOn("Deployment", "web", "RestartStalled")
}

// rolledBackWithout has a Deployment need a ConfigMap, and rolled back where its
// new pods do not find it.
func (s *story) rolledBackWithout(web *appsv1.Deployment) *corev1.ConfigMap {
	settings := &corev1.ConfigMap{ObjectMeta: cluster.Meta(s.namespace, "settings"), Data: map[string]string{"colour": "blue"}}
	web.Annotations = map[string]string{v1alpha1.AnnotationOnStall: string(v1alpha1.OnStallRollback)}
	web.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "COLOUR", ValueFrom: &corev1.EnvVarSource{
		ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: settings.Name}, Key: "colour"},
	}}}
	return settings
}

// template is a Deployment's pod template as kubectl prints it.
func (s *story) template(name string) string {
	s.t.Helper()
	out, err := s.Kubectl(s.ctx, "-n", s.namespace, "get", "deployment", name, "-o", "jsonpath={.spec.template}")
	s.must(err)
	return out
}
