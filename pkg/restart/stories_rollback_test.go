package restart

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// template is a workload's pod template, byte by byte, as kubectl has it.
func (s *stage) template(ns, target string) string {
	return s.cluster.Kubectl("get", "-n", ns, target, "-o", "jsonpath={.spec.template}")
}

// serving counts a Deployment's ReplicaSets that are to have pods.
func (s *stage) serving(t *testing.T, ns, app string) int {
	t.Helper()
	var list appsv1.ReplicaSetList
	if err := s.cluster.Admin.List(t.Context(), &list, client.InNamespace(ns), client.MatchingLabels{"app": app}); err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(list.Items, func(set appsv1.ReplicaSet) bool { return *set.Spec.Replicas == 0 }))
}

// asBefore waits until the pods are those from before, and no other.
func (s *stage) asBefore(t *testing.T, ns, app string, before []corev1.Pod) {
	t.Helper()
	apiserver.Eventually(t, 60*time.Second, "the old pods of "+app+" are all there is", func() bool {
		now := s.pods(t, ns, app)
		return len(now) == len(before) && kept(before, now) == len(before)
	})
}

// annotate writes on a Deployment as a person does, and waits until its
// controller has seen that: an annotation raises the generation, and what is not
// observed counts as a rollout.
func (s *stage) annotate(t *testing.T, d *appsv1.Deployment, note string) {
	t.Helper()
	s.cluster.Kubectl("annotate", "-n", d.Namespace, "deployment/"+d.Name, note)
	s.settle(t, d, func() bool { return rolloutDeployment(d).complete })
}

// clock is an agent's, which a story puts forward.
type clock struct {
	stands time.Time // zero: it goes
	ahead  atomic.Int64
}

// stopped is a clock that stands but for being put forward.
func stopped() *clock { return &clock{stands: time.Now()} }

func (c *clock) now() time.Time {
	if c.stands.IsZero() {
		return time.Now().Add(time.Duration(c.ahead.Load()))
	}
	return c.stands.Add(time.Duration(c.ahead.Load()))
}

func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// late is a clock that stands until an app has a pod more than these, which
// the controllers have counted, and then once is behind the deadline.
func (s *stage) late(t *testing.T, ns, app string, before []corev1.Pod, deadline time.Duration) *clock {
	t.Helper()
	c := stopped()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	t.Cleanup(func() { cancel(); done.Wait() })
	done.Go(func() {
		for ctx.Err() == nil {
			var pods corev1.PodList
			err := s.cluster.Admin.List(ctx, &pods, client.InNamespace(ns), client.MatchingLabels{"app": app})
			if err == nil && len(pods.Items) > len(before) && s.counted(ctx, ns, app) {
				c.forward(deadline)
				return
			}
			sleep(ctx, 50*time.Millisecond)
		}
	})
	return c
}

// counted tells whether the controllers of a Deployment know all of its pods:
// what they have not counted yet is missing in what they write.
func (s *stage) counted(ctx context.Context, ns, app string) bool {
	var deployments appsv1.DeploymentList
	var sets appsv1.ReplicaSetList
	of := []client.ListOption{client.InNamespace(ns), client.MatchingLabels{"app": app}}
	if s.cluster.Admin.List(ctx, &sets, of...) != nil || s.cluster.Admin.List(ctx, &deployments, client.InNamespace(ns)) != nil {
		return false
	}
	total := int32(0)
	for _, r := range sets.Items {
		if r.Status.Replicas != wanted(r.Spec.Replicas) || r.Status.ObservedGeneration < r.Generation {
			return false
		}
		total += r.Status.Replicas
	}
	return !slices.ContainsFunc(deployments.Items, func(d appsv1.Deployment) bool {
		return d.Name == app && (d.Status.Replicas != total || d.Status.ObservedGeneration < d.Generation)
	})
}

// stalls waits until a restart has made a pod of an app, which is broken, and
// puts the clock behind the deadline.
func (s *stage) stalls(t *testing.T, ns, app string, c *clock) {
	t.Helper()
	apiserver.Eventually(t, 60*time.Second, "a new pod of "+app+" is there", func() bool {
		return slices.ContainsFunc(s.pods(t, ns, app), func(p corev1.Pod) bool {
			return p.DeletionTimestamp == nil && !ready(&p) && p.Annotations[restartedAt] != ""
		})
	})
	apiserver.Eventually(t, 60*time.Second, "the controllers have counted it", func() bool { return s.counted(t.Context(), ns, app) })
	c.forward(defaultDeadline)
}

// stallsBeside is stalls where a restart puts a pod beside these, not by the
// template.
func (s *stage) stallsBeside(t *testing.T, ns, app string, before []corev1.Pod, c *clock) {
	t.Helper()
	apiserver.Eventually(t, 60*time.Second, "a pod beside the old ones of "+app+" is there", func() bool {
		return len(s.pods(t, ns, app)) > len(before)
	})
	c.forward(defaultDeadline)
}

func inTenMinutes(spec *v1alpha1.RestartSpec) {
	spec.Deadline = &metav1.Duration{Duration: defaultDeadline}
}

// storyRolledBack: the new pods never turn Ready and the workload chose to be
// rolled back. It comes back to its old pods, and is not restarted in vain for
// ever.
func storyRolledBack(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	s.service(t, ns, "web")
	s.annotate(t, d, v1alpha1.AnnotationOnStall+"=rollback")
	least, before, template := s.fewest(t, ns, "web", 3), s.pods(t, ns, "web"), s.template(ns, "deployment/web")
	s.kubelet.Fail(ns)
	c := &clock{}
	a := s.agent(t, Options{Node: s.nodeA, Cooldown: time.Millisecond, Now: c.now})
	a.run(t)
	for round := range 3 {
		if o := a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill); o.Kind != Created && o.Kind != Renewed {
			t.Fatalf("round %d: outcome %+v", round, o)
		}
		s.stalls(t, ns, "web", c)
		r := s.ended(t, ns, "deployment-web")
		wantPhase(t, r, v1alpha1.PhaseStalled, "Not complete after 10m0s.", "not Ready.", "It was rolled back and is whole again: 3 pods available, 3 of them from before the restart.")
		if again := strings.Contains(r.Status.Message, "It was the third within 24 hours. No more"); again != (round == 2) {
			t.Errorf("round %d: %q", round, r.Status.Message)
		}
		if got := s.template(ns, "deployment/web"); got != template {
			t.Errorf("the template was\n%s and is\n%s", template, got)
		}
		if n := s.serving(t, ns, "web"); n != 1 {
			t.Errorf("%d ReplicaSets serve", n)
		}
		s.asBefore(t, ns, "web", before)
		s.settle(t, d, func() bool { return rolloutDeployment(d).complete })
	}
	if n := least(); n < 3 {
		t.Errorf("the Service sent to %d pods only", n)
	}
	if o := a.request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill); o.Kind != Ineffective {
		t.Errorf("after the third: %+v", o)
	}
	apiserver.Eventually(t, time.Minute, "the Deployment's Events tell of it", func() bool {
		told := s.cluster.Kubectl("get", "events", "-n", ns, "-o", "jsonpath={.items[*].message}",
			"--field-selector", "involvedObject.kind=Deployment,reason="+EventStalled)
		return strings.Contains(told, "It was rolled back and is whole again")
	})
	s.rolledBackTo(t, ns, c)
}

// rolledBackTo rolls back to what an earlier `kubectl rollout restart` wrote,
// beside another annotation.
func (s *stage) rolledBackTo(t *testing.T, ns string, c *clock) {
	t.Helper()
	s.cluster.Kubectl("annotate", "namespace", ns, v1alpha1.AnnotationOnStall+"=rollback")
	template := podTemplate()
	template.Labels = map[string]string{"app": "noted"}
	template.Annotations = map[string]string{restartedAt: "2026-01-01T12:00:00Z", "team": "shop"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "noted"},
		Spec:       appsv1.DeploymentSpec{Replicas: new(int32(3)), Template: template, Selector: &metav1.LabelSelector{MatchLabels: template.Labels}},
	}
	s.cluster.Create(t, d)
	s.settle(t, d, func() bool { return rolloutDeployment(d).complete })
	before, written := s.pods(t, ns, "noted"), s.template(ns, "deployment/noted")
	name := s.ask(t, ns, "apps/v1", KindDeployment, "noted", inTenMinutes)
	s.stalls(t, ns, "noted", c)
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseStalled, "is whole again: 3 pods available")
	if got := s.template(ns, "deployment/noted"); got != written {
		t.Errorf("the template was\n%s and is\n%s", written, got)
	}
	s.asBefore(t, ns, "noted", before)
}

// storyNotRolledBack: without a choice, or with one that nobody knows, a stall
// is left as it is.
func storyNotRolledBack(t *testing.T, s *stage, ns string) {
	c := &clock{}
	a := s.agent(t, Options{Node: s.nodeA, Now: c.now})
	a.run(t)
	for name, note := range map[string]string{"web": "", "odd": "Rollback"} {
		d := s.deployment(t, ns, name)
		if note != "" {
			s.annotate(t, d, v1alpha1.AnnotationOnStall+"="+note)
		}
		s.kubelet.Fail(ns)
		a.request(t, s.podOn(t, ns, name, s.nodeA), v1alpha1.ReasonDiskFill)
		s.stalls(t, ns, name, c)
		r := s.ended(t, ns, "deployment-"+name)
		wantPhase(t, r, v1alpha1.PhaseStalled, "Nothing more is done; old pods that are left keep serving.")
		if told := strings.Contains(r.Status.Message, "of deployment/odd is Rollback, which is neither leave nor rollback"); told != (note != "") {
			t.Errorf("%s: %q", name, r.Status.Message)
		}
		s.settle(t, d, func() bool { return true })
		if got := d.Spec.Template.Annotations[restartedAt]; got != stamp(r) || s.serving(t, ns, name) != 2 {
			t.Errorf("%s: the template has the stamp %q, want %q; %d ReplicaSets serve", name, got, stamp(r), s.serving(t, ns, name))
		}
		s.kubelet.Mend(ns)
	}
}

// storyRolledBackChanged: somebody else changes the template right before and
// right after it is written back. It stays theirs.
func storyRolledBackChanged(t *testing.T, s *stage, ns string) {
	for _, moment := range []string{"before RollBack", "after RollBack"} {
		t.Run(moment, func(t *testing.T) {
			name := strings.ToLower(strings.Fields(moment)[0])
			d := s.deployment(t, ns, name)
			s.kubelet.Fail(ns)
			c := &clock{}
			a := s.agent(t, Options{Node: s.nodeA, OnStall: v1alpha1.OnStallRollback, Now: c.now})
			changes := 0
			a.controller.boundary = func(at string) error {
				switch at {
				case "after Stamp":
					s.stalls(t, ns, name, c)
				case moment:
					changes++
					s.cluster.Kubectl("set", "image", "-n", ns, "deployment/"+name, "web=web:2")
				}
				return nil
			}
			restart := s.ask(t, ns, "apps/v1", KindDeployment, name, inTenMinutes)
			if err := s.runOnly(t, a, ns, restart); err != nil {
				t.Fatal(err)
			}
			r := s.restart(t, ns, restart)
			wantPhase(t, r, v1alpha1.PhaseStalled, "Not complete after 10m0s.", "somebody else changed the pod template of deployment/"+name)
			s.settle(t, d, func() bool { return true })
			wantStamp := map[string]string{"before RollBack": stamp(r), "after RollBack": ""}[moment]
			if image, got := d.Spec.Template.Spec.Containers[0].Image, d.Spec.Template.Annotations[restartedAt]; image != "web:2" || got != wantStamp || changes != 1 {
				t.Errorf("image %s, stamp %q, want %q; changed %d times", image, got, wantStamp, changes)
			}
			s.kubelet.Mend(ns)
		})
	}
}

// storyRolledBackSets rolls back what goes one pod after the other. A
// StatefulSet hangs on its broken pod until that is deleted by hand, as the
// message says; a DaemonSet does not.
func storyRolledBackSets(t *testing.T, s *stage, ns string) {
	c := &clock{}
	a := s.agent(t, Options{Node: s.nodeA, OnStall: v1alpha1.OnStallRollback, Now: c.now})
	a.run(t)
	daemons := s.daemonSet(t, ns, "daemons")
	set := s.statefulSet(t, ns, "web", func(*appsv1.StatefulSet) {})
	ofDaemons, ofSet := s.template(ns, "daemonset/daemons"), s.template(ns, "statefulset/web")
	before, all := s.pods(t, ns, "daemons"), s.pods(t, ns, "web")
	s.kubelet.Fail(ns)

	name := s.ask(t, ns, "apps/v1", KindDaemonSet, "daemons", inTenMinutes)
	s.stalls(t, ns, "daemons", c)
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseStalled, "is whole again: 2 pods available, 1 of them from before the restart.")
	s.settle(t, daemons, func() bool { return rolloutDaemonSet(daemons).complete })
	if now := s.pods(t, ns, "daemons"); kept(before, now) != 1 || s.template(ns, "daemonset/daemons") != ofDaemons {
		t.Errorf("pods before %v, after %v, template %s", uids(before), uids(now), s.template(ns, "daemonset/daemons"))
	}

	name = s.ask(t, ns, "apps/v1", KindStatefulSet, "web", inTenMinutes)
	s.stalls(t, ns, "web", c)
	apiserver.Eventually(t, 60*time.Second, "the StatefulSet's template is written back", func() bool { return s.template(ns, "statefulset/web") == ofSet })
	s.settle(t, set, func() bool { return set.Status.ObservedGeneration == set.Generation })
	if r := s.restart(t, ns, name); r.Status.Phase != v1alpha1.PhaseRollingBack {
		t.Errorf("phase %s (%s)", r.Status.Phase, r.Status.Message)
	}
	c.forward(defaultDeadline)
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseStalled, "It was rolled back, and is not whole again after 10m0s", "web-2", "deleted by hand (kubernetes #67250)")
	s.cluster.Kubectl("delete", "pod", "-n", ns, "web-2")
	s.settle(t, set, func() bool { return rolloutStatefulSet(set).complete })
	if now := s.pods(t, ns, "web"); kept(all, now) != 2 {
		t.Errorf("pods before %v, after %v", uids(all), uids(now))
	}
}

// rolledBackOther is a story of another project's kind.
func (s *stage) rolledBackOther(t *testing.T, ns, resource string, o *unstructured.Unstructured, c *clock) {
	t.Helper()
	target := resource + "/" + o.GetName()
	s.cluster.Kubectl("annotate", "-n", ns, target, v1alpha1.AnnotationOnStall+"=rollback")
	before, template := s.pods(t, ns, o.GetName()), s.template(ns, target)
	s.kubelet.Fail(ns)
	name := s.ask(t, ns, o.GetAPIVersion(), o.GetKind(), o.GetName(), inTenMinutes)
	s.stalls(t, ns, o.GetName(), c)
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseStalled, "is whole again: 2 pods available, 2 of them from before the restart.")
	if got := s.template(ns, target); got != template {
		t.Errorf("the template was\n%s and is\n%s", template, got)
	}
	s.asBefore(t, ns, o.GetName(), before)
	s.kubelet.Mend(ns)
}

// oneWayOther is a story of a kind that makes new pods of an earlier template: it
// is left as it stalled, in its second rollout, with what can be done.
func (s *stage) oneWayOther(t *testing.T, ns string, o *unstructured.Unstructured, c *clock) {
	t.Helper()
	s.cluster.Kubectl("annotate", "-n", ns, "dc/"+o.GetName(), v1alpha1.AnnotationOnStall+"=rollback")
	s.settle(t, o, func() bool { return true })
	before, generation := s.pods(t, ns, o.GetName()), o.GetGeneration()
	s.kubelet.Fail(ns)
	name := s.ask(t, ns, o.GetAPIVersion(), o.GetKind(), o.GetName(), inTenMinutes)
	s.stalls(t, ns, o.GetName(), c)
	r := s.ended(t, ns, name)
	wantPhase(t, r, v1alpha1.PhaseStalled, "A stall is not rolled back: ", "in another rollout", "`oc rollout cancel dc/"+o.GetName()+"`", "Nothing more is done")
	s.settle(t, o, func() bool { return true })
	if got := s.template(ns, "dc/"+o.GetName()); o.GetGeneration() != generation+1 || !strings.Contains(got, stamp(r)) {
		t.Errorf("generation %d after %d, template %s", o.GetGeneration(), generation, got)
	}
	if n := kept(before, s.pods(t, ns, o.GetName())); n != len(before) {
		t.Errorf("%d of %d old pods are left", n, len(before))
	}
	s.kubelet.Mend(ns)
}

// storyRolledBackElsewhere: the agent is killed at each step boundary, and its
// node does not come back. Whoever takes the Restart over rolls it back.
func storyRolledBackElsewhere(t *testing.T, s *stage, ns string) {
	const most = 20 // boundaries; one more than there are is none
	before, template := map[string][]corev1.Pod{}, map[string]string{}
	for i := range most {
		name := fmt.Sprintf("web%d", i)
		s.deployment(t, ns, name)
		before[name], template[name] = s.pods(t, ns, name), s.template(ns, "deployment/"+name)
	}
	s.kubelet.Fail(ns)
	asking := func(name string) asking {
		return func(t *testing.T, _ *agent) string {
			return s.ask(t, ns, "apps/v1", KindDeployment, name, func(spec *v1alpha1.RestartSpec) {
				spec.OnStall, spec.Deadline = v1alpha1.OnStallRollback, &metav1.Duration{Duration: 10 * time.Second}
			})
		}
	}
	late := func(t *testing.T, name string) *clock { return s.late(t, ns, name, before[name], 10*time.Second) }
	moments := s.moments(t, ns, late(t, "web0"), asking("web0"))
	if !slices.Contains(moments, "before RollBack") || !slices.Contains(moments, "after RollBack") || len(moments) >= most {
		t.Fatalf("%d step boundaries: %v", len(moments), moments)
	}
	for i, moment := range moments[:len(moments)-1] {
		t.Run(fmt.Sprintf("%02d %s", i, moment), func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprintf("web%d", i+1)
			wantPhase(t, s.takenOverAt(t, ns, boundary{i, moment}, late(t, name), asking(name)), v1alpha1.PhaseStalled, "Not complete after 10s")
			s.asBefore(t, ns, name, before[name])
			if got := s.template(ns, "deployment/"+name); got != template[name] {
				t.Errorf("the template was\n%s and is\n%s", template[name], got)
			}
		})
	}
}

// storyRollBackDenied: the API server does not take the template as it was for
// as long as rolling back is tried. That ends, and is told.
func storyRollBackDenied(t *testing.T, s *stage, ns string) {
	s.deployment(t, ns, "web")
	s.cluster.Kubectl("apply", "-f", s.cluster.Write(ns+".yaml", []byte(strings.ReplaceAll(keepAnnotations, "NAME", ns))))
	s.deployment(t, ns, "other")
	s.cluster.Kubectl("rollout", "restart", "-n", ns, "deployment/other")
	apiserver.Eventually(t, 60*time.Second, "annotations have to stay", func() bool {
		out, err := s.cluster.TryKubectl("patch", "deployment", "-n", ns, "other", "--dry-run=server", "--type=merge",
			`-p={"spec":{"template":{"metadata":{"annotations":null}}}}`)
		return err != nil && strings.Contains(out, "annotations stay")
	})
	s.kubelet.Fail(ns)
	c := &clock{}
	a := s.agent(t, Options{Node: s.nodeA, OnStall: v1alpha1.OnStallRollback, Now: c.now})
	a.run(t)
	name := s.ask(t, ns, "apps/v1", KindDeployment, "web", inTenMinutes)
	s.stalls(t, ns, "web", c)
	apiserver.Eventually(t, 60*time.Second, "it was tried", func() bool {
		return testutil.ToFloat64(a.controller.metrics.errors.WithLabelValues(string(RollBack))) > 0
	})
	if r := s.restart(t, ns, name); r.Status.Phase != v1alpha1.PhaseRollingBack {
		t.Errorf("phase %s (%s)", r.Status.Phase, r.Status.Message)
	}
	c.forward(defaultDeadline)
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseStalled, "not Ready.", "It could not be rolled back: ", "annotations stay")
}

const keepAnnotations = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: NAME}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [UPDATE], resources: [deployments]}]
  validations:
  - expression: "!has(oldObject.spec.template.metadata.annotations) || has(object.spec.template.metadata.annotations)"
    message: annotations stay
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: NAME}
spec:
  policyName: NAME
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAME}}}
`
