package reload

import (
	"context"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// workload is one that asks, without the most of it.
type workload struct {
	target    v1alpha1.TargetReference
	namespace string
	uid       types.UID
	refs      []reference
}

// object names a ConfigMap or Secret.
type object struct {
	kind      kind
	namespace string
	name      string
}

// cluster is what the watches told: the workloads that ask, and the versions of
// all ConfigMaps and Secrets.
type cluster struct {
	mu        sync.Mutex
	workloads map[types.UID]workload
	versions  map[object]string
	changed   chan struct{} // holds one when something changed

	synced []cache.InformerSynced
}

func newCluster() *cluster {
	return &cluster{workloads: map[types.UID]workload{}, versions: map[object]string{}, changed: make(chan struct{}, 1)}
}

// ready tells whether all were listed once: before that something would seem
// to be gone.
func (c *cluster) ready() bool {
	for _, synced := range c.synced {
		if !synced() {
			return false
		}
	}
	return true
}

// list gives the workloads that ask.
func (c *cluster) list() []workload {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]workload, 0, len(c.workloads))
	for _, w := range c.workloads {
		all = append(all, w)
	}
	return all
}

// version is empty where there is no such object.
func (c *cluster) version(o object) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.versions[o]
}

func (c *cluster) note(change func()) {
	c.mu.Lock()
	change()
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *cluster) noteWorkload(o any, there bool) {
	target, template, meta := read(o)
	if meta == nil {
		return
	}
	refs := wantedBy(meta.GetAnnotations()[Annotation], template)
	c.note(func() {
		delete(c.workloads, meta.GetUID())
		if there && len(refs) > 0 {
			c.workloads[meta.GetUID()] = workload{target, meta.GetNamespace(), meta.GetUID(), refs}
		}
	})
}

// read is nil for what is no workload.
func read(o any) (v1alpha1.TargetReference, corev1.PodTemplateSpec, metav1.Object) {
	target := func(kind, name string) v1alpha1.TargetReference {
		return v1alpha1.TargetReference{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: kind, Name: name}
	}
	switch w := o.(type) {
	case *appsv1.Deployment:
		return target("Deployment", w.Name), w.Spec.Template, w
	case *appsv1.StatefulSet:
		return target("StatefulSet", w.Name), w.Spec.Template, w
	case *appsv1.DaemonSet:
		return target("DaemonSet", w.Name), w.Spec.Template, w
	}
	return v1alpha1.TargetReference{}, corev1.PodTemplateSpec{}, nil
}

func (c *cluster) noteVersion(k kind, o any, there bool) {
	m, ok := o.(metav1.Object)
	if !ok {
		return
	}
	key := object{k, m.GetNamespace(), m.GetName()}
	c.note(func() {
		delete(c.versions, key)
		if there {
			c.versions[key] = m.GetResourceVersion()
		}
	})
}

// follow watches all of it until ctx ends.
func (c *cluster) follow(ctx context.Context, from client.WithWatch) (wait func()) {
	var done sync.WaitGroup
	start := func(informer cache.Controller) {
		c.synced = append(c.synced, informer.HasSynced)
		done.Go(func() { informer.RunWithContext(ctx) })
	}
	for _, w := range []struct {
		list client.ObjectList
		one  client.Object
	}{
		{&appsv1.DeploymentList{}, &appsv1.Deployment{}},
		{&appsv1.StatefulSetList{}, &appsv1.StatefulSet{}},
		{&appsv1.DaemonSetList{}, &appsv1.DaemonSet{}},
	} {
		start(informer(from, w.list, w.one, onlyWhatAsks, c.noteWorkload))
	}
	// Neither the CA that each namespace has nor Helm's releases, which are many
	// and large, are used by pods.
	start(informer(from, metadata("ConfigMapList"), &metav1.PartialObjectMetadata{}, onlyVersion,
		func(o any, there bool) { c.noteVersion(configMap, o, there) },
		fields.OneTermNotEqualSelector("metadata.name", "kube-root-ca.crt")))
	start(informer(from, metadata("SecretList"), &metav1.PartialObjectMetadata{}, onlyVersion,
		func(o any, there bool) { c.noteVersion(secret, o, there) },
		fields.OneTermNotEqualSelector("type", "helm.sh/release.v1")))
	return done.Wait
}

func metadata(kind string) *metav1.PartialObjectMetadataList {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return list
}

func informer(from client.WithWatch, list client.ObjectList, one client.Object, slim cache.TransformFunc, note func(any, bool), not ...fields.Selector) cache.Controller {
	options := func(o metav1.ListOptions) *client.ListOptions {
		if len(not) > 0 {
			o.FieldSelector = not[0].String()
		}
		return &client.ListOptions{Raw: &o, FieldSelector: first(not)}
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			into := list.DeepCopyObject().(client.ObjectList)
			return into, from.List(ctx, into, options(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return from.Watch(ctx, list.DeepCopyObject().(client.ObjectList), options(o))
		},
	}
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw, ObjectType: one, Transform: slim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { note(o, true) },
			UpdateFunc: func(_, o any) { note(o, true) },
			DeleteFunc: func(o any) {
				if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = gone.Obj
				}
				note(o, false)
			},
		},
	})
	return controller
}

func first(selectors []fields.Selector) fields.Selector {
	if len(selectors) == 0 {
		return nil
	}
	return selectors[0]
}

// onlyWhatAsks drops the most of a workload, and nearly all of one that does
// not ask.
func onlyWhatAsks(o any) (any, error) {
	_, template, meta := read(o)
	if meta == nil {
		return o, fmt.Errorf("cannot watch a %T", o)
	}
	slim := metav1.ObjectMeta{
		Namespace: meta.GetNamespace(), Name: meta.GetName(), UID: meta.GetUID(), ResourceVersion: meta.GetResourceVersion(),
	}
	if value, ok := meta.GetAnnotations()[Annotation]; ok {
		slim.Annotations = map[string]string{Annotation: value}
	} else {
		template = corev1.PodTemplateSpec{}
	}
	switch o.(type) {
	case *appsv1.Deployment:
		return &appsv1.Deployment{ObjectMeta: slim, Spec: appsv1.DeploymentSpec{Template: template}}, nil
	case *appsv1.StatefulSet:
		return &appsv1.StatefulSet{ObjectMeta: slim, Spec: appsv1.StatefulSetSpec{Template: template}}, nil
	}
	return &appsv1.DaemonSet{ObjectMeta: slim, Spec: appsv1.DaemonSetSpec{Template: template}}, nil
}

func onlyVersion(o any) (any, error) {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, fmt.Errorf("cannot watch a %T", o)
	}
	return &metav1.PartialObjectMetadata{TypeMeta: m.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
	}}, nil
}
