package cluster

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Sighting is one state of a Restart and when the API told of it.
type Sighting struct {
	At      time.Time
	Restart v1alpha1.Restart
}

// Follow tells each state of the namespace's Restarts from now on, until ctx
// ends. It lists first: with an etcd as old as Debian's the API server cannot
// begin a watch of a resource that nobody changed for a while at "now" ("Too
// large resource version").
func (c *Cluster) Follow(ctx context.Context, namespace string) (<-chan Sighting, error) {
	list := &v1alpha1.RestartList{}
	if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("cannot list Restarts: %w", err)
	}
	w, err := c.Watch(ctx, &v1alpha1.RestartList{}, client.InNamespace(namespace),
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}})
	if err != nil {
		return nil, fmt.Errorf("cannot watch Restarts: %w", err)
	}
	out := make(chan Sighting)
	go func() {
		defer close(out)
		defer w.Stop()
		for ev := range w.ResultChan() {
			r, ok := ev.Object.(*v1alpha1.Restart)
			if !ok {
				continue
			}
			select {
			case out <- Sighting{At: time.Now(), Restart: *r}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// UntilPhase reads from Follow until a Restart is in that phase, and returns
// it. It fails when the Restart ends in another one.
func UntilPhase(ctx context.Context, seen <-chan Sighting, phase v1alpha1.Phase) (Sighting, error) {
	var last v1alpha1.Restart
	for {
		select {
		case <-ctx.Done():
			return Sighting{}, fmt.Errorf("waited in vain for a Restart in phase %s; last: %s: %s", phase, last.Status.Phase, last.Status.Message)
		case s, ok := <-seen:
			if !ok {
				return Sighting{}, fmt.Errorf("the watch ended before a Restart was in phase %s; last: %s", phase, last.Status.Phase)
			}
			last = s.Restart
			if last.Status.Phase == phase {
				return s, nil
			}
			if last.Status.Phase.Ended() {
				return s, fmt.Errorf("restart %s ended as %s, not %s: %s", last.Name, last.Status.Phase, phase, last.Status.Message)
			}
		}
	}
}

// Restarts returns the namespace's Restarts.
func (c *Cluster) Restarts(ctx context.Context, namespace string) ([]v1alpha1.Restart, error) {
	list := &v1alpha1.RestartList{}
	if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("cannot list Restarts: %w", err)
	}
	return list.Items, nil
}

// ReplicaSets returns a Deployment's ReplicaSets: one for each template it had.
func (c *Cluster) ReplicaSets(ctx context.Context, namespace, name string) ([]appsv1.ReplicaSet, error) {
	list := &appsv1.ReplicaSetList{}
	if err := c.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels(labels(name))); err != nil {
		return nil, fmt.Errorf("cannot list ReplicaSets: %w", err)
	}
	return list.Items, nil
}
