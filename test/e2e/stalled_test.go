package e2e

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// What a template needs has gone or changed since its pods started: their next
// ones are never Ready. At the deadline the restart says why and does nothing
// more; the old pods serve on.
func TestStalled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sentence string
		make     func(*appsv1.Deployment)
		spoil    func(*story)
	}{
		"image": {"ErrImageNeverPull", func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Image = goneImage
		}, func(s *story) { s.everywhere("ctr", "-n", "k8s.io", "images", "rm", goneImage) }},
		"crash": {"exit code 1", func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Args = []string{"serve", "--listen", "$(LISTEN)"}
		}, func(s *story) { s.listenOn("nowhere") }},
		"probe": {"runs but its readiness probe fails", func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Args = []string{"serve", "--listen", "$(LISTEN)"}
		}, func(s *story) { s.listenOn(":8081") }},
		"unschedulable": {"cannot be scheduled", func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.NodeSelector = map[string]string{"stalls": "here"}
		}, func(s *story) { s.labelNodes("stalls-") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStory(t)
			s.create(&corev1.ConfigMap{ObjectMeta: cluster.Meta(s.namespace, "app"), Data: map[string]string{"LISTEN": ":8080"}})
			switch name {
			case "image":
				s.everywhere("ctr", "-n", "k8s.io", "images", "tag", "--force", cluster.Image, goneImage)
			case "unschedulable":
				s.labelNodes("stalls=here")
			}
			web := cluster.Deployment(s.namespace, "web", 2)
			web.Spec.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "app"}}}}
			c.make(web)
			s.create(web)
			old := s.untilReady("web", 2)
			c.spoil(s)
			r := s.ended(s.person(web, "apps/v1", "Deployment", func(spec *v1alpha1.RestartSpec) {
				spec.Deadline = &metav1.Duration{Duration: 45 * time.Second}
			}), v1alpha1.PhaseStalled)
			for _, words := range []string{"Not complete after 45s.", c.sentence, "keep serving"} {
				if !strings.Contains(r.Status.Message, words) {
					t.Errorf("it says %q, and not %q", r.Status.Message, words)
				}
			}
			s.toldOn("Deployment", "web", "RestartStalled")
			s.replaced(old, s.podsOf("web"))
			s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), web))
			if web.Status.AvailableReplicas != 2 {
				t.Errorf("%d pods serve, want the old 2", web.Status.AvailableReplicas)
			}
		})
	}
}

// goneImage is the web app's under a name that goes.
const goneImage = "nodeagent.dev/gone:dev"

// everywhere runs a command on each node.
func (s *story) everywhere(args ...string) {
	s.t.Helper()
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	for _, node := range nodes {
		_, err := s.Lab(s.ctx, append([]string{"exec", node, "--"}, args...)...)
		s.must(err)
	}
}

func (s *story) labelNodes(label string) {
	s.t.Helper()
	_, err := s.Kubectl(s.ctx, "label", "nodes", "--all", "--overwrite", label)
	s.must(err)
}

// listenOn changes where the web app's next pods listen.
func (s *story) listenOn(address string) {
	s.t.Helper()
	config := &corev1.ConfigMap{ObjectMeta: cluster.Meta(s.namespace, "app"), Data: map[string]string{"LISTEN": address}}
	s.must(s.Update(s.ctx, config))
}
