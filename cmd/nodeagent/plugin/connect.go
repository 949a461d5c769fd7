package plugin

import (
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/restart"
)

// person is somebody at a cluster: their client, and what their API server
// calls things.
type person struct {
	client    client.WithWatch
	mapper    meta.RESTMapper
	namespace string
}

func (o *options) connect() (*person, error) {
	klog.SetLogger(logr.Discard()) // what cannot be done is told once, by us
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(o.rules, o.overrides)
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, fmt.Errorf("cannot read the kubeconfig: %w", err)
	}
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("cannot find a cluster: no kubeconfig names one; set --kubeconfig or $KUBECONFIG")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 50, 100 // as kubectl's
	config.UserAgent = "kubectl-restart"
	config.WarningHandler = rest.NewWarningWriter(o.err, rest.WarningWriterOptions{Deduplicate: true})
	mapper, err := newMapper(config)
	if err != nil {
		return nil, err
	}
	c, err := restart.NewClientFor(config, mapper, "kubectl-restart")
	if err != nil {
		return nil, err
	}
	return &person{c, mapper, namespace}, nil
}

// newMapper knows all kinds, short names and groups that the API server serves.
func newMapper(config *rest.Config) (meta.RESTMapper, error) {
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the API server: %w", err)
	}
	cached := memory.NewMemCacheClient(d)
	return restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(cached), cached, nil), nil
}
