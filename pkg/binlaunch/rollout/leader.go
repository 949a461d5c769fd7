package rollout

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// LeaseName is the Lease that the leader among the agents holds.
const LeaseName = "nodeagent-launch"

// Leader sums up what the nodes report and admits nodes, while it holds the
// Lease.
type Leader struct {
	Client    client.WithWatch
	Config    *rest.Config
	Namespace string // of the Lease
	Node      string // who we are
	Log       *slog.Logger
	Every     time.Duration // between two looks while something moves; 2 s when 0

	nodes  map[string]bool // the cluster's, as they were when last listed
	listed time.Time
}

// nodesEvery is how old the list of nodes may be: one that is gone for good
// holds an update up for so long.
const nodesEvery = 10 * time.Second

// The times of the Lease: another leads half a minute after one has died, and
// each of the others asks for it every ten seconds.
const (
	leaseDuration = 30 * time.Second
	renewDeadline = 20 * time.Second
	retryPeriod   = 10 * time.Second
)

// Run leads whenever nobody else does, until ctx ends.
func (l *Leader) Run(ctx context.Context) error {
	leases, err := coordination.NewForConfig(l.Config)
	if err != nil {
		return fmt.Errorf("cannot make a client for Leases: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: LeaseName},
		Client:    leases,
		// Named as in the other Lease: by the node, and told from an earlier agent there.
		LockConfig: resourcelock.ResourceLockConfig{Identity: l.Node + "_" + rand.Text()},
	}
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true, Name: LeaseName,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) { l.lead(ctx) },
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return fmt.Errorf("cannot take part in the election: %w", err)
		}
		elector.Run(ctx)
	}
	return nil
}

// lead looks every few seconds; one list of each kind, from the API server's
// cache.
func (l *Leader) lead(ctx context.Context) {
	l.Log.Info("leads the updates of binaries", "node", l.Node)
	every := l.Every
	if every == 0 {
		every = 2 * time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := l.Round(ctx); err != nil && ctx.Err() == nil {
			l.Log.Warn("updates of binaries are not led", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Round looks, decides and writes once.
func (l *Leader) Round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cached := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}}
	var binaries v1alpha1.BinaryList
	if err := l.Client.List(ctx, &binaries, cached); err != nil {
		return fmt.Errorf("cannot list Binaries: %w", err)
	}
	if len(binaries.Items) == 0 {
		return nil
	}
	var instances v1alpha1.BinaryInstanceList
	if err := l.Client.List(ctx, &instances, cached); err != nil {
		return fmt.Errorf("cannot list BinaryInstances: %w", err)
	}
	if err := l.listNodes(ctx, cached); err != nil {
		return err
	}
	nodes := map[string][]Node{}
	for i := range instances.Items {
		if !l.nodes[instances.Items[i].Spec.Node] {
			continue // nobody is there to exchange anything
		}
		b := instances.Items[i].Spec.Binary
		nodes[b] = append(nodes[b], nodeOf(&instances.Items[i]))
	}
	for i := range binaries.Items {
		if err := l.write(ctx, &binaries.Items[i], nodes[binaries.Items[i].Name]); err != nil {
			return err
		}
	}
	return nil
}

// listNodes asks for names alone.
func (l *Leader) listNodes(ctx context.Context, cached *client.ListOptions) error {
	if time.Since(l.listed) < nodesEvery {
		return nil
	}
	all := &metav1.PartialObjectMetadataList{}
	all.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	if err := l.Client.List(ctx, all, cached); err != nil {
		return fmt.Errorf("cannot list nodes: %w", err)
	}
	l.nodes, l.listed = make(map[string]bool, len(all.Items)), time.Now()
	for _, n := range all.Items {
		l.nodes[n.Name] = true
	}
	return nil
}

func nodeOf(i *v1alpha1.BinaryInstance) Node {
	n := Node{
		Name: i.Spec.Node, Up: i.Status.State == v1alpha1.StateHealthy, Running: i.Status.RunningGeneration,
		Rejected: i.Status.RejectedGeneration, Message: i.Status.Message,
	}
	// What ran to its end by this generation is done, as one that is up.
	if i.Status.State == v1alpha1.StateFinished {
		n.Up, n.Running = true, i.Status.ObservedGeneration
	}
	return n
}

func (l *Leader) write(ctx context.Context, b *v1alpha1.Binary, nodes []Node) error {
	var admitted []string
	if b.Status.ObservedGeneration == b.Generation {
		admitted = b.Status.Admitted
	}
	d := Next(b.Generation, *b.Spec.Defaulted().Update.MaxUnavailable, nodes, admitted)
	status := v1alpha1.BinaryStatus{
		ObservedGeneration: b.Generation, Nodes: int32(len(nodes)), Up: int32(d.Up), Updated: int32(d.Updated),
		Admitted: d.Admitted, Message: d.Message,
	}
	if reflect.DeepEqual(status, b.Status) {
		return nil
	}
	fresh := b.DeepCopy()
	fresh.Status = status
	patch := client.MergeFromWithOptions(b, client.MergeFromWithOptimisticLock{})
	if err := l.Client.Status().Patch(ctx, fresh, patch); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("cannot write the status of Binary %s: %w", b.Name, err)
	}
	return nil
}
