package restart

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Plan is what a restart would do at this moment.
type Plan struct {
	Method v1alpha1.Method
	Pods   []v1alpha1.PodReference // those that would go, in their order
	// Refusal is the sentence it would be ended with before anything is
	// touched; empty where it would go on.
	Refusal string
	// Warnings are said and do not stop it.
	Warnings []string
}

// PlanOf reads the world around a Restart that is not there yet and decides
// its first step as the agent would. It writes nothing. What only an agent's
// configuration says (excluded namespaces, windows) it cannot tell.
func PlanOf(ctx context.Context, c client.Reader, r *v1alpha1.Restart, o Options) (Plan, error) {
	o = o.withDefaults()
	wish := r.DeepCopy()
	wish.Status, wish.Generation = v1alpha1.RestartStatus{}, 1
	w := &World{Now: o.Now(), Node: o.Node, Restart: wish}
	if err := newLooker(c, o, nil).around(ctx, w); err != nil {
		return Plan{}, fmt.Errorf("cannot plan the restart: %w", err)
	}
	first := begin(*w)
	plan := Plan{Method: w.method()}
	if w.Target != nil {
		plan.Pods = startStatus(*w).OldPods
	}
	if first.Action == End {
		plan.Refusal = first.Message
		return plan, nil
	}
	plan.Warnings = warnings(Preflight(*w))
	return plan, nil
}

// NewMapper knows the kinds that NewClient's does; others may be added.
func NewMapper() *meta.DefaultRESTMapper { return newMapper().(*meta.DefaultRESTMapper) }

// NewClientFor makes a client with another mapper, for a person and for what
// knows more kinds than a restart does. manager is who stands in managedFields.
func NewClientFor(config *rest.Config, mapper meta.RESTMapper, manager string) (client.WithWatch, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper, FieldOwner: manager, Log: logr.FromSlogHandler(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("cannot make a client for %s: %w", config.Host, err)
	}
	return c, nil
}
