package restart

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// asAgent is the way to the API of an agent of the base's DaemonSet on a node:
// its service account's token, bound to its pod.
func (s *stage) asAgent(t *testing.T, node string) *rest.Config {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "nodeagent", Name: "agent-on-" + node}, Spec: podTemplate().Spec}
	pod.Spec.ServiceAccountName, pod.Spec.NodeName = "nodeagent", node
	s.cluster.Create(t, pod)
	token := s.cluster.Kubectl("create", "token", "nodeagent", "-n", "nodeagent", "--bound-object-kind=Pod", "--bound-object-name="+pod.Name)
	config := rest.CopyConfig(s.cluster.Config)
	config.BearerToken = strings.TrimSpace(token)
	return config
}

func (s *stage) clientAs(t *testing.T, config *rest.Config) client.WithWatch {
	t.Helper()
	mapper := newMapper().(*meta.DefaultRESTMapper)
	for _, kind := range []string{"Binary", "BinaryInstance"} { // which this package itself does not write
		mapper.Add(v1alpha1.GroupVersion().WithKind(kind), meta.RESTScopeRoot)
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: s.cluster.Admin.Scheme(), Mapper: mapper, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// storyFenced: an agent's token tries more than it needs, one thing after the
// other, and the API server refuses each in the fence's words.
func storyFenced(t *testing.T, s *stage, ns string) {
	d := s.deployment(t, ns, "web")
	stamped := s.deployment(t, ns, "stamped") // what may be done to it begins a rollout
	s.cluster.Kubectl("patch", "deployment", "-n", ns, "stamped", "--type=merge", `-p={"spec":{"template":{"metadata":{"annotations":{"team":"shop"}}}}}`)
	mine, other := s.podOn(t, ns, "web", s.nodeA), s.podOn(t, ns, "web", s.nodeB)
	agent := s.clientAs(t, s.asAgent(t, s.nodeA))
	patch := func(o client.Object, text string) func() error {
		return func() error {
			return agent.Patch(t.Context(), o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(text)))
		}
	}
	patchStatus := func(o client.Object, text string) func() error {
		return func() error {
			return agent.Status().Patch(t.Context(), o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(text)))
		}
	}
	make := func(o client.Object) func() error { return func() error { return agent.Create(t.Context(), o) } }
	copied := func(change func(*corev1.Pod)) func() error {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: ns, GenerateName: "copy-", Labels: map[string]string{v1alpha1.LabelRestart: "uid"},
				Annotations: map[string]string{v1alpha1.AnnotationCopyOf: "web", v1alpha1.AnnotationCopied: "2026-03-01T12:00:00Z"},
			},
			Spec: podTemplate().Spec,
		}
		change(p)
		return make(p)
	}
	evict := func(namespace string, o *metav1.DeleteOptions) func() error {
		return func() error {
			return agent.SubResource("eviction").Create(t.Context(), other, &policyv1.Eviction{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: other.Name}, DeleteOptions: o,
			})
		}
	}
	wish := func(name string, change func(*v1alpha1.Restart)) *v1alpha1.Restart {
		r := &v1alpha1.Restart{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "deployment-" + name},
			Spec: v1alpha1.RestartSpec{
				Target: v1alpha1.TargetReference{APIVersion: "apps/v1", Kind: KindDeployment, Name: name},
				Node:   s.nodeA, Reason: v1alpha1.ReasonDiskFill,
			},
		}
		change(r)
		return r
	}
	held := wish("held", func(r *v1alpha1.Restart) { r.Spec.Node = s.nodeB })
	s.cluster.Create(t, held)
	held.Status.Phase, held.Status.Holder = v1alpha1.PhaseRunning, s.nodeB
	if err := s.cluster.Admin.Status().Update(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	slots := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "nodeagent", Name: LeaseSlots}}
	if err := s.cluster.Admin.Create(t.Context(), slots); err != nil {
		t.Log(err) // another story's agent made it
	}
	annotated := func(key, value string) string {
		return fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{%q:%q}}}}}`, key, value)
	}
	const forbidden = "is forbidden"
	tries := []struct {
		name  string
		try   func() error
		words string // empty: it may
	}{
		{"the restart's annotation", patch(stamped, annotated(restartedAt, "2026-03-01T12:00:00Z")), ""},
		{"another annotation taken out", patch(stamped, `{"spec":{"template":{"metadata":{"annotations":{"team":null}}}}}`), "changes no annotation but"},
		{"all annotations taken out", patch(stamped, `{"spec":{"template":{"metadata":{"annotations":null}}}}`), "changes no annotation but"},
		{"the restart's annotation, as it was before", patch(stamped, annotated(restartedAt, "2026-01-01T12:00:00Z")), ""},
		{"the restart's annotation taken out", patch(stamped, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":null}}}}}`), ""},
		{"the restart's annotation taken out, and the image", patch(d, `{"spec":{"template":{"metadata":{"annotations":null},"spec":{"containers":[{"name":"web","image":"evil:1"}]}}}}`), "changes nothing of a pod template"},
		{"another annotation", patch(d, annotated("sidecar.istio.io/inject", "true")), "changes no annotation but"},
		{"the image", patch(d, `{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"evil:1"}]}}}}`), "changes nothing of a pod template"},
		{"the replicas", patch(d, `{"spec":{"replicas":0}}`), "changes nothing of a workload"},
		{"a label of the template", patch(d, `{"spec":{"template":{"metadata":{"labels":{"x":"y"}}}}}`), "changes no metadata of a pod template"},
		{"the workload's labels", patch(d, `{"metadata":{"labels":{"x":"y"}}}`), "changes no metadata of a workload"},
		{"the end of a workload", func() error { return agent.Delete(t.Context(), d.DeepCopy()) }, forbidden},

		{"a label off its own node's pod, unwritten", patch(mine, `{"metadata":{"labels":{"pod-template-hash":null}}}`), "without writing it down"},
		{"a label of another pod", patch(other, `{"metadata":{"labels":{"pod-template-hash":null},"annotations":{"nodeagent.dev/labels-taken":"{\"pod-template-hash\":\"`+other.Labels["pod-template-hash"]+`\"}"}}}`), "pods of its own node alone"},
		{"a label onto its own node's pod", patch(mine, `{"metadata":{"labels":{"app":"other"}}}`), "no label but those"},
		{"another label onto its own node's pod", patch(mine, `{"metadata":{"labels":{"x":"y"}}}`), "no label but those"},
		{"an annotation of its own node's pod", patch(mine, `{"metadata":{"annotations":{"x":"y"}}}`), "changes no annotation of a pod"},
		{"its own node's pod's image", func() error {
			return agent.Patch(t.Context(), mine.DeepCopy(), client.RawPatch(types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/containers/0/image","value":"evil:1"}]`)))
		}, "what a pod runs"},
		{"a finalizer on its own node's pod", patch(mine, `{"metadata":{"finalizers":["x.y/z"]}}`), "changes no metadata of a pod"},
		{"the end of a pod past its budget", func() error { return agent.Delete(t.Context(), mine.DeepCopy()) }, forbidden},
		{"an eviction without the uid", evict(ns, nil), "without its uid"},
		{"an eviction without grace", evict(ns, &metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &other.UID}}), "its grace period"},

		{"a copy", copied(func(*corev1.Pod) {}), ""},
		{"a pod that is no copy", copied(func(p *corev1.Pod) { p.Annotations = nil }), "no pod but a marked copy"},
		{"a copy past the scheduler", copied(func(p *corev1.Pod) { p.Spec.NodeName = s.nodeB }), "no scheduler places"},
		{"a copy in the node's network", copied(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), "own namespaces"},
		{"a copy with another account", copied(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "builder" }), "no service account but default"},
		{"a copy with a Secret", copied(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}}
		}), "neither Secrets nor paths"},
		{"a copy with the node's files", copied(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		}), "neither Secrets nor paths"},
		{"a copy with a Secret in its environment", copied(func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}
		}), "reads no Secret"},
		{"a privileged copy", copied(func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: new(true)}
		}), "has no privileges"},
		{"a copy in kube-system", copied(func(p *corev1.Pod) { p.Namespace = "kube-system" }), "excluded namespaces"},

		{"a restart", make(wish("mine", func(*v1alpha1.Restart) {})), ""},
		{"a restart in another node's name", make(wish("theirs", func(r *v1alpha1.Restart) { r.Spec.Node = s.nodeB })), "of its own node alone"},
		{"a restart in a person's name", make(wish("person", func(r *v1alpha1.Restart) { r.Spec.Reason = v1alpha1.ReasonManual })), "a person's name"},
		{"an approval", func() error {
			after := held.DeepCopy()
			after.Annotations = map[string]string{v1alpha1.AnnotationApproved: "1"}
			return agent.Update(t.Context(), after)
		}, "verb approve"},
		{"the status of another's restart", func() error {
			after := held.DeepCopy()
			after.Status.Phase = v1alpha1.PhaseSucceeded
			return agent.Status().Patch(t.Context(), after, client.MergeFrom(held))
		}, "that another one holds"},
		{"whom it told of another's restart", patchStatus(held, `{"status":{"notified":{"oncall":{"generation":1,"stage":"Seen"}}}}`), ""},
		{"a takeover", func() error {
			after := held.DeepCopy()
			after.Status.Holder = s.nodeA
			return agent.Status().Patch(t.Context(), after, client.MergeFrom(held))
		}, ""},

		{"another Lease", make(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "nodeagent", Name: "other"}}), "no Lease but those"},
		{"another namespace's Lease", make(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: LeaseSlots}}), forbidden},
		{"to lead in another's name", make(&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "nodeagent", Name: LeaseLeader}, Spec: coordinationv1.LeaseSpec{HolderIdentity: new(s.nodeB + "_x")},
		}), "its own node's name"},
		{"an instance of its own node", make(instance(s.nodeA)), ""},
		{"an instance of another node", make(instance(s.nodeB)), "its own node alone"},
		{"a binary of its own", make(&v1alpha1.Binary{
			ObjectMeta: metav1.ObjectMeta{Name: "own-" + ns}, Spec: v1alpha1.BinarySpec{Command: []string{"/bin/true"}},
		}), forbidden},
		{"a pause", func() error {
			return retry.OnError(wait.Backoff{Steps: 100, Duration: 10 * time.Millisecond}, apierrors.IsConflict, func() error { // others' agents write it
				after := slots.DeepCopy()
				if err := s.cluster.Admin.Get(t.Context(), client.ObjectKeyFromObject(slots), after); err != nil {
					return err
				}
				after.Annotations = map[string]string{v1alpha1.AnnotationPaused: "ha"}
				return agent.Update(t.Context(), after)
			})
		}, "nor ends a pause"},
		{"to read a Secret", func() error {
			out, err := s.cluster.TryKubectl("get", "secrets", "-n", ns, "--as="+AgentAccount)
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}, forbidden},
		{"a label with a token that names no node", func() error {
			config := rest.CopyConfig(s.cluster.Config)
			config.BearerToken = strings.TrimSpace(s.cluster.Kubectl("create", "token", "nodeagent", "-n", "nodeagent"))
			return s.clientAs(t, config).Create(t.Context(), wish("nobody", func(*v1alpha1.Restart) {}))
		}, "does not tell its node"},
	}
	for _, test := range tries {
		err := test.try()
		if test.words == "" && err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if test.words != "" && (err == nil || !strings.Contains(err.Error(), test.words)) {
			t.Errorf("%s: %v, want it refused: %q", test.name, err, test.words)
		}
	}
}

// storyFencedAgent: with the base's role and fences an agent restarts each
// kind that it restarts itself.
func storyFencedAgent(t *testing.T, s *stage, ns string) {
	c := &clock{}
	var agents []*agent
	for _, node := range []string{s.nodeA, s.nodeB} {
		a := s.quickAgent(t, s.asAgent(t, node), Options{Node: node, Namespace: "nodeagent", Now: c.now})
		a.run(t)
		agents = append(agents, a)
	}
	d := s.deployment(t, ns, "web")
	s.service(t, ns, "web")
	agents[0].request(t, s.podOn(t, ns, "web", s.nodeA), v1alpha1.ReasonDiskFill)
	wantPhase(t, s.ended(t, ns, "deployment-web"), v1alpha1.PhaseSucceeded)
	s.wantOneRollout(t, d)

	s.daemonSet(t, ns, "each")
	agents[0].request(t, s.podOn(t, ns, "each", s.nodeA), v1alpha1.ReasonDiskFill)
	wantPhase(t, s.ended(t, ns, "daemonset-each"), v1alpha1.PhaseSucceeded)

	s.deployment(t, ns, "one")
	s.service(t, ns, "one")
	s.ask(t, ns, "apps/v1", KindDeployment, "one", scopePod(s.podOn(t, ns, "one", s.nodeA)))
	wantPhase(t, s.ended(t, ns, "deployment-one"), v1alpha1.PhaseSucceeded)

	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "bare", Labels: map[string]string{"app": "bare"}}, Spec: podTemplate().Spec}
	s.cluster.Create(t, bare)
	s.service(t, ns, "bare")
	s.settle(t, bare, func() bool { return ready(bare) })
	for i, node := range []string{s.nodeA, s.nodeB} {
		if bare.Spec.NodeName == node {
			agents[i].request(t, bare, v1alpha1.ReasonDiskFill)
		}
	}
	wantPhase(t, s.ended(t, ns, "pod-bare"), v1alpha1.PhaseSucceeded, "1 pod replaced")

	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "set"},
		Spec:       appsv1.ReplicaSetSpec{Replicas: new(int32(3)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "set", "free": "yes"}}, Template: podTemplate()},
	}
	set.Spec.Template.Labels = set.Spec.Selector.MatchLabels
	s.cluster.Create(t, set)
	s.service(t, ns, "set")
	s.settle(t, set, func() bool { return set.Status.AvailableReplicas == 3 })
	agents[0].request(t, s.podOn(t, ns, "set", s.nodeA), v1alpha1.ReasonDiskFill)
	wantPhase(t, s.ended(t, ns, "replicaset-set"), v1alpha1.PhaseSucceeded, "3 pods replaced")

	s.deployment(t, ns, "back")
	s.kubelet.Fail(ns)
	s.ask(t, ns, "apps/v1", KindDeployment, "back", func(spec *v1alpha1.RestartSpec) {
		inTenMinutes(spec)
		spec.OnStall = v1alpha1.OnStallRollback
	})
	s.stalls(t, ns, "back", c)
	wantPhase(t, s.ended(t, ns, "deployment-back"), v1alpha1.PhaseStalled, "It was rolled back and is whole again")
}

// storyApprover: RBAC says who approves.
func storyApprover(t *testing.T, s *stage, ns string) {
	s.cluster.Create(t, &v1alpha1.Restart{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "deployment-web"},
		Spec:       v1alpha1.RestartSpec{Target: v1alpha1.TargetReference{APIVersion: "apps/v1", Kind: KindDeployment, Name: "web"}},
	})
	s.cluster.Kubectl("create", "role", "-n", ns, "developer", "--verb=get,create,patch,update", "--resource=restarts.nodeagent.dev")
	s.cluster.Kubectl("create", "rolebinding", "-n", ns, "dev", "--role=developer", "--user=dev")
	s.cluster.Kubectl("create", "rolebinding", "-n", ns, "lead", "--clusterrole=nodeagent-approver", "--user=lead")
	approve := func(user string) (string, error) {
		return s.cluster.TryKubectl("annotate", "--as="+user, "-n", ns, "restart", "deployment-web", v1alpha1.AnnotationApproved+"=1")
	}
	s.cluster.inTime(t, "annotate", "--as=dev", "-n", ns, "restart", "deployment-web", "note=hello") // a developer may
	if out, err := approve("dev"); err == nil || !strings.Contains(out, "verb approve") {
		t.Errorf("a developer approved: %s", out)
	}
	s.cluster.inTime(t, "auth", "can-i", "--as=lead", "-n", ns, "approve", "restarts.nodeagent.dev/deployment-web")
	if out, err := approve("lead"); err != nil {
		t.Errorf("an approver did not approve: %s", out)
	}
	if r := s.restart(t, ns, "deployment-web"); !approved(r) {
		t.Errorf("annotations %v after %s", r.Annotations, time.Now())
	}
}

func instance(node string) *v1alpha1.BinaryInstance {
	return &v1alpha1.BinaryInstance{
		ObjectMeta: metav1.ObjectMeta{Name: "exporter." + node},
		Spec:       v1alpha1.BinaryInstanceSpec{Binary: "exporter", Node: node},
	}
}
