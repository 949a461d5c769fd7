package restart

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// NewClient makes a client that knows the kinds this package deals with and
// nothing more. It asks the API server for no discovery: the resources are
// known, so a new agent costs it no request, and starts while it is away.
func NewClient(config *rest.Config, log *slog.Logger) (client.WithWatch, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return evictOnce{next} })
	c, err := client.NewWithWatch(config, client.Options{
		Scheme: scheme, Mapper: newMapper(), FieldOwner: "nodeagent",
		// Without one it takes controller-runtime's global, which complains.
		Log: logr.FromSlogHandler(log.Handler()),
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make a client for %s: %w", config.Host, err)
	}
	return c, nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, coordinationv1.AddToScheme, discoveryv1.AddToScheme, policyv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("cannot make a scheme: %w", err)
		}
	}
	return scheme, nil
}

func newMapper() meta.RESTMapper {
	core, apps, own := corev1.SchemeGroupVersion, appsv1.SchemeGroupVersion, v1alpha1.GroupVersion()
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{KindPod, KindReplicationController, "Event", "PersistentVolumeClaim", "ResourceQuota", "Service"} {
		mapper.Add(core.WithKind(kind), meta.RESTScopeNamespace)
	}
	for _, kind := range []string{KindDeployment, KindReplicaSet, KindStatefulSet, KindDaemonSet} {
		mapper.Add(apps.WithKind(kind), meta.RESTScopeNamespace)
	}
	mapper.Add(core.WithKind("Namespace"), meta.RESTScopeRoot)
	mapper.Add(core.WithKind("Node"), meta.RESTScopeRoot)
	mapper.Add(policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), meta.RESTScopeNamespace)
	mapper.Add(coordinationv1.SchemeGroupVersion.WithKind("Lease"), meta.RESTScopeNamespace)
	mapper.Add(batchv1.SchemeGroupVersion.WithKind(KindJob), meta.RESTScopeNamespace)
	mapper.Add(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), meta.RESTScopeNamespace)
	for _, k := range OtherKinds() {
		for _, version := range k.Versions {
			mapper.Add(schema.GroupVersionKind{Group: k.Group, Version: version, Kind: k.Kind}, meta.RESTScopeNamespace)
		}
	}
	mapper.Add(own.WithKind("Restart"), meta.RESTScopeNamespace)
	return mapper
}

// evictOnce lets the refusal of an eviction through. The API server says 429
// with Retry-After when a PodDisruptionBudget forbids it, and client-go would
// repeat the request by itself, ten seconds apart, and in the end lose the
// server's sentence. The controller asks again in its own time.
type evictOnce struct {
	next http.RoundTripper
}

func (e evictOnce) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := e.next.RoundTrip(r)
	if err == nil && strings.HasSuffix(r.URL.Path, "/eviction") {
		response.Header.Del("Retry-After")
	}
	return response, err
}
