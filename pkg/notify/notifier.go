package notify

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Leader tells whether this agent is the one that tells people.
type Leader interface {
	Leading() bool
}

// Notifier tells the configured receivers of all Restarts in the cluster.
type Notifier struct {
	client  client.WithWatch
	config  v1alpha1.NotifyConfig
	leader  Leader
	counter *prometheus.CounterVec
	log     *slog.Logger
	now     func() time.Time
}

// New makes one. It reads no Secret before it has something to tell.
func New(c client.WithWatch, config v1alpha1.NotifyConfig, leader Leader, reg prometheus.Registerer, log *slog.Logger) *Notifier {
	names := make([]string, 0, len(config.Receivers))
	for _, r := range config.Receivers {
		names = append(names, r.Name)
	}
	return &Notifier{client: c, config: config, leader: leader, counter: newCounter(reg, names), log: log, now: time.Now}
}

// askLeader is how often it is asked who leads: so long two may tell the same
// after the lead went over.
const askLeader = time.Second

// Run tells people until ctx ends, while this agent leads. It costs the API
// server nothing while it does not, or where nobody is to be told.
func (n *Notifier) Run(ctx context.Context) error {
	if len(n.config.Receivers) == 0 {
		return nil
	}
	tick := time.NewTicker(askLeader)
	defer tick.Stop()
	stop := func() {}
	defer func() { stop() }()
	leading := false
	for {
		if now := n.leader.Leading(); now != leading {
			stop()
			leading, stop = now, func() {}
			if now {
				stop = n.begin(ctx)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// begin tells people until stop is called, which waits for all workers.
func (n *Notifier) begin(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	seen := newRestarts()
	routes := newRouter(n.client, n.config)
	var all sync.WaitGroup
	all.Go(func() { seen.follow(ctx, n.client) })
	for _, r := range n.config.Receivers {
		w := newWorker(n, r, seen, routes)
		all.Go(func() { w.run(ctx) })
	}
	return func() { cancel(); all.Wait() }
}
