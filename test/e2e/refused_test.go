package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// What cannot be restarted without downtime is refused in one sentence, and
// nothing of it is touched.
func TestRefusals(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
	}}
	for _, c := range []struct {
		name, apiVersion, kind, sentence string
		target                           func(ns string) client.Object
	}{
		{"recreate", "apps/v1", "Deployment", "Recreate", func(ns string) client.Object {
			d := cluster.Deployment(ns, "web", 1)
			d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
			return d
		}},
		{"paused", "apps/v1", "Deployment", "paused", func(ns string) client.Object {
			d := cluster.Deployment(ns, "web", 1)
			d.Spec.Paused = true
			return d
		}},
		{"hostport", "v1", "Pod", "port", func(ns string) client.Object {
			p := cluster.Pod(ns, "web")
			p.Spec.Containers[0].Ports[0].HostPort = 18999
			return p
		}},
		{"hostname", "v1", "Pod", "name in DNS", func(ns string) client.Object {
			p := cluster.Pod(ns, "web")
			p.Spec.Hostname = "primary"
			return p
		}},
		{"claim", "v1", "Pod", "claim", func(ns string) client.Object {
			p := cluster.Pod(ns, "web")
			p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "web"}}}}
			return p
		}},
		{"cronjob", "batch/v1", "CronJob", "CronJob is left alone", func(ns string) client.Object { return cluster.CronJob(ns, "web") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t, 2*time.Minute)
			if c.name == "claim" {
				data := claim.DeepCopy()
				data.Namespace, data.Name = s.namespace, "web"
				s.create(data)
			}
			target := c.target(s.namespace)
			s.create(target)
			if c.name == "recreate" || c.name == "hostport" || c.name == "hostname" {
				s.untilReady("web", 1)
			}
			s.must(s.Get(s.ctx, client.ObjectKeyFromObject(target), target))
			generation := target.GetGeneration()
			r := s.refused(s.person(target, c.apiVersion, c.kind, nil))
			if !strings.Contains(r.Status.Message, c.sentence) {
				t.Errorf("refused with %q, want a sentence about %q", r.Status.Message, c.sentence)
			}
			s.must(s.Get(s.ctx, client.ObjectKeyFromObject(target), target))
			if target.GetGeneration() != generation {
				t.Errorf("it was touched: generation %d after %d", target.GetGeneration(), generation)
			}
		})
	}
}

// Recreate goes on where a person allowed the gap.
func TestDowntimeAllowed(t *testing.T) {
	s := newStory(t, 3*time.Minute)
	web := cluster.Deployment(s.namespace, "web", 1)
	web.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
	s.create(web)
	old := s.untilReady("web", 1)
	s.ended(s.person(web, "apps/v1", "Deployment", func(spec *v1alpha1.RestartSpec) { spec.AllowDowntime = true }), v1alpha1.PhaseSucceeded)
	s.replaced(old, s.untilReady("web", 1), names(old)...)
}

// A Job that fills the disk is told and left alone; one whose owner allowed it,
// and whose failure policy makes it free, is evicted and started again.
func TestJob(t *testing.T) {
	t.Run("told", func(t *testing.T) {
		s := newStory(t, 3*time.Minute)
		s.create(cluster.Job(s.namespace, "report"))
		old := s.untilReady("report", 1)
		s.refused(s.leak(&old[0]))
		s.replaced(old, s.podsOf("report"))
	})
	t.Run("allowed", func(t *testing.T) {
		s := newStory(t, 4*time.Minute)
		job := cluster.Job(s.namespace, "report")
		job.Annotations = map[string]string{v1alpha1.AnnotationRestart: "act"}
		job.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			Action:          batchv1.PodFailurePolicyActionIgnore,
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
		}}}
		s.create(job)
		old := s.untilReady("report", 1)
		s.succeeded(s.leak(&old[0]), old)
		s.replaced(old, s.untilReady("report", 1), names(old)...)
		s.must(s.Get(s.ctx, client.ObjectKeyFromObject(job), job))
		if job.Status.Failed != 0 {
			t.Errorf("the Job counts %d failures", job.Status.Failed)
		}
	})
}

// Static pods belong to their node's kubelet: told, not touched.
func TestStaticPod(t *testing.T) {
	s := newStory(t, 3*time.Minute)
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	pod := cluster.Pod(s.namespace, "static")
	manifest := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"static","namespace":%q,"labels":{"app":"static"}},"spec":{"containers":[{"name":"app","image":%q,"imagePullPolicy":"Never","args":["serve","--leak","20Mi","--leak-file",%q]}]}}`,
		s.namespace, pod.Spec.Containers[0].Image, cluster.LeakFile)
	file := "/etc/kubernetes/manifests/" + s.namespace + ".json"
	seen, err := s.Follow(s.ctx, s.namespace)
	s.must(err)
	_, err = s.Lab(s.ctx, "exec", nodes[0], "--", "sh", "-c", fmt.Sprintf("mkdir -p /etc/kubernetes/manifests && printf '%%s' '%s' > %s", manifest, file))
	s.must(err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := s.Lab(ctx, "exec", nodes[0], "--", "rm", "-f", file); err != nil {
			t.Errorf("cannot take the static pod away: %v", err)
		}
	})
	r := s.refused(seen)
	if !strings.Contains(r.Status.Message, "file on its node") {
		t.Errorf("refused with %q", r.Status.Message)
	}
}

// The agent itself is never restarted by an agent, nor what is in an excluded
// namespace.
func TestFenced(t *testing.T) {
	s := newStory(t, 2*time.Minute)
	for namespace, name := range map[string]string{cluster.Namespace: "nodeagent", metav1.NamespaceSystem: "web"} {
		set := cluster.DaemonSet(namespace, name)
		if namespace == metav1.NamespaceSystem {
			s.create(set)
			t.Cleanup(func() {
				if err := s.Delete(context.WithoutCancel(s.ctx), set); err != nil {
					t.Errorf("cannot remove %s: %v", name, err)
				}
			})
		}
		of := &story{Cluster: s.Cluster, t: t, ctx: s.ctx, namespace: namespace}
		r := of.ended(of.person(set, "apps/v1", "DaemonSet", nil), v1alpha1.PhaseRefused)
		t.Cleanup(func() {
			if err := s.Delete(context.WithoutCancel(s.ctx), &r); err != nil {
				t.Errorf("cannot remove Restart %s/%s: %v", namespace, restart.Name("DaemonSet", name), err)
			}
		})
	}
}
