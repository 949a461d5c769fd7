package source

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Cluster follows the Binaries of the API server and the label of this node
// that says its role. It costs the API server two watches; while the API is
// away the last answer holds.
type Cluster struct {
	node     string
	binaries cache.SharedIndexInformer
	self     cache.SharedIndexInformer
}

// Wanted is one Binary, and whether this node may exchange its task now.
type Wanted struct {
	Binary   *v1alpha1.Binary
	Admitted bool
}

// NewCluster follows what concerns one node.
func NewCluster(c client.WithWatch, node string) *Cluster {
	return &Cluster{
		node:     node,
		binaries: follow(c, &v1alpha1.BinaryList{}, &v1alpha1.Binary{}),
		self:     follow(c, &corev1.NodeList{}, &corev1.Node{}, client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("metadata.name", node)}),
	}
}

func follow(c client.WithWatch, list client.ObjectList, object runtime.Object, which ...client.ListOption) cache.SharedIndexInformer {
	with := func(o metav1.ListOptions) []client.ListOption {
		return append([]client.ListOption{&client.ListOptions{Raw: &o}}, which...)
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			all := list.DeepCopyObject().(client.ObjectList)
			return all, c.List(ctx, all, with(o)...)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.Watch(ctx, list.DeepCopyObject().(client.ObjectList), with(o)...)
		},
	}
	return cache.NewSharedIndexInformer(lw, object, 0, cache.Indexers{})
}

// Run follows until ctx ends. tell is called with all Binaries once they are
// known, and again with each change; moved when the node's role may have
// changed.
func (c *Cluster) Run(ctx context.Context, tell func([]Wanted), moved func()) error {
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	if _, err := c.binaries.AddEventHandler(handler(poke)); err != nil {
		return err
	}
	if _, err := c.self.AddEventHandler(handler(moved)); err != nil {
		return err
	}
	var both sync.WaitGroup
	both.Go(func() { c.binaries.RunWithContext(ctx) })
	both.Go(func() { c.self.RunWithContext(ctx) })
	defer both.Wait()
	if !cache.WaitForCacheSync(ctx.Done(), c.binaries.HasSynced) {
		return nil
	}
	for {
		tell(c.wanted())
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func handler(f func()) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { f() }, UpdateFunc: func(any, any) { f() }, DeleteFunc: func(any) { f() },
	}
}

func (c *Cluster) wanted() []Wanted {
	var all []Wanted
	for _, b := range c.Binaries() {
		if b.DeletionTimestamp != nil {
			continue
		}
		all = append(all, Wanted{
			Binary:   b,
			Admitted: b.Status.ObservedGeneration == b.Generation && slices.Contains(b.Status.Admitted, c.node),
		})
	}
	return all
}

// Binaries returns those that the API server has, by name. They are shared and
// must not be changed.
func (c *Cluster) Binaries() []*v1alpha1.Binary {
	var all []*v1alpha1.Binary
	for _, o := range c.binaries.GetStore().List() {
		if b, ok := o.(*v1alpha1.Binary); ok {
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b *v1alpha1.Binary) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Binary returns one.
func (c *Cluster) Binary(name string) (*v1alpha1.Binary, bool) {
	o, ok, err := c.binaries.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	b, ok := o.(*v1alpha1.Binary)
	return b, ok
}

// Role is the node's label, or private without one; false while there is no
// such node.
func (c *Cluster) Role() (string, bool) {
	n := c.Node()
	if n == nil {
		return "", false
	}
	return cmp.Or(n.Labels[v1alpha1.LabelRole], v1alpha1.RolePrivate), true
}

// Node is this node's object, or nil. It must not be changed.
func (c *Cluster) Node() *corev1.Node {
	o, ok, err := c.self.GetStore().GetByKey(c.node)
	if err != nil || !ok {
		return nil
	}
	n, _ := o.(*corev1.Node)
	return n
}

// Synced tells whether Binaries and node were listed once.
func (c *Cluster) Synced() error {
	if !c.binaries.HasSynced() || !c.self.HasSynced() {
		return errors.New("the Binaries were not yet listed")
	}
	return nil
}
