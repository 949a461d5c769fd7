package e2e

import (
	"context"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// Somebody has an agent's own token, bound to its pod, and tries more than
// agents do: the API server refuses each try in the words of its fence.
func TestAgentToken(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	agent := s.asAgent(nodes[0])
	web, mine, other := cluster.Deployment(s.namespace, "web", 1), cluster.Pod(s.namespace, "mine"), cluster.Pod(s.namespace, "other")
	mine.Spec.NodeName, other.Spec.NodeName = nodes[0], nodes[1]
	s.create(web, mine, other)

	patch := func(o client.Object, text string) func(context.Context) error {
		return func(ctx context.Context) error {
			return agent.Patch(ctx, o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(text)))
		}
	}
	node := func(name string) client.Object { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	make := func(o client.Object) func(context.Context) error {
		return func(ctx context.Context) error { return agent.Create(ctx, o) }
	}
	for _, try := range []struct {
		name, words string
		try         func(context.Context) error
	}{
		{"another image", "changes nothing of a pod template", patch(web, `{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"evil:1"}]}}}}`)},
		{"another annotation", "changes no annotation but", patch(web, `{"spec":{"template":{"metadata":{"annotations":{"x":"y"}}}}}`)},
		{"no replicas", "changes nothing of a workload", patch(web, `{"spec":{"replicas":0}}`)},
		{"the end of a workload", "is forbidden", func(ctx context.Context) error { return agent.Delete(ctx, web.DeepCopy()) }},
		{"a label of another node's pod", "pods of its own node alone", patch(other, `{"metadata":{"labels":{"app":null},"annotations":{"nodeagent.dev/labels-taken":"{\"app\":\"other\"}"}}}`)},
		{"a new label of its own node's pod", "no label but those", patch(mine, `{"metadata":{"labels":{"x":"y"}}}`)},
		{"the end of a pod past its budget", "is forbidden", func(ctx context.Context) error { return agent.Delete(ctx, mine.DeepCopy()) }},
		{"an eviction without grace", "its grace period", func(ctx context.Context) error {
			return agent.SubResource("eviction").Create(ctx, mine.DeepCopy(), &policyv1.Eviction{
				ObjectMeta:    metav1.ObjectMeta{Namespace: mine.Namespace, Name: mine.Name},
				DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &mine.UID}},
			})
		}},
		{"a pod of its own", "no pod but a marked copy", make(cluster.Pod(s.namespace, "evil"))},
		{"a restart in another node's name", "of its own node alone", make(s.restartOf(web, nodes[1]))},
		{"a restart in a person's name", "a person's name", make(func() client.Object {
			r := s.restartOf(web, nodes[0])
			r.Spec.Reason = v1alpha1.ReasonManual
			return r
		}())},
		{"another Lease", "no Lease but those", make(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace, Name: "other"}})},
		{"a pause", "nor ends a pause", func(ctx context.Context) error {
			return retry.RetryOnConflict(retry.DefaultRetry, func() error {
				lease := &coordinationv1.Lease{}
				if err := s.Get(ctx, client.ObjectKey{Namespace: cluster.Namespace, Name: restart.LeaseSlots}, lease); err != nil {
					return err
				}
				metav1.SetMetaDataAnnotation(&lease.ObjectMeta, v1alpha1.AnnotationPaused, "ha")
				return agent.Update(ctx, lease)
			})
		}},
		{"another node's taint", "its own node alone", patch(node(nodes[1]), `{"spec":{"taints":[{"key":"nodeagent.dev/disk-filling","effect":"PreferNoSchedule"}]}}`)},
		{"a taint that drives pods away", "changes no taint but", patch(node(nodes[0]), `{"spec":{"taints":[{"key":"nodeagent.dev/disk-filling","effect":"NoExecute"}]}}`)},
		{"a label of its node", "changes no metadata of a node", patch(node(nodes[0]), `{"metadata":{"labels":{"x":"y"}}}`)},
		{"a Secret", "is forbidden", func(ctx context.Context) error {
			return agent.List(ctx, &corev1.SecretList{}, client.InNamespace(s.namespace))
		}},
	} {
		if err := try.try(s.ctx); err == nil || !strings.Contains(err.Error(), try.words) {
			t.Errorf("%s: %v, want it refused: %q", try.name, err, try.words)
		}
	}
	s.launchesAtHome(agent, nodes[0], nodes[1])
	now := &appsv1.Deployment{}
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), now))
	if now.Generation != web.Generation {
		t.Errorf("the Deployment was written: generation %d after %d", now.Generation, web.Generation)
	}
}

// launchesAtHome gives agents the role to launch: they report what is launched
// on their own node, and on no other.
func (s *story) launchesAtHome(agent client.Client, home, other string) {
	s.t.Helper()
	role := s.Path("manifests/overlays/launch/rbac.yaml")
	s.t.Cleanup(func() {
		if _, err := s.Kubectl(context.WithoutCancel(s.ctx), "delete", "--ignore-not-found", "-f", role); err != nil {
			s.t.Error(err)
		}
	})
	_, err := s.Kubectl(s.ctx, "apply", "-n", cluster.Namespace, "-f", role)
	s.must(err)
	report := func(ctx context.Context, node string) error {
		return agent.Create(ctx, &v1alpha1.BinaryInstance{
			ObjectMeta: metav1.ObjectMeta{Name: s.namespace + "." + node}, Spec: v1alpha1.BinaryInstanceSpec{Binary: s.namespace, Node: node},
		}, client.DryRunAll)
	}
	s.must(cluster.Until(s.ctx, "the API server knows of the role", func(ctx context.Context) (bool, error) {
		err := report(ctx, home)
		return err == nil, err
	}))
	if err := report(s.ctx, other); err == nil || !strings.Contains(err.Error(), "launched on its own node alone") {
		s.t.Errorf("an instance of another node: %v, want it refused", err)
	}
}

// asAgent is the API as somebody sees it who has the token of a node's agent.
func (s *story) asAgent(node string) client.Client {
	s.t.Helper()
	pod, err := s.AgentPod(s.ctx, node)
	s.must(err)
	token, err := s.Kubectl(s.ctx, "create", "token", "nodeagent", "-n", cluster.Namespace, "--bound-object-kind=Pod", "--bound-object-name="+pod.Name)
	s.must(err)
	file, err := s.Lab(s.ctx, "kubeconfig")
	s.must(err)
	admin, err := clientcmd.BuildConfigFromFlags("", strings.TrimSpace(file))
	s.must(err)
	config := rest.AnonymousClientConfig(admin)
	config.WarningHandlerWithContext = rest.NoWarnings{} // else controller-runtime wants a logger
	config.BearerToken, config.UserAgent = strings.TrimSpace(token), thief
	c, err := client.New(config, client.Options{Scheme: s.Scheme(), Mapper: s.RESTMapper()})
	s.must(err)
	return c
}

// restartOf is one that the agent of a node asks for.
func (s *story) restartOf(web *appsv1.Deployment, node string) *v1alpha1.Restart {
	return &v1alpha1.Restart{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: restart.Name("Deployment", web.Name)},
		Spec: v1alpha1.RestartSpec{
			Target: v1alpha1.TargetReference{APIVersion: "apps/v1", Kind: "Deployment", Name: web.Name},
			Node:   node, Reason: v1alpha1.ReasonDiskFill,
		},
	}
}
