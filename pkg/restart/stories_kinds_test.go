package restart

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
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
		apiserver.Eventually(t, 30*time.Second, "the Job's pod is Ready", func() bool {
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

// storyOtherKinds restarts workloads of other projects. Their controllers do
// not run here: what they do to pods and status does a player.
func storyOtherKinds(t *testing.T, s *stage, ns string) {
	s.cluster.Kubectl("apply", "-f", "testdata/other-kinds.yaml")
	s.cluster.Kubectl("wait", "--for=condition=Established", "crd/rollouts.argoproj.io", "crd/clonesets.apps.kruise.io", "--timeout=60s")
	c := &clock{}
	a := s.agent(t, Options{Node: s.nodeA, Now: c.now})
	a.run(t)
	rollout := s.otherKind(t, ns, "argoproj.io/v1alpha1", "Rollout", "argo", s.tendReplicaSets)
	clones := s.otherKind(t, ns, "apps.kruise.io/v1alpha1", "CloneSet", "kruise", s.tendPods)
	s.cluster.Kubectl("apply", "-f", "testdata/deploymentconfig.yaml")
	s.cluster.Kubectl("wait", "--for=condition=Established", "crd/deploymentconfigs.apps.openshift.io", "--timeout=60s")
	config := s.otherKind(t, ns, "apps.openshift.io/v1", "DeploymentConfig", "openshift", s.tendControllers)
	for _, o := range []*unstructured.Unstructured{rollout, clones, config} {
		before, generation := s.pods(t, ns, o.GetName()), o.GetGeneration()
		r := s.ended(t, ns, a.request(t, s.podOn(t, ns, o.GetName(), s.nodeA), v1alpha1.ReasonDiskFill).Restart)
		wantPhase(t, r, v1alpha1.PhaseSucceeded, "2 pods replaced")
		if r.Spec.Target.Kind != o.GetKind() {
			t.Errorf("the target is %+v", r.Spec.Target)
		}
		s.settle(t, o, func() bool { return true })
		if after := s.pods(t, ns, o.GetName()); kept(before, after) != 0 || o.GetGeneration() != generation+1 {
			t.Errorf("%s: pods before %v, after %v, generation %d after %d", o.GetKind(), uids(before), uids(after), o.GetGeneration(), generation)
		}
	}
	s.rolledBackOther(t, ns, "rollouts.argoproj.io", s.otherKind(t, ns, "argoproj.io/v1alpha1", "Rollout", "argo-back", s.tendReplicaSets), c)
	s.rolledBackOther(t, ns, "clonesets.apps.kruise.io", s.otherKind(t, ns, "apps.kruise.io/v1alpha1", "CloneSet", "kruise-back", s.tendPods), c)
	s.oneWayOther(t, ns, s.otherKind(t, ns, "apps.openshift.io/v1", "DeploymentConfig", "openshift-back", s.tendControllers), c)
	s.cluster.Kubectl("patch", "rollouts.argoproj.io", "-n", ns, "argo", "--type=merge", `-p={"spec":{"strategy":{"canary":{"steps":[{"pause":{}}]}}}}`)
	a.request(t, s.podOn(t, ns, "argo", s.nodeA), v1alpha1.ReasonManual)
	r := s.until(t, ns, "rollout-argo", func(r *v1alpha1.Restart) bool { return !active(r) && len(r.Status.History) == 2 })
	wantPhase(t, r, v1alpha1.PhaseRefused, "person's promotion")
}

// tending does one turn of a controller's work and counts the pods after it.
type tending func(o *unstructured.Unstructured, template corev1.PodTemplateSpec) (replicas, updated, available int64)

// otherKind makes one of two replicas, and its controller.
func (s *stage) otherKind(t *testing.T, ns, apiVersion, kind, name string, tend tending) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"namespace": ns, "name": name},
		"spec": map[string]any{
			"replicas": int64(2), "selector": map[string]any{"matchLabels": map[string]any{"app": name}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": name}},
				"spec": map[string]any{"containers": []any{map[string]any{
					"name": "web", "image": "web:1", "readinessProbe": map[string]any{"exec": map[string]any{"command": []any{"true"}}},
				}}},
			},
		},
	}}
	if kind == "DeploymentConfig" {
		spec := o.Object["spec"].(map[string]any)
		spec["selector"], spec["triggers"] = map[string]any{"app": name}, []any{map[string]any{"type": "ConfigChange"}}
	}
	s.cluster.Create(t, o)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	own := o.DeepCopy()
	done.Go(func() { s.play(ctx, own, tend) })
	t.Cleanup(func() { cancel(); done.Wait() })
	s.settle(t, o, func() bool { return rolloutOther(&Other{object: o}).complete })
	return o
}

func (s *stage) play(ctx context.Context, o *unstructured.Unstructured, tend tending) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.cluster.Admin.Get(ctx, client.ObjectKeyFromObject(o), o) != nil {
			continue
		}
		other := newOther(v1alpha1.TargetReference{APIVersion: o.GetAPIVersion(), Kind: o.GetKind()})
		other.object = o
		replicas, updated, available := tend(o, other.template())
		status := map[string]any{
			"replicas": replicas, "updatedReplicas": updated, "readyReplicas": available, "availableReplicas": available,
		}
		switch o.GetKind() {
		case "Rollout":
			status["observedGeneration"], status["phase"] = strconv.FormatInt(o.GetGeneration(), 10), "Progressing"
			if replicas == 2 && updated == 2 && available == 2 {
				status["phase"] = "Healthy"
			}
		case "DeploymentConfig":
			status["observedGeneration"] = o.GetGeneration()
		default:
			status["observedGeneration"], status["updatedReadyReplicas"] = o.GetGeneration(), min(updated, available)
		}
		o.Object["status"] = status
		_ = s.cluster.Admin.Status().Update(ctx, o) // the next turn does it
	}
}

func controlledBy(o *unstructured.Unstructured) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Name: o.GetName(), UID: o.GetUID(), Controller: new(true)}}
}

// tendReplicaSets has one ReplicaSet for each template, as Argo Rollouts has.
func (s *stage) tendReplicaSets(o *unstructured.Unstructured, template corev1.PodTemplateSpec) (replicas, updated, available int64) {
	ctx, sum := context.Background(), fnv.New32a()
	sum.Write([]byte(template.Annotations[restartedAt]))
	hash := fmt.Sprintf("%x", sum.Sum32())
	template.Labels["rollouts-pod-template-hash"] = hash
	_ = s.cluster.Admin.Create(ctx, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName() + "-" + hash, Labels: template.Labels, OwnerReferences: controlledBy(o)},
		Spec:       appsv1.ReplicaSetSpec{Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}) // it may be there
	var list appsv1.ReplicaSetList
	_ = s.cluster.Admin.List(ctx, &list, client.InNamespace(o.GetNamespace()), client.MatchingLabels{"app": o.GetName()})
	for i := range list.Items {
		set := &list.Items[i]
		replicas += int64(set.Status.Replicas)
		available += int64(set.Status.AvailableReplicas)
		if set.Labels["rollouts-pod-template-hash"] == hash {
			updated = int64(set.Status.AvailableReplicas)
		}
	}
	for i := range list.Items {
		if set := &list.Items[i]; updated == 2 && set.Labels["rollouts-pod-template-hash"] != hash && *set.Spec.Replicas > 0 {
			set.Spec.Replicas = new(int32(0))
			_ = s.cluster.Admin.Update(ctx, set)
		}
	}
	return replicas, updated, available
}

// tendControllers has a new ReplicationController for each template that was
// written, as a DeploymentConfig has: that of an earlier one is not taken again.
func (s *stage) tendControllers(o *unstructured.Unstructured, template corev1.PodTemplateSpec) (replicas, updated, available int64) {
	ctx, version := context.Background(), fmt.Sprintf("%s-%d", o.GetName(), o.GetGeneration())
	template.Labels["deployment"] = version
	_ = s.cluster.Admin.Create(ctx, &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: version, Labels: template.Labels, OwnerReferences: controlledBy(o)},
		Spec:       corev1.ReplicationControllerSpec{Replicas: new(int32(2)), Selector: template.Labels, Template: &template},
	}) // it may be there
	var list corev1.ReplicationControllerList
	_ = s.cluster.Admin.List(ctx, &list, client.InNamespace(o.GetNamespace()), client.MatchingLabels{"app": o.GetName()})
	for i := range list.Items {
		rc := &list.Items[i]
		replicas += int64(rc.Status.Replicas)
		available += int64(rc.Status.AvailableReplicas)
		if rc.Name == version {
			updated = int64(rc.Status.AvailableReplicas)
		}
	}
	for i := range list.Items {
		if rc := &list.Items[i]; updated == 2 && rc.Name != version && *rc.Spec.Replicas > 0 {
			rc.Spec.Replicas = new(int32(0))
			_ = s.cluster.Admin.Update(ctx, rc)
		}
	}
	return replicas, updated, available
}

// tendPods makes new pods and deletes old ones, as a CloneSet with surge does.
func (s *stage) tendPods(o *unstructured.Unstructured, template corev1.PodTemplateSpec) (replicas, updated, available int64) {
	ctx, ns := context.Background(), o.GetNamespace()
	var list corev1.PodList
	_ = s.cluster.Admin.List(ctx, &list, client.InNamespace(ns), client.MatchingLabels{"app": o.GetName()})
	var old []types.NamespacedName
	for i := range list.Items {
		p := &list.Items[i]
		replicas++
		if ready(p) {
			available++
		}
		if p.Annotations[restartedAt] != template.Annotations[restartedAt] {
			old = append(old, client.ObjectKeyFromObject(p))
		} else if ready(p) {
			updated++
		}
	}
	switch {
	case replicas-int64(len(old)) < 2:
		_ = s.cluster.Admin.Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: o.GetName() + "-", Labels: template.Labels, Annotations: template.Annotations, OwnerReferences: controlledBy(o)},
			Spec:       template.Spec,
		})
	case updated == 2 && len(old) > 0:
		_ = s.cluster.Admin.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: old[0].Name}})
	}
	return replicas, updated, available
}
