package main

import (
	"errors"
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// kubeConfig is the pod's own service account, or a kubeconfig file.
func kubeConfig(file string) (*rest.Config, error) {
	if file == "" {
		cfg, err := rest.InClusterConfig()
		if err == nil {
			return identify(cfg), nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, fmt.Errorf("cannot use this pod's service account: %w", err)
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
	// Deprecations are for those who write manifests; they would stand among
	// the lines of check.
	cfg.WarningHandlerWithContext = rest.NoWarnings{}
	return cfg
}
