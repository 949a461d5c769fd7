package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/notify"
	"github.com/nodeagent/nodeagent/pkg/reload"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// apiParts is all of the agent that needs the Kubernetes API.
type apiParts struct {
	client  client.WithWatch
	pods    *nodePods
	owners  *restart.Owners
	options restart.Options
	taints  bool // the node may have its taint
	events  *restart.Events
	metrics *restart.Metrics
	role    *nodeRole               // nil where nothing is launched
	leads   []func(context.Context) // what the leader of all agents does besides
	log     *slog.Logger
}

func newAPIParts(cfg *v1alpha1.Config, o runOptions, reg prometheus.Registerer, log *slog.Logger) (*apiParts, error) {
	kube, err := kubeConfig(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	c, err := restart.NewClient(kube, log)
	if err != nil {
		return nil, err
	}
	owners := restart.NewOwners(c, reg, log.With("part", "restart"))
	pods, err := newNodePods(c, cfg.Node, owners.Reached)
	if err != nil {
		return nil, fmt.Errorf("cannot follow this node's pods: %w", err)
	}
	windows, err := restart.NewWindows(cfg.Restart.Windows)
	if err != nil {
		return nil, err
	}
	klog.SetSlogLogger(log.With("part", "client-go")) // the informer logs through it alone
	leads, err := leaderParts(cfg, o, kube, reg, log)
	if err != nil {
		return nil, err
	}
	log = log.With("part", "restart")
	return &apiParts{
		client: c, pods: pods, owners: owners, leads: leads, log: log,
		taints: mayTaint(cfg.Restart),
		options: restart.Options{
			Node: cfg.Node, Mode: restart.Mode(cfg.Restart.Mode), OnStall: cfg.Restart.OnStall,
			ExcludedNamespaces: cfg.Restart.ExcludeNamespaces,
			Cooldown:           cfg.Restart.Cooldown.Duration,
			Deadline:           cfg.Restart.Deadline.Duration,
			ApprovalTimeout:    cfg.Restart.ApprovalTimeout.Duration,
			Limits:             restart.Limits(cfg.Restart.Limits),
			Windows:            windows,
			Urgent:             cfg.Restart.Urgent.Duration,
			Namespace:          ownNamespace(),
			AgentPod:           types.NamespacedName{Namespace: os.Getenv("POD_NAMESPACE"), Name: os.Getenv("POD_NAME")},
		},
		events:  restart.NewEvents(c, cfg.Node, time.Now, log),
		metrics: restart.NewMetrics(reg),
	}, nil
}

// leaderParts are what one agent of the cluster does: people are told of
// restarts, and changed ConfigMaps and Secrets looked for.
func leaderParts(cfg *v1alpha1.Config, o runOptions, kube *rest.Config, reg prometheus.Registerer, log *slog.Logger) ([]func(context.Context), error) {
	people, err := notify.New(kube, cfg.Notify, reg, log.With("part", "notify"))
	if err != nil {
		return nil, err
	}
	leads := []func(context.Context){people.Lead}
	if o.reload {
		reloader, err := reload.New(kube, reload.Options{
			Node: cfg.Node, Namespace: ownNamespace(), Deadline: cfg.Restart.Deadline.Duration,
			Excluded: func(namespace string) bool { return slices.Contains(cfg.Restart.ExcludeNamespaces, namespace) },
		}, log.With("part", "reload"))
		if err != nil {
			return nil, err
		}
		leads = append(leads, reloader.Lead)
	}
	return leads, nil
}

// mayTaint tells whether the node may have its taint: who only observes writes
// nothing but what would have been done.
func mayTaint(c v1alpha1.RestartConfig) bool {
	return c.TaintFillingNode && c.Mode != v1alpha1.ModeObserve
}

// ownNamespace is where the agents keep what they share.
func ownNamespace() string { return cmp.Or(os.Getenv("POD_NAMESPACE"), "nodeagent") }

// run turns offences into Restarts and carries this node's Restarts out.
func (a *apiParts) run(ctx context.Context, disks *disk.Watcher) error {
	requester := restart.NewRequester(a.client, a.options, a.events, a.log)
	controller := restart.NewController(a.client, a.options, layers{disks}, a.events, a.metrics, a.log)
	taint := restart.NewNodeTaint(a.client, a.options, a.taints, nodeDisk{disks}, a.events, a.metrics, a.log)
	for _, lead := range a.leads {
		controller.WhenLeading(lead)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.pods.run(ctx) })
	g.Go(func() error {
		waitMeasured(ctx, disks, measurePatience)
		return controller.Run(ctx)
	})
	g.Go(func() error { return tellOwners(ctx, a.owners, disks) })
	g.Go(func() error { taint.Run(ctx); return nil })
	if a.role != nil {
		g.Go(func() error { a.role.run(ctx, a.roleTaint()); return nil })
	}
	g.Go(func() error { return a.requestAll(ctx, requester, taint, disks) })
	return g.Wait()
}

// nodeRole is how this node's role is known, and whether a public one gets its
// taint.
type nodeRole struct {
	taint bool
	moved <-chan struct{} // the node has, perhaps
	node  func() *corev1.Node
}

func (n *nodeRole) run(ctx context.Context, t *restart.RoleTaint) { t.Run(ctx, n.moved, n.node) }

func (a *apiParts) roleTaint() *restart.RoleTaint {
	return restart.NewRoleTaint(a.client, a.options, a.role.taint, a.events, a.metrics, a.log)
}

// measurePatience bounds how long a restart that a killed agent left waits for
// this one's first look at the disks: a file system may hang for ever.
const measurePatience = 30 * time.Second

// waitMeasured waits until the disks were looked at once, or patience is over.
// To a restart in progress a pod that nobody measured yet would look like one
// that is gone.
func waitMeasured(ctx context.Context, disks *disk.Watcher, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !disks.Ready() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// requestAll asks for a restart for each offence. The watcher tells an offence
// again while it lasts, so one that could not be asked for now is asked for
// then.
func (a *apiParts) requestAll(ctx context.Context, requester *restart.Requester, taint *restart.NodeTaint, disks *disk.Watcher) error {
	settled := settled{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case v, more := <-disks.Offences():
			if !more {
				return nil
			}
			subject := v.Container.Pod.UID + "/" + v.Container.Name
			if settled.holds(subject, v.At) {
				continue
			}
			logOffence(a.log, v)
			taint.Look(ctx) // before anything is replaced
			if outcome, ok := a.request(ctx, requester, v); ok {
				settled.note(subject, outcome, v.At)
			}
		}
	}
}

// request asks for the restart of one pod's workload. It is false where the
// API could not be asked, or there is nobody to ask.
func (a *apiParts) request(ctx context.Context, requester *restart.Requester, v disk.Verdict) (restart.Outcome, bool) {
	pod := v.Container.Pod
	if pod.UID == "" {
		return restart.Outcome{}, false // outside Kubernetes
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	outcome, err := requester.Request(ctx, restart.Request{
		Container: v.Container.Name,
		Pod:       restart.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Reason:    v1alpha1.ReasonDiskFill, Message: v.Message, FullAt: fullAt(v),
	})
	if err != nil {
		a.log.Error("cannot ask for a restart", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		return outcome, false
	}
	a.log.Info("offence dealt with", "pod", pod.Namespace+"/"+pod.Name, "outcome", string(outcome.Kind), "restart", outcome.Restart)
	return outcome, true
}

// fullAt is when the bound is expected to be reached; zero for what does not
// grow.
func fullAt(v disk.Verdict) time.Time {
	const far = 365 * 24 * time.Hour
	if v.Until.Expected > far {
		return time.Time{}
	}
	return v.At.Add(max(v.Until.Expected, 0))
}

// settled remembers the containers whose offence has its answer for now, so that one
// that lasts asks the API server and writes into the log every few minutes
// and not every half.
type settled map[string]time.Time // pod UID/container: asked again from then on

// settledFor is how long an answer holds. A cooldown may be cleared by a
// person, and a rollout in progress may end, so none holds for long.
const settledFor = 5 * time.Minute

func (s settled) holds(uid string, now time.Time) bool {
	maps.DeleteFunc(s, func(_ string, until time.Time) bool { return !now.Before(until) })
	_, ok := s[uid]
	return ok
}

func (s settled) note(uid string, o restart.Outcome, now time.Time) {
	until := now.Add(settledFor)
	switch o.Kind {
	case restart.CoolingDown:
		if o.Until.Before(until) {
			until = o.Until
		}
	case restart.Excluded, restart.Ineffective, restart.Unfit:
	default:
		return // on its way: look again soon
	}
	s[uid] = until
}

// layers tells the restart controller what a pod's containers hold.
type layers struct{ disks *disk.Watcher }

func (l layers) PodBytes(uid string) (bytes int64, known bool) {
	bytes, n := l.disks.Used(uid)
	return bytes, n > 0
}

// nodeDisk tells the node's taint how near the disk is to being full.
type nodeDisk struct{ disks *disk.Watcher }

func (d nodeDisk) Filling() (f restart.Filling, known bool) {
	return restart.Filling(d.disks.Filling()), d.disks.Ready()
}
