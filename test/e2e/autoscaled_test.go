package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// One pod of a Deployment is replaced beside an autoscaler that is at work: it
// looks while there is one pod more, and changes nothing. The Deployment is not
// written. That the autoscaler could have scaled is seen afterwards, when there is
// more work.
func TestDeploymentOnePod(t *testing.T) {
	s := newStory(t)
	work := s.metricsAPI(240) // of 100 for each pod: three pods' work
	web, scaler := cluster.Deployment(s.namespace, "web", 3), cluster.Autoscaler(s.namespace, "web")
	web.Spec.Template.Spec.Containers[0].ReadinessProbe.InitialDelaySeconds = 12 // the lab's autoscaler looks every 5 s
	s.meetsMany(&web.Spec.Template.Spec, "web", 1)
	s.create(web, scaler)
	asked := s.askAll("web", 3)
	old := s.untilReady("web", 3)
	s.untilScaling(scaler)
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), web))
	work.most.Store(0)

	r := s.ended(s.person(web, "apps/v1", "Deployment", onePod(&old[0])), v1alpha1.PhaseSucceeded)
	asked.clean(manyRequests, 3)
	s.replaced(old, s.untilReady("web", 3), old[0].Name)
	if r.Status.Method != v1alpha1.MethodRelease {
		t.Errorf("the pod was replaced by %s", r.Status.Method)
	}
	now := &appsv1.Deployment{}
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), now))
	if now.Generation != web.Generation {
		t.Errorf("the Deployment was written: generation %d after %d", now.Generation, web.Generation)
	}
	if n := work.most.Load(); n != 4 {
		t.Errorf("the autoscaler saw at most %d pods, want to know what it does at 4", n)
	}
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(scaler), scaler))
	if scaler.Status.LastScaleTime != nil || scaler.Status.DesiredReplicas != 3 || !scalingActive(scaler) {
		t.Errorf("the autoscaler is disturbed: %+v", scaler.Status)
	}

	work.milli.Store(450)
	s.untilReady("web", 5)
}

func (s *story) untilScaling(scaler *autoscalingv2.HorizontalPodAutoscaler) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, "the autoscaler works", func(ctx context.Context) (bool, error) {
		if err := s.Get(ctx, client.ObjectKeyFromObject(scaler), scaler); err != nil {
			return false, err
		}
		if !scalingActive(scaler) || scaler.Status.DesiredReplicas != 3 {
			return false, fmt.Errorf("its status is %+v", scaler.Status) // says what its metrics lack
		}
		return true, nil
	}))
}

func scalingActive(scaler *autoscalingv2.HorizontalPodAutoscaler) bool {
	for _, c := range scaler.Status.Conditions {
		if c.Type == autoscalingv2.ScalingActive {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// metricsAPI is metrics.k8s.io of the whole cluster, where those pods share their
// work evenly that are selected together and Ready.
type metricsAPI struct {
	s     *story
	milli atomic.Int64 // of a CPU that all of them use
	most  atomic.Int64 // pods that somebody asked for
}

const metricsPath = "/apis/metrics.k8s.io/v1beta1"

// metricsAPI serves it until the story ends.
func (s *story) metricsAPI(milli int64) *metricsAPI {
	s.t.Helper()
	m := &metricsAPI{s: s}
	m.milli.Store(milli)
	address, ca := s.serveTLS("metrics."+s.namespace+".svc", m)
	service := &corev1.Service{
		ObjectMeta: cluster.Meta(s.namespace, "metrics"),
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: address.IP.String()},
	}
	api := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
		"metadata": map[string]any{"name": "v1beta1.metrics.k8s.io"},
		"spec": map[string]any{
			"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": int64(100), "versionPriority": int64(100),
			"caBundle": base64.StdEncoding.EncodeToString(ca),
			"service":  map[string]any{"namespace": s.namespace, "name": "metrics", "port": int64(address.Port)},
		},
	}}
	s.create(service, api)
	s.t.Cleanup(func() { // while it still answers: a group that does not holds up each namespace's end
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Delete(ctx, api); err != nil {
			s.t.Errorf("cannot remove the metrics API: %v", err)
		}
	})
	return m
}

func (m *metricsAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := m.answer(r)
	if err != nil { // the autoscaler tells it in its status
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // who asked may be gone
}

func (m *metricsAPI) answer(r *http.Request) (any, error) {
	if r.URL.Path == metricsPath {
		return metav1.APIResourceList{
			TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "metrics.k8s.io/v1beta1",
			APIResources: []metav1.APIResource{{Name: "pods", Kind: "PodMetrics", Namespaced: true, Verbs: metav1.Verbs{"get", "list"}}},
		}, nil
	}
	namespace, found := strings.CutPrefix(r.URL.Path, metricsPath+"/namespaces/")
	namespace, isList := strings.CutSuffix(namespace, "/pods")
	if !found || !isList {
		return nil, fmt.Errorf("there is only %s/namespaces/NAMESPACE/pods", metricsPath)
	}
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		return nil, err
	}
	pods := &corev1.PodList{}
	if err := m.s.List(r.Context(), pods, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, err
	}
	m.most.Store(max(m.most.Load(), int64(len(pods.Items))))
	var working int64
	for i := range pods.Items {
		if cluster.Ready(&pods.Items[i]) {
			working++
		}
	}
	items := []any{}
	for i := range pods.Items {
		p, uses := &pods.Items[i], int64(0)
		if cluster.Ready(p) {
			uses = m.milli.Load() / working
		}
		items = append(items, map[string]any{
			"metadata":  map[string]any{"name": p.Name, "namespace": p.Namespace, "labels": p.Labels},
			"timestamp": metav1.Now(), "window": "1s",
			"containers": []any{map[string]any{
				"name":  p.Spec.Containers[0].Name,
				"usage": map[string]any{"cpu": resource.NewMilliQuantity(uses, resource.DecimalSI), "memory": "1Mi"},
			}},
		})
	}
	return map[string]any{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": map[string]any{}, "items": items}, nil
}
