package notify

import (
	"context"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// restarts are all there are in the cluster, as a watch told last.
type restarts struct {
	mu      sync.Mutex
	all     map[types.UID]*v1alpha1.Restart
	changed chan struct{} // closed by the next change
}

func newRestarts() *restarts {
	return &restarts{all: map[types.UID]*v1alpha1.Restart{}, changed: make(chan struct{})}
}

// list gives what there is, and a channel that is closed when that is no
// longer all.
func (s *restarts) list() ([]*v1alpha1.Restart, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*v1alpha1.Restart, 0, len(s.all))
	for _, r := range s.all {
		all = append(all, r)
	}
	return all, s.changed
}

func (s *restarts) set(r *v1alpha1.Restart, there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, r.UID)
	if there {
		s.all[r.UID] = r
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// follow watches until ctx ends.
func (s *restarts) follow(ctx context.Context, c client.WithWatch) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &v1alpha1.RestartList{}
			return list, c.List(ctx, list, &client.ListOptions{Raw: &o})
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.Watch(ctx, &v1alpha1.RestartList{}, &client.ListOptions{Raw: &o})
		},
	}
	put := func(there bool) func(any) {
		return func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if r, ok := o.(*v1alpha1.Restart); ok {
				s.set(r, there)
			}
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw, ObjectType: &v1alpha1.Restart{}, Transform: slim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: put(true), UpdateFunc: func(_, o any) { put(true)(o) }, DeleteFunc: put(false),
		},
	})
	informer.RunWithContext(ctx)
}

// slim drops what nobody is told.
func slim(o any) (any, error) {
	if r, ok := o.(*v1alpha1.Restart); ok {
		r.ManagedFields = nil
		r.Status.History, r.Status.OldPods, r.Status.ReplacedPods, r.Status.Conditions = nil, nil, nil, nil
	}
	return o, nil
}
