package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// FewestEndpoints follows a Service's EndpointSlices by the API's own watch,
// from when it sends to n pods, and gives at the end the fewest it ever sent
// to. stop fails when the watch broke off, for then nobody knows.
func (c *Cluster) FewestEndpoints(ctx context.Context, namespace, service string, n int) (stop func() (int, error), err error) {
	known := map[string]discoveryv1.EndpointSlice{}
	var version string
	err = Until(ctx, fmt.Sprintf("service %s/%s sends to %d pods", namespace, service, n), func(ctx context.Context) (bool, error) {
		list := &discoveryv1.EndpointSliceList{}
		err := c.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{discoveryv1.LabelServiceName: service})
		for _, slice := range list.Items {
			known[slice.Name] = slice
		}
		version = list.ResourceVersion
		return readyEndpoints(known) == n, err
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w, err := c.Watch(ctx, &discoveryv1.EndpointSliceList{}, client.InNamespace(namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: service}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: version}})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("cannot watch the endpoints of %s: %w", service, err)
	}
	fewest := n
	var broke error
	var done sync.WaitGroup
	done.Go(func() {
		for ev := range w.ResultChan() {
			slice, ok := ev.Object.(*discoveryv1.EndpointSlice)
			if !ok {
				continue
			}
			known[slice.Name] = *slice
			fewest = min(fewest, readyEndpoints(known))
		}
		if ctx.Err() == nil {
			broke = fmt.Errorf("the watch of the endpoints of %s ended in the middle", service)
		}
	})
	return func() (int, error) {
		cancel()
		w.Stop()
		done.Wait()
		return fewest, broke
	}, nil
}

func readyEndpoints(slicesOf map[string]discoveryv1.EndpointSlice) int {
	ready := map[types.UID]bool{}
	for _, slice := range slices.Collect(maps.Values(slicesOf)) {
		for _, e := range slice.Endpoints {
			if e.TargetRef != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				ready[e.TargetRef.UID] = true
			}
		}
	}
	return len(ready)
}
