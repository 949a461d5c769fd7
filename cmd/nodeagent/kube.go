package main

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// newScheme holds just the kinds the agent reads and writes: each further
// group costs resident memory on every node.
func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("cannot register API types: %w", err)
		}
	}
	return s, nil
}

// kubeConfig is the pod's own service account, or a kubeconfig file.
func kubeConfig(file string) (*rest.Config, error) {
	if file == "" {
		if cfg, err := rest.InClusterConfig(); err == nil {
			return identify(cfg), nil
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("cannot find the Kubernetes API (run with --standalone to do without it): %w", err)
	}
	return identify(cfg), nil
}

// identify names the agent in the API server's audit log and bounds how fast
// it may ask.
func identify(cfg *rest.Config) *rest.Config {
	cfg.UserAgent = "nodeagent/" + buildVersion()
	cfg.QPS, cfg.Burst = 10, 20
	return cfg
}

func newKubeClient(cfg *rest.Config) (client.WithWatch, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("cannot make a client for the Kubernetes API: %w", err)
	}
	return c, nil
}
