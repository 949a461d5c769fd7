package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// state is one Restart on its way.
type state struct {
	name       string // of the target, as a person says it: deployment/web
	restart    *v1alpha1.Restart
	generation int64 // of the wish: what is older tells of the restart before
	asked      time.Time
	gone       bool // somebody deleted it
}

func newState(w restart.Wish, r *v1alpha1.Restart) state {
	return state{name: nameOf(w), restart: r, generation: r.Generation, asked: time.Now()}
}

func nameOf(w restart.Wish) string {
	name := strings.ToLower(w.Target.Kind) + "/" + w.Target.Name
	if w.Scope == v1alpha1.ScopePod {
		return "pod/" + w.Pod + " of " + name
	}
	return name
}

func (s state) ended() bool { return s.gone || restart.Ended(s.restart) }

// seen is what a watch told: r is nil where the Restart is gone. What is older
// than the wish, or the end of the one before, changes nothing.
func (s state) seen(r *v1alpha1.Restart) state {
	switch {
	case s.ended():
	case r == nil:
		s.gone = true
	case r.Generation >= s.generation:
		s.restart = r
	}
	return s
}

// follow watches until all have ended or ctx does, and shows how it goes.
func (p *person) follow(ctx context.Context, o *options, states []state) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	news := make(chan news)
	var done sync.WaitGroup
	done.Go(func() { p.watch(watching, states, news) })
	defer done.Wait()
	defer stop()
	show := newDisplay(o)
	defer show.close()
	show.update(states)
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	for slices.ContainsFunc(states, func(s state) bool { return !s.ended() }) {
		select {
		case <-ctx.Done():
			show.close()
			return o.left(states)
		case n := <-news:
			for i := range states {
				if states[i].restart.Name == n.name {
					states[i] = states[i].seen(n.restart)
				}
			}
			show.update(states)
		case <-clock.C:
			show.update(states)
		}
	}
	show.close()
	return result(states)
}

// left is said when a person no longer waits.
func (o *options) left(states []state) error {
	ended := result(states)
	fmt.Fprintf(o.says(), "The restart goes on; follow it with: kubectl -n %s get restarts --watch\n", states[0].restart.Namespace)
	return ended
}

// news is what a watch tells of one Restart.
type news struct {
	name    string
	restart *v1alpha1.Restart // nil: it was deleted
}

// watch tells of the Restarts until ctx ends. It outlives the API server.
func (p *person) watch(ctx context.Context, states []state, tell chan<- news) {
	within := []client.ListOption{client.InNamespace(p.namespace)}
	if len(states) == 1 {
		one := fields.OneTermEqualSelector("metadata.name", states[0].restart.Name)
		within = append(within, client.MatchingFieldsSelector{Selector: one})
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &v1alpha1.RestartList{}
			return list, p.client.List(ctx, list, append([]client.ListOption{&client.ListOptions{Raw: &o}}, within...)...)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return p.client.Watch(ctx, &v1alpha1.RestartList{}, append([]client.ListOption{&client.ListOptions{Raw: &o}}, within...)...)
		},
	}
	send := func(name string, r *v1alpha1.Restart) {
		select {
		case tell <- news{name, r}:
		case <-ctx.Done():
		}
	}
	changed := func(o any) {
		if r, ok := o.(*v1alpha1.Restart); ok {
			send(r.Name, r)
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw, ObjectType: &v1alpha1.Restart{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    changed,
			UpdateFunc: func(_, o any) { changed(o) },
			DeleteFunc: func(o any) {
				if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
					send(key[strings.LastIndex(key, "/")+1:], nil)
				}
			},
		},
	})
	informer.RunWithContext(ctx)
}
