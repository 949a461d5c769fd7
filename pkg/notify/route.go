package notify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// router says who is told of an incident. It asks the API server once for each
// incident, and for the others of the same one it remembers.
type router struct {
	client client.Reader
	config v1alpha1.NotifyConfig

	mu    sync.Mutex
	known map[string][]string // by incident
}

const maxRoutes = 4096

func newRouter(c client.Reader, config v1alpha1.NotifyConfig) *router {
	return &router{client: c, config: config, known: map[string][]string{}}
}

// leads tells whether a receiver is one of those of an incident.
func (r *router) leads(ctx context.Context, in Incident, target v1alpha1.TargetReference, receiver string) (bool, error) {
	r.mu.Lock()
	names, ok := r.known[in.ID]
	r.mu.Unlock()
	if !ok {
		of, onNamespace, err := r.annotations(ctx, in.Namespace, target)
		if err != nil {
			return false, fmt.Errorf("cannot find out who is to be told of %s: %w", in.ID, err)
		}
		names = receivers(of, onNamespace, r.config)
		r.mu.Lock()
		if len(r.known) >= maxRoutes {
			clear(r.known)
		}
		r.known[in.ID] = names
		r.mu.Unlock()
	}
	return slices.Contains(names, receiver), nil
}

// receivers is the rule: the workload's annotation, else the namespace's, else
// the default.
func receivers(onWorkload, onNamespace *string, config v1alpha1.NotifyConfig) []string {
	for _, annotation := range []*string{onWorkload, onNamespace} {
		if annotation == nil {
			continue
		}
		var names []string
		for name := range strings.SplitSeq(*annotation, ",") {
			names = append(names, strings.TrimSpace(name))
		}
		return names
	}
	if config.Default != nil {
		return config.Default
	}
	var all []string
	for _, r := range config.Receivers {
		all = append(all, r.Name)
	}
	return all
}

// annotations reads the one on the workload and the one on its namespace. What
// is gone, or may not be read, has none.
func (r *router) annotations(ctx context.Context, namespace string, target v1alpha1.TargetReference) (onWorkload, onNamespace *string, err error) {
	gvk := schema.FromAPIVersionAndKind(target.APIVersion, target.Kind)
	if onWorkload, err = r.annotation(ctx, gvk, client.ObjectKey{Namespace: namespace, Name: target.Name}); err != nil || onWorkload != nil {
		return onWorkload, nil, err
	}
	onNamespace, err = r.annotation(ctx, corev1.SchemeGroupVersion.WithKind("Namespace"), client.ObjectKey{Name: namespace})
	return nil, onNamespace, err
}

func (r *router) annotation(ctx context.Context, gvk schema.GroupVersionKind, key client.ObjectKey) (*string, error) {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(gvk)
	err := r.client.Get(ctx, key, o)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if value, ok := o.Annotations[v1alpha1.AnnotationNotify]; ok {
		return &value, nil
	}
	return nil, nil
}
