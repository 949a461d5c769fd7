package restart

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Layers tells what the containers of a pod on this node have written, in
// allocated bytes. It is unknown once the last of their layers is gone.
type Layers interface {
	PodBytes(uid string) (bytes int64, known bool)
}

// looker reads the world around one Restart. It remembers between two looks
// only what can no longer be read: how much a pod had written before it went.
type looker struct {
	client  client.Reader
	options Options
	layers  Layers // nil: nothing is known of any layer
	written map[string]Written
	until   time.Time         // the deadline of the Restart, once it was found taken up
	slots   *slots            // nil: nothing bounds how many restarts run
	last    *v1alpha1.Restart // as it was last read; nil: it was not
	kept    time.Time         // when the slot was last told to be alive
}

// mayGiveWay tells whether others may go before this Restart: nothing of it was
// begun, or its time is over.
func (l *looker) mayGiveWay() bool {
	return l.until.IsZero() || !l.options.Now().Before(l.until)
}

func newLooker(c client.Reader, o Options, layers Layers) *looker {
	return &looker{client: c, options: o, layers: layers, written: map[string]Written{}}
}

// look reads the Restart and what its next step depends on. It is nil when
// there is no such Restart any more.
func (l *looker) look(ctx context.Context, key client.ObjectKey) (*World, error) {
	var r v1alpha1.Restart
	if err := l.client.Get(ctx, key, &r); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("cannot read Restart %s: %w", key, err)
	}
	w := &World{Now: l.options.Now(), Node: l.options.Node, Restart: &r, ApprovalTimeout: l.options.ApprovalTimeout}
	if !mine(&r, l.options.Node) {
		return w, nil
	}
	if fresh(&r) || queued(&r) {
		if goOn, err := l.gate(ctx, w); err != nil || !goOn {
			return w, err
		}
	}
	if !fresh(&r) && r.Status.Started != nil {
		l.until = r.Status.Started.Add(deadline(&r))
	}
	if err := l.around(ctx, w); err != nil {
		return nil, err
	}
	l.weigh(w)
	return w, nil
}

// gate reads what a Restart that was not begun depends on besides its
// workload. It is false where it has to wait in any case.
func (l *looker) gate(ctx context.Context, w *World) (goOn bool, err error) {
	if unapproved(w.Restart) {
		return false, nil
	}
	if l.slots == nil {
		return true, nil
	}
	if w.Ledger, err = l.slots.read(ctx); err != nil {
		return false, err
	}
	w.Waits, w.Again = waits(w.Restart, w.Ledger, l.options)
	return fresh(w.Restart) || w.Waits == "", nil
}

// around reads what the next step of an active Restart depends on.
func (l *looker) around(ctx context.Context, w *World) error {
	r := w.Restart
	if err := l.target(ctx, w); err != nil {
		return err
	}
	if w.Target != nil {
		if err := l.pods(ctx, w); err != nil {
			return err
		}
	}
	w.Fence = l.fence(w)
	if fresh(r) || queued(r) || r.Status.Phase == v1alpha1.PhaseRunning && w.overdue() && w.method() == v1alpha1.MethodTemplate {
		if err := l.choices(ctx, w); err != nil {
			return err
		}
	}
	if fresh(r) || queued(r) {
		if err := l.room(ctx, w); err != nil {
			return err
		}
	}
	if m := w.method(); m == v1alpha1.MethodRelease || m == v1alpha1.MethodCopy {
		if err := l.traffic(ctx, w); err != nil {
			return err
		}
	}
	switch r.Status.Phase {
	case v1alpha1.PhaseRunning, v1alpha1.PhaseVerifying, v1alpha1.PhaseRollingBack:
		return nil
	}
	if w.Target != nil {
		return l.claims(ctx, w)
	}
	return nil
}

// target stays nil when it is not there, or when its kind is none of ours.
func (l *looker) target(ctx context.Context, w *World) error {
	r := w.Restart
	t := newTarget(r.Spec.Target)
	if t == nil {
		return nil
	}
	err := l.client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: r.Spec.Target.Name}, t.object())
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsForbidden(err) && t.Other != nil:
		return nil // Next says that there is none it can see
	case err != nil:
		return fmt.Errorf("cannot read %s in %s: %w", describe(r.Spec.Target), r.Namespace, err)
	}
	w.Target = t
	return nil
}

// fence is about what is never restarted.
func (l *looker) fence(w *World) string {
	if l.options.excluded(w.Restart.Namespace) {
		return fmt.Sprintf("Nothing is restarted: namespace %s is excluded.", w.Restart.Namespace)
	}
	for i := range w.Pods {
		if p := &w.Pods[i]; l.options.AgentPod == (types.NamespacedName{Namespace: p.Namespace, Name: p.Name}) {
			return "Nothing is restarted: this is the agent itself."
		}
	}
	return ""
}

// pods reads the target's pods: those its selector finds and that it, or a
// ReplicaSet of it, controls.
func (l *looker) pods(ctx context.Context, w *World) error {
	if w.Target.Pod != nil {
		w.Pods = []corev1.Pod{*w.Target.Pod}
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(w.Target.selector())
	if err != nil {
		return fmt.Errorf("cannot read the selector of %s: %w", describe(w.Restart.Spec.Target), err)
	}
	within := []client.ListOption{client.InNamespace(w.Restart.Namespace), client.MatchingLabelsSelector{Selector: selector}}
	owners, err := l.owners(ctx, w, within)
	if err != nil {
		return err
	}
	if w.Target.DaemonSet != nil && w.Restart.Spec.Scope == v1alpha1.ScopePod {
		within = append(within, client.MatchingFields{"spec.nodeName": w.Restart.Spec.Node})
	}
	w.Pods, err = l.listPods(ctx, within, func(p *corev1.Pod) bool {
		ref := metav1.GetControllerOfNoCopy(p)
		return ref != nil && owners[ref.UID]
	})
	if err != nil {
		return fmt.Errorf("cannot list the pods of %s: %w", describe(w.Restart.Spec.Target), err)
	}
	return nil
}

// podPage is how many whole pods are held at once: a workload may have
// thousands, each of some 20 KiB, and the agent has little memory.
const podPage = 200

func (l *looker) listPods(ctx context.Context, within []client.ListOption, keep func(*corev1.Pod) bool) ([]corev1.Pod, error) {
	var kept []corev1.Pod
	for token := ""; ; {
		var page corev1.PodList
		options := append(slices.Clone(within), client.Limit(podPage), client.Continue(token))
		if err := l.client.List(ctx, &page, options...); err != nil {
			return nil, err
		}
		for i := range page.Items {
			if p := &page.Items[i]; keep(p) {
				kept = append(kept, essential(p))
			}
		}
		if token = page.Continue; token == "" {
			return kept, nil
		}
	}
}

// essential is what a step is decided from, without most of a pod.
func essential(p *corev1.Pod) corev1.Pod {
	slim := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion,
			DeletionTimestamp: p.DeletionTimestamp, Labels: p.Labels, Annotations: map[string]string{},
		},
		Spec: corev1.PodSpec{NodeName: p.Spec.NodeName},
		Status: corev1.PodStatus{
			Phase: p.Status.Phase, Conditions: p.Status.Conditions,
			InitContainerStatuses: p.Status.InitContainerStatuses, ContainerStatuses: p.Status.ContainerStatuses,
		},
	}
	for _, key := range []string{restartedAt, v1alpha1.AnnotationLabelsTaken, v1alpha1.AnnotationCopied} {
		if value, ok := p.Annotations[key]; ok {
			slim.Annotations[key] = value
		}
	}
	return slim
}

// owners are the target and what stands between it and its pods.
func (l *looker) owners(ctx context.Context, w *World, within []client.ListOption) (map[types.UID]bool, error) {
	owners := map[types.UID]bool{w.Target.uid(): true}
	through := ""
	switch {
	case w.Target.Deployment != nil:
		through = KindReplicaSet
	case w.Target.Other != nil:
		through = w.Target.Other.kind.Through
	}
	switch through {
	case KindReplicaSet:
		var err error
		if w.ReplicaSets, err = l.replicaSets(ctx, w.Target.uid(), within); err != nil {
			return nil, err
		}
		for i := range w.ReplicaSets {
			owners[w.ReplicaSets[i].UID] = true
		}
	case KindReplicationController:
		var list corev1.ReplicationControllerList
		if err := l.client.List(ctx, &list, within...); err != nil {
			return nil, fmt.Errorf("cannot list ReplicationControllers: %w", err)
		}
		for i := range list.Items {
			if ref := metav1.GetControllerOfNoCopy(&list.Items[i]); ref != nil && ref.UID == w.Target.uid() {
				owners[list.Items[i].UID] = true
			}
		}
	}
	return owners, nil
}

// traffic reads the pods that this restart took from the target or made, the
// Services, and what those send to that select such a pod.
func (l *looker) traffic(ctx context.Context, w *World) error {
	in := client.InNamespace(w.Restart.Namespace)
	inHand := []client.ListOption{in, client.MatchingLabels{v1alpha1.LabelRestart: string(w.Restart.UID)}}
	pods, err := l.listPods(ctx, inHand, func(p *corev1.Pod) bool { return w.pod(string(p.UID)) == nil })
	if err != nil {
		return fmt.Errorf("cannot list the pods of Restart %s: %w", w.Restart.Name, err)
	}
	w.Pods = append(w.Pods, pods...)
	var services corev1.ServiceList
	if err := l.client.List(ctx, &services, in); err != nil {
		return fmt.Errorf("cannot list Services in %s: %w", w.Restart.Namespace, err)
	}
	w.Services = services.Items
	names := map[string]bool{}
	for i := range w.Pods {
		if p := &w.Pods[i]; w.handled(p) {
			for _, s := range selecting(w.Services, allLabels(p)) {
				names[s.Name] = true
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return l.slices(ctx, w, slices.Sorted(maps.Keys(names)))
}

func (l *looker) slices(ctx context.Context, w *World, services []string) error {
	of, err := labels.NewRequirement(discoveryv1.LabelServiceName, selection.In, services)
	if err != nil {
		return fmt.Errorf("cannot select the EndpointSlices of %v: %w", services, err)
	}
	var list discoveryv1.EndpointSliceList
	if err := l.client.List(ctx, &list, client.InNamespace(w.Restart.Namespace),
		client.MatchingLabelsSelector{Selector: labels.NewSelector().Add(*of)}); err != nil {
		return fmt.Errorf("cannot list EndpointSlices in %s: %w", w.Restart.Namespace, err)
	}
	w.Slices = list.Items
	return nil
}

func (l *looker) replicaSets(ctx context.Context, deployment types.UID, within []client.ListOption) ([]appsv1.ReplicaSet, error) {
	var list appsv1.ReplicaSetList
	if err := l.client.List(ctx, &list, within...); err != nil {
		return nil, fmt.Errorf("cannot list ReplicaSets: %w", err)
	}
	var sets []appsv1.ReplicaSet
	for i := range list.Items {
		if ref := metav1.GetControllerOfNoCopy(&list.Items[i]); ref != nil && ref.UID == deployment {
			sets = append(sets, list.Items[i])
		}
	}
	return sets, nil
}

// claims reads the volumes that all of the target's pods would share: their
// access modes decide whether an old and a new pod can run at once.
func (l *looker) claims(ctx context.Context, w *World) error {
	w.Claims = map[string]corev1.PersistentVolumeClaim{}
	template := w.Target.template()
	for _, volume := range template.Spec.Volumes {
		if volume.PersistentVolumeClaim == nil {
			continue
		}
		name := volume.PersistentVolumeClaim.ClaimName
		var claim corev1.PersistentVolumeClaim
		err := l.client.Get(ctx, client.ObjectKey{Namespace: w.Restart.Namespace, Name: name}, &claim)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot read PersistentVolumeClaim %s/%s: %w", w.Restart.Namespace, name, err)
		}
		w.Claims[name] = claim
	}
	return nil
}

// weigh asks what the pods on this node have written. What was last known of
// a pod before it began to go is what its going frees; while it goes, figures
// shrink under the measurer's eyes and only a larger one counts.
func (l *looker) weigh(w *World) {
	for _, old := range w.Restart.Status.OldPods {
		if _, seen := l.written[old.UID]; !seen && old.Bytes > 0 {
			l.written[old.UID] = Written{Bytes: old.Bytes}
		}
	}
	present := map[string]bool{} // uid → going
	for i := range w.Pods {
		if w.Pods[i].Spec.NodeName == l.options.Node {
			present[string(w.Pods[i].UID)] = w.Pods[i].DeletionTimestamp != nil
		}
	}
	for uid := range present {
		if _, seen := l.written[uid]; !seen {
			l.written[uid] = Written{}
		}
	}
	w.Written = make(map[string]Written, len(l.written))
	for uid, last := range l.written {
		going, there := present[uid]
		l.written[uid] = l.weighOne(uid, last, going || !there)
		w.Written[uid] = l.written[uid]
	}
}

func (l *looker) weighOne(uid string, last Written, going bool) Written {
	if l.layers == nil {
		return last
	}
	bytes, known := l.layers.PodBytes(uid)
	last.Held = known && bytes > 0
	if known && (!going || bytes > last.Bytes) {
		last.Bytes = bytes
	}
	return last
}
