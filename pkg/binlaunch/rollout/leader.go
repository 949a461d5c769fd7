package rollout

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Leader sums up what the nodes report and admits nodes. One of all agents leads.
type Leader struct {
	Client client.WithWatch
	Node   string // who we are
	Log    *slog.Logger
	Every  time.Duration // between two looks while something moves; 2 s when 0
}

// Lead looks every few seconds until ctx ends; one list of each kind, from the
// API server's cache.
func (l *Leader) Lead(ctx context.Context) {
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
	uids := map[string]types.UID{}
	for i := range binaries.Items {
		uids[binaries.Items[i].Name] = binaries.Items[i].UID
	}
	nodes := map[string][]Node{}
	for i := range instances.Items {
		b := instances.Items[i].Spec.Binary
		if uid := instances.Items[i].Spec.UID; uid != "" && uid != uids[b] {
			continue // of an earlier Binary of that name: its node's agent is away
		}
		nodes[b] = append(nodes[b], nodeOf(&instances.Items[i]))
	}
	for i := range binaries.Items {
		if err := l.write(ctx, &binaries.Items[i], nodes[binaries.Items[i].Name]); err != nil {
			return err
		}
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
