package restart

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// cluster is a real control plane with the agent's rights and fences. Its nodes
// are objects; what a kubelet and a scheduler would do on them does a kubelet of
// kubelet_test.go.
type cluster struct {
	*apiserver.Cluster
	boundaries boundaries
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Cluster: apiserver.Start(t, apiserver.Controllers())}
	c.Admin = asAgents(t, c.Config)
	manifests := filepath.Join(apiserver.Root(t), "manifests")
	c.Kubectl("apply", "-f", filepath.Join(manifests, "base/namespace.yaml"), "-f", filepath.Join(manifests, "base/fences.yaml"))
	c.Kubectl("apply", "-n", "nodeagent", "-f", filepath.Join(manifests, "base/rbac.yaml"), "-f", filepath.Join(manifests, "overlays/launch/rbac.yaml"))
	c.fenced(t)
	return c
}

// asAgents is a client that knows of kinds what agents know: those of others, as
// Argo's, before their definitions are there.
func asAgents(t *testing.T, config *rest.Config) client.WithWatch {
	t.Helper()
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	mapper := newMapper().(*meta.DefaultRESTMapper)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fenced waits until the API server holds agents to the fences and knows their
// rights: it learns of what was written by watches, and the last of the fences
// refuses nothing before all do.
func (c *cluster) fenced(t *testing.T) {
	t.Helper()
	probe := c.Write("probe.yaml", fmt.Appendf(nil, `apiVersion: nodeagent.dev/v1alpha1
kind: Restart
metadata: {name: deployment-probe, namespace: default, annotations: {%s: "1"}}
spec: {target: {apiVersion: apps/v1, kind: Deployment, name: probe}}
`, v1alpha1.AnnotationApproved))
	c.Kubectl("create", "clusterrole", "probe", "--verb=create", "--resource=restarts.nodeagent.dev")
	c.Kubectl("create", "clusterrolebinding", "probe", "--clusterrole=probe", "--user=probe")
	apiserver.Eventually(t, 90*time.Second, "the fences stand", func() bool {
		out, err := c.TryKubectl("create", "--as=probe", "--dry-run=server", "-f", probe)
		return err != nil && strings.Contains(out, "verb approve")
	})
	c.Kubectl("delete", "clusterrolebinding/probe", "clusterrole/probe")
}

// inTime is what kubectl may do once the API server knows of the rights that
// were written just before: it learns of them by a watch.
func (c *cluster) inTime(t *testing.T, args ...string) {
	t.Helper()
	apiserver.Eventually(t, time.Minute, "kubectl "+strings.Join(args, " "), func() bool {
		_, err := c.TryKubectl(args...)
		return err == nil
	})
}
