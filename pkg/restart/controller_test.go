package restart

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// faulty is an API server that answers as a test wants it. What a test did not
// set is not there.
type faulty struct {
	client.WithWatch
	restarts []v1alpha1.Restart
	get      func(key client.ObjectKey, o client.Object) error
	list     func(list client.ObjectList, o *client.ListOptions) error
	create   func(o client.Object) error
	mu       sync.Mutex
	asked    []string
}

func notFound(name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: "things"}, name)
}

func (f *faulty) Watch(context.Context, client.ObjectList, ...client.ListOption) (watch.Interface, error) {
	return watch.NewFake(), nil
}

func (f *faulty) Update(context.Context, client.Object, ...client.UpdateOption) error { return nil }

func (f *faulty) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, key.Name)
	if f.get == nil {
		return notFound(key.Name)
	}
	return f.get(key, o)
}

func (f *faulty) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	if all, ok := list.(*v1alpha1.RestartList); ok {
		all.Items = f.restarts
		return nil
	}
	var o client.ListOptions
	return f.list(list, o.ApplyOptions(options))
}

func (f *faulty) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	if f.create == nil {
		return nil
	}
	return f.create(o)
}

func (f *faulty) controller() *Controller {
	log := slog.New(slog.DiscardHandler)
	return NewController(f, Options{Node: nodeA}, nil, NewEvents(f, nodeA, time.Now, log), NewMetrics(prometheus.NewRegistry()), log)
}

// However many Restarts cannot be begun, the others are.
func TestFailuresHoldUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &faulty{get: func(key client.ObjectKey, _ client.Object) error {
			if strings.HasPrefix(key.Name, "bad") {
				return errors.New("broken")
			}
			return notFound(key.Name)
		}}
		for _, name := range []string{"bad-1", "bad-2", "good"} {
			r := testRestart(KindDeployment)
			r.Name = name
			f.restarts = append(f.restarts, *r)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := f.controller().Run(ctx); err != nil {
			t.Error(err)
		}
		if !slices.Contains(f.asked, "good") {
			t.Errorf("only these had their turn: %v", f.asked)
		}
	})
}

// A Restart that was begun and can no longer be looked at keeps its turn until
// its deadline, and not for ever.
func TestGivesWayAfterItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begun(KindDeployment).Restart
		r.Status.Started = new(metav1.NewTime(time.Now()))
		f := &faulty{get: func(_ client.ObjectKey, o client.Object) error {
			if into, ok := o.(*v1alpha1.Restart); ok {
				r.DeepCopyInto(into)
				return nil
			}
			return errors.New("forbidden")
		}}
		began := time.Now()
		err := f.controller().carryOut(t.Context(), client.ObjectKeyFromObject(r))
		if took := time.Since(began); err == nil || took < defaultDeadline || took > defaultDeadline+time.Minute {
			t.Errorf("gave way after %s with %v, want soon after %s", took, err, defaultDeadline)
		}
	})
}
