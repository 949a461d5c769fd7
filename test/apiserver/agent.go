package apiserver

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// InstallAgent gives agents their account, role and fences, as manifests/base
// does, and what of further folders of manifests is named.
func (c *Cluster) InstallAgent(t *testing.T, more ...string) {
	t.Helper()
	c.Kubectl("create", "namespace", "nodeagent")
	for _, file := range append([]string{"base/rbac.yaml", "base/people.yaml", "base/fences.yaml"}, more...) {
		c.Kubectl("apply", "-n", "nodeagent", "-f", filepath.Join(Root(t), "manifests", file))
	}
}

// Agent is the way to the API of the agent of a node: its account's token,
// bound to its pod, which tells the API server the node.
func (c *Cluster) Agent(t *testing.T, node string) *rest.Config {
	t.Helper()
	return c.ConfigOf(c.agentToken(t, node))
}

// AgentKubeconfig is the same as a file.
func (c *Cluster) AgentKubeconfig(t *testing.T, node string) string {
	t.Helper()
	c.writeKubeconfig("agent-"+node, c.agentToken(t, node))
	return c.Kubeconfig("agent-" + node)
}

func (c *Cluster) agentToken(t *testing.T, node string) string {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "nodeagent", Name: "agent-" + node}, Spec: Template("agent").Spec}
	pod.Spec.ServiceAccountName, pod.Spec.NodeName = "nodeagent", node
	c.Create(t, pod)
	token, err := exec.CommandContext(t.Context(), c.KubectlBinary(), "--kubeconfig="+c.Kubeconfig("admin"), "create", "token", "nodeagent", "-n", "nodeagent",
		"--bound-object-kind=Pod", "--bound-object-name="+pod.Name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(token))
}
