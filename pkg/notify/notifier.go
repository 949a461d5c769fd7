package notify

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// Notifier tells the configured receivers of all Restarts in the cluster.
type Notifier struct {
	client  client.WithWatch
	config  v1alpha1.NotifyConfig
	counter *prometheus.CounterVec
	log     *slog.Logger
	now     func() time.Time
}

// New makes one. It reads no Secret before it has something to tell.
func New(kube *rest.Config, config v1alpha1.NotifyConfig, reg prometheus.Registerer, log *slog.Logger) (*Notifier, error) {
	mapper := restart.NewMapper()
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	c, err := restart.NewClientFor(kube, mapper, "nodeagent")
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(config.Receivers))
	for _, r := range config.Receivers {
		names = append(names, r.Name)
	}
	return &Notifier{client: c, config: config, counter: newCounter(reg, names), log: log, now: time.Now}, nil
}

// Lead tells people until ctx ends, which is when this agent leads no longer,
// and waits for all workers. For a moment after the lead went over two agents
// may tell the same.
func (n *Notifier) Lead(ctx context.Context) {
	if len(n.config.Receivers) == 0 {
		return
	}
	seen := newRestarts()
	routes := newRouter(n.client, n.config)
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { seen.follow(ctx, n.client) })
	for _, r := range n.config.Receivers {
		w := newWorker(n, r, seen, routes)
		all.Go(func() { w.run(ctx) })
	}
}
