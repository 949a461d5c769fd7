// Package cluster is what the stories, the demo and the benchmarks share: the
// way to a running lab cluster, the agent put onto it, and the web app with
// its client.
package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Namespace is where the agent lives.
const Namespace = "nodeagent"

// Cluster is a running lab cluster.
type Cluster struct {
	client.WithWatch
	// Core is for what the generic client does not do: logs and the proxy to pods.
	Core kubernetes.Interface
	lab  string // the lab program
	root string // the repository
}

// Connect finds the cluster that lab started.
func Connect(ctx context.Context, lab string) (*Cluster, error) {
	lab, err := filepath.Abs(lab)
	if err != nil {
		return nil, fmt.Errorf("cannot find the lab program: %w", err)
	}
	c := &Cluster{lab: lab, root: filepath.Dir(filepath.Dir(lab))}
	file, err := c.Lab(ctx, "kubeconfig")
	if err != nil {
		return nil, err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", strings.TrimSpace(file))
	if err != nil {
		return nil, fmt.Errorf("cannot read the lab's kubeconfig: %w", err)
	}
	cfg.QPS, cfg.Burst = 100, 200
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, autoscalingv2.AddToScheme, coordinationv1.AddToScheme,
		discoveryv1.AddToScheme, admissionregistrationv1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("cannot register API types: %w", err)
		}
	}
	if c.WithWatch, err = client.NewWithWatch(cfg, client.Options{Scheme: s}); err != nil {
		return nil, fmt.Errorf("cannot make a client: %w", err)
	}
	if c.Core, err = kubernetes.NewForConfig(cfg); err != nil {
		return nil, fmt.Errorf("cannot make a client: %w", err)
	}
	return c, nil
}

// Lab runs the lab program and returns what it printed.
func (c *Cluster) Lab(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.lab, args...)
	cmd.Dir = c.root
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("lab %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Path is a file of the repository.
func (c *Cluster) Path(parts ...string) string {
	return filepath.Join(append([]string{c.root}, parts...)...)
}

// Kubectl runs the cluster's own kubectl.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.Lab(ctx, append([]string{"kubectl"}, args...)...)
}

// KubectlCommand is the cluster's kubectl for who gives it a terminal.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.lab, append([]string{"kubectl"}, args...)...)
	cmd.Dir = c.root
	return cmd
}

// InstallAgent applies the base as it is and waits until the agent is ready on
// every node.
func (c *Cluster) InstallAgent(ctx context.Context) error {
	if _, err := c.Kubectl(ctx, "apply", "-k", filepath.Join(c.root, "manifests", "base")); err != nil {
		return err
	}
	// A new image under the same tag is only seen by new pods.
	if _, err := c.Kubectl(ctx, "-n", Namespace, "rollout", "restart", "daemonset/nodeagent"); err != nil {
		return err
	}
	_, err := c.Kubectl(ctx, "-n", Namespace, "rollout", "status", "daemonset/nodeagent", "--timeout=120s")
	return err
}

// Until looks twice a second until done says so, and tells what it waited for
// when ctx ends first.
func Until(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		ok, err := done(ctx)
		if ok && err == nil {
			return nil
		}
		if err != nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if last != nil {
				return fmt.Errorf("waited in vain until %s: %w", what, last)
			}
			return fmt.Errorf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// LabFromEnv is the lab program that `make` names to the tests.
func LabFromEnv() (string, error) {
	if lab := os.Getenv("NODEAGENT_LAB"); lab != "" {
		return lab, nil
	}
	return "", fmt.Errorf("NODEAGENT_LAB is not set: run this with make test-e2e, which starts the cluster")
}
