package cluster

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// AgentPod is the agent's pod on a node.
func (c *Cluster) AgentPod(ctx context.Context, node string) (*corev1.Pod, error) {
	list := &corev1.PodList{}
	if err := c.List(ctx, list, client.InNamespace(Namespace), client.MatchingLabels{"app.kubernetes.io/name": "nodeagent"}); err != nil {
		return nil, fmt.Errorf("cannot list the agent's pods: %w", err)
	}
	for i, p := range list.Items {
		if p.Spec.NodeName == node && p.DeletionTimestamp == nil {
			return &list.Items[i], nil
		}
	}
	return nil, fmt.Errorf("cannot find the agent's pod on %s", node)
}

// AgentPID is the process id of the agent on a node, in that node's own
// numbering, as containerd tells it for the pod's container.
func (c *Cluster) AgentPID(ctx context.Context, node string) (int, error) {
	pod, err := c.AgentPod(ctx, node)
	if err != nil {
		return 0, err
	}
	if len(pod.Status.ContainerStatuses) == 0 {
		return 0, fmt.Errorf("cannot tell the agent's container on %s: its pod has no status yet", node)
	}
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	out, err := c.Lab(ctx, "exec", node, "--", "ctr", "-n", "k8s.io", "tasks", "ls")
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(id) + `\s+(\d+)\s+RUNNING`).FindStringSubmatch(out)
	if id == "" || m == nil {
		return 0, fmt.Errorf("cannot find the agent's task %q on %s in:\n%s", id, node, out)
	}
	return strconv.Atoi(m[1])
}

// Nodes returns the names of the cluster's nodes.
func (c *Cluster) Nodes(ctx context.Context) ([]string, error) {
	list := &corev1.NodeList{}
	if err := c.List(ctx, list); err != nil {
		return nil, fmt.Errorf("cannot list nodes: %w", err)
	}
	var names []string
	for _, n := range list.Items {
		names = append(names, n.Name)
	}
	return names, nil
}
