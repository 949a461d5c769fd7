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
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// refusal is a workload and what is said of it when a person asks for its
// restart.
type refusal struct {
	name, sentence string
	make           func(ns string) client.Object
	// first is what has to be there before it, then what is done to it.
	first func(s *story)
	then  func(s *story, target client.Object)
	// other is what is asked for in its place.
	other func(s *story) (apiVersion, kind string, target client.Object)
	phase v1alpha1.Phase // default: Refused
}

// What cannot be restarted without downtime, or not at all, is refused in one
// sentence, and nothing of it is touched.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, list := range [][]refusal{deploymentRefusals(), setRefusals(), podRefusals(), jobRefusals()} {
		for _, c := range list {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.play(newStory(t))
			})
		}
	}
}

// Where it would not be clean for sure, and is no reason to refuse, the one who
// asked is warned. Mode observe says so and touches nothing.
func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, c := range []refusal{
		{name: "probe", sentence: "No container has a readiness probe", make: deployment(2, func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].ReadinessProbe = nil
		}), then: rolledOut},
		{name: "affinity", sentence: "Its pods exclude each other from one kubernetes.io/hostname", make: deployment(1, func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: d.Spec.Selector}},
			}}
		}), then: rolledOut},
		{name: "lost", sentence: "What is in the volume scratch is lost", make: pod(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		})},
		{name: "budget", sentence: "PodDisruptionBudget web allows no pod to go at this moment", make: statefulSet(2, func(db *appsv1.StatefulSet) {
			db.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
		}), then: func(s *story, _ client.Object) { s.untilReady("web", 2); s.budget("web", 2) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.phase = v1alpha1.PhaseObserved
			s := newStory(t)
			s.annotateNamespace("observe")
			c.play(s)
		})
	}
}

func (c refusal) play(s *story) {
	s.t.Helper()
	if c.first != nil {
		c.first(s)
	}
	target := c.make(s.namespace)
	s.create(target)
	if c.then != nil {
		c.then(s, target)
	}
	gvk, err := s.GroupVersionKindFor(target)
	s.must(err)
	apiVersion, kind := gvk.ToAPIVersionAndKind()
	if c.other != nil {
		apiVersion, kind, target = c.other(s)
	}
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(target), target))
	generation := target.GetGeneration()
	seen := s.person(target, apiVersion, kind, nil)
	var r v1alpha1.Restart
	if c.phase == "" {
		r = s.refused(seen)
	} else {
		r = s.ended(seen, c.phase)
	}
	if !strings.Contains(r.Status.Message, c.sentence) {
		s.t.Errorf("it says %q, want a sentence about %q", r.Status.Message, c.sentence)
	}
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(target), target))
	if target.GetGeneration() != generation || target.GetDeletionTimestamp() != nil {
		s.t.Errorf("it was touched: generation %d after %d, deleted %v", target.GetGeneration(), generation, target.GetDeletionTimestamp())
	}
}

func deployment(replicas int32, change func(*appsv1.Deployment)) func(ns string) client.Object {
	return func(ns string) client.Object {
		d := cluster.Deployment(ns, "web", replicas)
		change(d)
		return d
	}
}

func statefulSet(replicas int32, change func(*appsv1.StatefulSet)) func(ns string) client.Object {
	return func(ns string) client.Object {
		db := cluster.StatefulSet(ns, "web", replicas)
		change(db)
		return db
	}
}

func pod(change func(*corev1.Pod)) func(ns string) client.Object {
	return func(ns string) client.Object {
		p := cluster.Pod(ns, "web")
		change(p)
		return p
	}
}

func job(change func(*batchv1.Job)) func(ns string) client.Object {
	return func(ns string) client.Object {
		j := cluster.Job(ns, "web")
		change(j)
		return j
	}
}

// ready waits for so many pods.
func ready(n int) func(*story, client.Object) {
	return func(s *story, _ client.Object) { s.untilReady("web", n) }
}

// rolledOut waits until a Deployment's controller tells of all its pods, Ready
// or not: before that a rollout is in progress, which is told in place of all else.
func rolledOut(s *story, o client.Object) {
	d := o.(*appsv1.Deployment)
	s.must(cluster.Until(s.ctx, "the Deployment's controller has made its pods", func(ctx context.Context) (bool, error) {
		err := s.Get(ctx, client.ObjectKeyFromObject(d), d)
		return d.Status.ObservedGeneration == d.Generation && d.Status.UpdatedReplicas == *d.Spec.Replicas, err
	}))
}

func deploymentRefusals() []refusal {
	return []refusal{
		{name: "recreate", sentence: "strategy is Recreate: all pods go before a new one starts", make: deployment(1, func(d *appsv1.Deployment) {
			d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
		}), then: ready(1)},
		{name: "paused", sentence: "The Deployment is paused.", make: deployment(1, func(d *appsv1.Deployment) { d.Spec.Paused = true })},
		{name: "scaled to 0", sentence: "The Deployment is scaled to 0", make: deployment(0, func(*appsv1.Deployment) {})},
		{name: "unavailable", sentence: "no old pod has to stay until a new one is Ready", make: deployment(2, func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: new(intstr.FromString("100%"))}
		}), then: ready(2)},
		{name: "rollout", sentence: "A rollout is in progress", make: deployment(2, func(*appsv1.Deployment) {}), then: func(s *story, d client.Object) {
			s.untilReady("web", 2)
			s.otherImage(d.(*appsv1.Deployment))
			s.untilPods("web", 3)
		}},
		{name: "budget", sentence: "PodDisruptionBudget web allows 0", make: deployment(2, func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: new(intstr.FromInt32(0)), MaxUnavailable: new(intstr.FromInt32(1))}
		}), then: func(s *story, _ client.Object) { s.untilReady("web", 2); s.budget("web", 2) }},
		{name: "quota", sentence: "ResourceQuota web has no room for one pod more", first: func(s *story) { s.quota(2) },
			make: deployment(2, func(*appsv1.Deployment) {}), then: ready(2)},
		{name: "deployment port", sentence: "take port 18998 of their node", make: deployment(1, func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Ports[0].HostPort = 18998
		}), then: ready(1)},
		{name: "deployment claim", sentence: "share volume claim web, which one node at a time can have", first: (*story).claim,
			make: deployment(1, func(d *appsv1.Deployment) { d.Spec.Template.Spec.Volumes = claimed() }), then: rolledOut},
	}
}

func setRefusals() []refusal {
	return []refusal{
		{name: "one ordinal", sentence: "The StatefulSet has one replica", make: statefulSet(1, func(*appsv1.StatefulSet) {}), then: ready(1)},
		{name: "no ordinal", sentence: "The StatefulSet is scaled to 0", make: statefulSet(0, func(*appsv1.StatefulSet) {})},
		{name: "changed template", sentence: "OnDelete and its template was changed", make: statefulSet(1, func(db *appsv1.StatefulSet) {
			db.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
		}), then: func(s *story, o client.Object) {
			s.untilReady("web", 1)
			db := o.(*appsv1.StatefulSet)
			s.must(s.Get(s.ctx, client.ObjectKeyFromObject(db), db))
			before := db.DeepCopy()
			db.Spec.Template.Annotations = map[string]string{"changed": "yes"}
			s.must(s.Patch(s.ctx, db, client.MergeFrom(before)))
			s.must(cluster.Until(s.ctx, "its controller has seen it", func(ctx context.Context) (bool, error) {
				err := s.Get(ctx, client.ObjectKeyFromObject(db), db)
				return db.Status.ObservedGeneration == db.Generation && db.Status.UpdateRevision != db.Status.CurrentRevision, err
			}))
		}},
		{name: "no node", sentence: "The DaemonSet runs on no node", make: func(ns string) client.Object {
			set := cluster.DaemonSet(ns, "web")
			set.Spec.Template.Spec.NodeSelector = map[string]string{"no": "node"}
			return set
		}},
		{name: "one pod of the Service", sentence: "Its one pod leaves its Services", first: func(s *story) { s.create(cluster.Service(s.namespace, "web")) },
			make: func(ns string) client.Object {
				set := cluster.ReplicaSet(ns, "web", 1)
				set.Spec.Template = cluster.PodTemplate("web")
				set.Spec.Selector = &metav1.LabelSelector{MatchLabels: set.Spec.Template.Labels}
				return set
			}, then: ready(1)},
		{name: "a Deployments ReplicaSet", sentence: "This ReplicaSet belongs to Deployment web", make: deployment(1, func(*appsv1.Deployment) {}), then: ready(1),
			other: func(s *story) (string, string, client.Object) {
				sets, err := s.ReplicaSets(s.ctx, s.namespace, "web")
				s.must(err)
				return "apps/v1", "ReplicaSet", &sets[0]
			}},
		{name: "a Deployments pod", sentence: "This Pod belongs to ReplicaSet web-", make: deployment(1, func(*appsv1.Deployment) {}), then: ready(1),
			other: func(s *story) (string, string, client.Object) { return "v1", "Pod", &s.podsOf("web")[0] }},
	}
}

func podRefusals() []refusal {
	secret := corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "key", Optional: new(true)}}
	return []refusal{
		{name: "hostport", sentence: "take port 18999 of their node", make: pod(func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].HostPort = 18999 }), then: ready(1)},
		{name: "hostname", sentence: "The pod has a name in DNS of its own (primary)", make: pod(func(p *corev1.Pod) { p.Spec.Hostname = "primary" }), then: ready(1)},
		{name: "claim", sentence: "share volume claim web, which one node at a time can have", first: (*story).claim, make: pod(func(p *corev1.Pod) { p.Spec.Volumes = claimed() })},
		{name: "never", sentence: "restartPolicy is Never", make: pod(func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })},
		{name: "secret", sentence: "The pod's volume key is a Secret", make: pod(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "key", VolumeSource: secret}}
		})},
		{name: "secret in the environment", sentence: "The pod's container app reads a Secret", make: pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "key"}, Optional: new(true)}}}
		})},
		{name: "path of the node", sentence: "is the path /tmp of its node", make: pod(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}}}
		})},
		{name: "network of the node", sentence: "The pod shares a namespace of its node", make: pod(func(p *corev1.Pod) {
			p.Spec.HostNetwork, p.Spec.Containers[0].Ports = true, nil
			p.Spec.Containers[0].Args = []string{"serve", "--listen", ":18997"}
			p.Spec.Containers[0].ReadinessProbe = nil
		})},
		{name: "privileged", sentence: "The pod's container app has privileges", make: pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: new(true)}
		})},
		{name: "account", sentence: "runs as service account builder", first: func(s *story) {
			s.create(&corev1.ServiceAccount{ObjectMeta: cluster.Meta(s.namespace, "builder")})
		}, make: pod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "builder" })},
	}
}

func jobRefusals() []refusal {
	allowed := func(j *batchv1.Job) { j.Annotations = map[string]string{v1alpha1.AnnotationRestart: "act"} }
	return []refusal{
		{name: "job", sentence: "A Job is left alone", make: job(func(*batchv1.Job) {}), then: ready(1)},
		{name: "job without policy", sentence: "podFailurePolicy does not ignore the condition DisruptionTarget", make: job(allowed), then: ready(1)},
		{name: "job suspended", sentence: "The Job has nothing left to run", make: job(func(j *batchv1.Job) {
			allowed(j)
			j.Spec.Suspend, j.Spec.PodFailurePolicy = new(true), ignoreDisruption()
		})},
		{name: "cronjob", sentence: "A CronJob is left alone", make: func(ns string) client.Object { return cluster.CronJob(ns, "web") }},
	}
}

// claim makes a claim that one node at a time can have.
func (s *story) claim() {
	s.t.Helper()
	s.create(&corev1.PersistentVolumeClaim{ObjectMeta: cluster.Meta(s.namespace, "web"), Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
	}})
}

func claimed() []corev1.Volume {
	return []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "web"}}}}
}

// budget makes a PodDisruptionBudget of an app's pods.
func (s *story) budget(name string, least int32) {
	s.t.Helper()
	b := &policyv1.PodDisruptionBudget{ObjectMeta: cluster.Meta(s.namespace, name), Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: new(intstr.FromInt32(least)), Selector: &metav1.LabelSelector{MatchLabels: cluster.Meta("", name).Labels},
	}}
	s.create(b)
	s.must(cluster.Until(s.ctx, "the budget counts its pods", func(ctx context.Context) (bool, error) {
		err := s.Get(ctx, client.ObjectKeyFromObject(b), b)
		return b.Status.ObservedGeneration == b.Generation && b.Status.CurrentHealthy >= least, err
	}))
}

// quota bounds the pods of the story's namespace.
func (s *story) quota(pods int64) {
	s.t.Helper()
	q := &corev1.ResourceQuota{ObjectMeta: cluster.Meta(s.namespace, "web"), Spec: corev1.ResourceQuotaSpec{
		Hard: corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(pods, resource.DecimalSI)},
	}}
	s.create(q)
	s.must(cluster.Until(s.ctx, "the quota is counted", func(ctx context.Context) (bool, error) {
		err := s.Get(ctx, client.ObjectKeyFromObject(q), q)
		return len(q.Status.Hard) > 0, err
	}))
}

// otherImage begins a rollout that cannot end.
func (s *story) otherImage(d *appsv1.Deployment) {
	s.t.Helper()
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(d), d))
	before := d.DeepCopy()
	d.Spec.Template.Spec.Containers[0].Image = "nodeagent.dev/not-there:dev"
	s.must(s.Patch(s.ctx, d, client.MergeFrom(before)))
}

// Recreate goes on where a person allowed the gap.
func TestDowntimeAllowed(t *testing.T) {
	t.Parallel()
	s := newStory(t)
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
	t.Parallel()
	t.Run("told", func(t *testing.T) {
		t.Parallel()
		s := newStory(t)
		s.create(cluster.Job(s.namespace, "report"))
		old := s.untilReady("report", 1)
		s.refused(s.leak(&old[0]))
		s.replaced(old, s.podsOf("report"))
	})
	t.Run("of a CronJob", func(t *testing.T) {
		t.Parallel()
		s := newStory(t)
		s.create(cluster.CronJob(s.namespace, "report"))
		old := s.untilReady("report", 1) // it is due at the next full minute
		r := s.refused(s.leak(&old[0]))
		job := metav1.GetControllerOf(&old[0])
		if r.Spec.Target.Kind != "Job" || r.Spec.Target.Name != job.Name || !strings.Contains(r.Status.Message, v1alpha1.AnnotationRestart) {
			t.Errorf("%+v was refused with %q", r.Spec.Target, r.Status.Message)
		}
		s.replaced(old, s.podsOf("report"))
	})
	t.Run("allowed", func(t *testing.T) {
		t.Parallel()
		s := newStory(t)
		job := cluster.Job(s.namespace, "report")
		job.Annotations = map[string]string{v1alpha1.AnnotationRestart: "act"}
		job.Spec.PodFailurePolicy = ignoreDisruption()
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

func ignoreDisruption() *batchv1.PodFailurePolicy {
	return &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
		Action:          batchv1.PodFailurePolicyActionIgnore,
		OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
	}}}
}

// Static pods belong to their node's kubelet: told, not touched.
func TestStaticPod(t *testing.T) {
	t.Parallel()
	s := newStory(t)
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
	t.Parallel()
	s := newStory(t)
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
