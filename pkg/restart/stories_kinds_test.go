package restart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
	"github.com/nodeagent/nodeagent/test/otherkinds"
)

// storyJobs leaves a Job alone until its owner allows it and says that an
// eviction is no failure.
func storyJobs(t *testing.T, s *stage, ns string) {
	a := s.agent(t, Options{Node: s.nodeA})
	a.run(t)
	job := func(name string, annotations map[string]string) *corev1.Pod {
		template := podTemplate()
		template.Spec.RestartPolicy = corev1.RestartPolicyNever
		template.Labels = map[string]string{"app": name}
		s.cluster.Create(t, &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Annotations: annotations},
			Spec: batchv1.JobSpec{
				BackoffLimit: new(int32(0)), Template: template,
				PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{ignoreDisruption()}},
			},
		})
		apiserver.Eventually(t, time.Minute, "the Job's pod is Ready", func() bool {
			all := s.pods(t, ns, name)
			return len(all) == 1 && ready(&all[0])
		})
		return &s.pods(t, ns, name)[0]
	}
	plain := job("plain", nil)
	wantPhase(t, s.ended(t, ns, a.request(t, plain, v1alpha1.ReasonDiskFill).Restart), v1alpha1.PhaseRefused, "left alone", v1alpha1.AnnotationRestart)
	s.wantEvents(t, ns, "Job", "plain", EventRefused)

	old := job("allowed", map[string]string{v1alpha1.AnnotationRestart: "act"})
	wantPhase(t, s.ended(t, ns, a.request(t, old, v1alpha1.ReasonDiskFill).Restart), v1alpha1.PhaseSucceeded, "1 pod replaced")
	now := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "allowed"}}
	s.settle(t, now, func() bool { return now.Status.Active == 1 })
	if now.Status.Failed != 0 {
		t.Errorf("the eviction counts as %d failures", now.Status.Failed)
	}
	if all := s.pods(t, ns, "allowed"); len(all) != 1 || all[0].UID == old.UID {
		t.Errorf("pods %v", uids(all))
	}
	s.cluster.Create(t, &v1alpha1.Restart{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "cronjob-nightly"},
		Spec:       v1alpha1.RestartSpec{Target: v1alpha1.TargetReference{APIVersion: "batch/v1", Kind: KindCronJob, Name: "nightly"}, Node: s.nodeA},
	})
	wantPhase(t, s.ended(t, ns, "cronjob-nightly"), v1alpha1.PhaseRefused, "CronJob is left alone")
}

// storyNever is about what no Restart gets through, not even a person's.
func storyNever(t *testing.T, s *stage, ns string) {
	s.daemonSet(t, ns, "web")
	self := s.podOn(t, ns, "web", s.nodeA)
	a := s.agent(t, Options{Node: s.nodeA, AgentPod: client.ObjectKeyFromObject(self)})
	a.run(t)
	if o := a.request(t, self, v1alpha1.ReasonDiskFill); o.Kind != Excluded {
		t.Errorf("the agent's own offence: %+v", o)
	}
	wantPhase(t, s.ended(t, ns, s.ask(t, ns, "apps/v1", KindDaemonSet, "web", nil)), v1alpha1.PhaseRefused, "this is the agent itself")

	mirror := s.barePod(t, ns, "mirror")
	// A node's own account may make a mirror pod alone, so it becomes one by hand.
	mirror.Annotations[corev1.MirrorPodAnnotationKey] = "x"
	w := World{Now: time.Now(), Restart: testRestart(KindPod), Target: &Target{Pod: mirror}, Pods: []corev1.Pod{*mirror}}
	w.Restart.Spec.Target.APIVersion, w.Restart.Spec.Pod = "v1", ""
	if why := objection(Preflight(w), true); why == "" {
		t.Error("a static pod is not refused")
	}

	fenced := s.agent(t, Options{Node: s.nodeB, ExcludedNamespaces: []string{ns}})
	fenced.run(t)
	s.deployment(t, ns, "elsewhere")
	name := s.ask(t, ns, "apps/v1", KindDeployment, "elsewhere", func(spec *v1alpha1.RestartSpec) { spec.Node = s.nodeB })
	wantPhase(t, s.ended(t, ns, name), v1alpha1.PhaseRefused, "namespace "+ns+" is excluded")
}

// storyOtherKinds restarts workloads of other projects, by their own schemas.
// Their controllers do not run here: what they do to pods and status does a
// player.
func storyOtherKinds(t *testing.T, s *stage, ns string) {
	s.define(t)
	s.schemasKnow(t, ns)
	c := &clock{}
	a := s.agent(t, Options{Node: s.nodeA, Now: c.now})
	a.run(t)
	for _, k := range otherkinds.All() {
		o := s.otherKind(t, ns, k, strings.ToLower(k.Kind))
		before, generation := s.pods(t, ns, o.GetName()), o.GetGeneration()
		r := s.ended(t, ns, a.request(t, s.podOn(t, ns, o.GetName(), s.nodeA), v1alpha1.ReasonDiskFill).Restart)
		wantPhase(t, r, v1alpha1.PhaseSucceeded, "2 pods replaced")
		if r.Spec.Target.Kind != k.Kind || r.Spec.Target.APIVersion != k.APIVersion {
			t.Errorf("the target is %+v", r.Spec.Target)
		}
		s.settle(t, o, func() bool { return true })
		if after := s.pods(t, ns, o.GetName()); kept(before, after) != 0 || o.GetGeneration() != generation+1 {
			t.Errorf("%s: pods before %v, after %v, generation %d after %d", k.Kind, uids(before), uids(after), o.GetGeneration(), generation)
		}
		switch k.Kind {
		case KindStatefulSet: // as one of apps, it hangs on its broken pod
		case "DeploymentConfig":
			s.oneWayOther(t, ns, s.otherKind(t, ns, k, "one-way"), c)
		default:
			s.rolledBackOther(t, ns, k.Resource, s.otherKind(t, ns, k, strings.ToLower(k.Kind)+"-back"), c)
		}
	}
	s.cluster.Kubectl("patch", "rollouts.argoproj.io", "-n", ns, "rollout", "--type=merge", `-p={"spec":{"strategy":{"canary":{"steps":[{"pause":{}}]}}}}`)
	a.request(t, s.podOn(t, ns, "rollout", s.nodeA), v1alpha1.ReasonManual)
	r := s.until(t, ns, "rollout-rollout", func(r *v1alpha1.Restart) bool { return !active(r) && len(r.Status.History) == 2 })
	wantPhase(t, r, v1alpha1.PhaseRefused, "person's promotion")
}

// define makes the other kinds known to the API server. Their definitions are
// longer than the annotation that `kubectl apply` writes may be.
func (s *stage) define(t *testing.T) {
	t.Helper()
	for _, k := range otherkinds.All() {
		file := "testdata/deploymentconfig.yaml"
		if k.Part != "" {
			folder := os.Getenv(k.Variable)
			if folder == "" {
				t.Fatalf("%s names no folder with the definitions of %s: run this test by `make test`", k.Variable, k.Part)
			}
			file = filepath.Join(folder, k.File)
		}
		s.cluster.Kubectl("create", "-f", file)
		s.cluster.Established(t, k.Resource)
	}
}

// schemasKnow holds what the preflight reads of other kinds to the projects' own
// schemas: in its table's examples they know every field, and refuse none.
func (s *stage) schemasKnow(t *testing.T, ns string) {
	t.Helper()
	strict := client.WithFieldValidation(s.cluster.Admin, metav1.FieldValidationStrict)
	for _, example := range otherExamples() {
		o := other(t, example.apiVersion, example.kind, example.text).Target.Other.object
		if o.Object["spec"].(map[string]any)["template"] == nil && example.kind != "Rollout" {
			continue // no API server would take it
		}
		o.SetNamespace(ns)
		o.SetUID("")
		o.SetResourceVersion("")
		if err := strict.Create(t.Context(), o, client.DryRunAll); err != nil {
			t.Errorf("%s: %v", example.name, err)
		}
	}
}

// otherKind makes one, and its controller.
func (s *stage) otherKind(t *testing.T, ns string, k otherkinds.Kind, name string) *unstructured.Unstructured {
	t.Helper()
	o := k.Start(t, s.cluster.Admin, ns, name, podTemplate())
	s.settle(t, o, func() bool { return rolloutOther(&Other{object: o}).complete })
	return o
}
