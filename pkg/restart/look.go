package restart

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	until   time.Time // the deadline of the Restart, once it was found taken up
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
	w := &World{Now: l.options.Now(), Node: l.options.Node, Restart: &r}
	if !active(&r) {
		return w, nil
	}
	if !fresh(&r) && r.Status.Started != nil {
		l.until = r.Status.Started.Add(deadline(&r))
	}
	target, err := l.target(ctx, &r)
	if err != nil || target == nil {
		return w, err
	}
	w.Target = target
	if err := l.pods(ctx, w); err != nil {
		return nil, err
	}
	if r.Status.Phase != v1alpha1.PhaseRunning && r.Status.Phase != v1alpha1.PhaseVerifying {
		if err := l.claims(ctx, w); err != nil {
			return nil, err
		}
	}
	l.weigh(w)
	return w, nil
}

// target is nil when it is not there, or when its kind is none of ours.
func (l *looker) target(ctx context.Context, r *v1alpha1.Restart) (*Target, error) {
	if r.Spec.Target.APIVersion != appsv1.SchemeGroupVersion.String() {
		return nil, nil
	}
	var t Target
	switch r.Spec.Target.Kind {
	case KindDeployment:
		t.Deployment = &appsv1.Deployment{}
	case KindStatefulSet:
		t.StatefulSet = &appsv1.StatefulSet{}
	case KindDaemonSet:
		t.DaemonSet = &appsv1.DaemonSet{}
	default:
		return nil, nil
	}
	err := l.client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: r.Spec.Target.Name}, t.object())
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s in %s: %w", describe(r.Spec.Target), r.Namespace, err)
	}
	return &t, nil
}

// pods reads the target's pods: those its selector finds and that it, or a
// ReplicaSet of it, controls.
func (l *looker) pods(ctx context.Context, w *World) error {
	selector, err := metav1.LabelSelectorAsSelector(w.Target.selector())
	if err != nil {
		return fmt.Errorf("cannot read the selector of %s: %w", describe(w.Restart.Spec.Target), err)
	}
	within := []client.ListOption{client.InNamespace(w.Restart.Namespace), client.MatchingLabelsSelector{Selector: selector}}
	owners := map[types.UID]bool{w.Target.uid(): true}
	if w.Target.Deployment != nil {
		if w.ReplicaSets, err = l.replicaSets(ctx, w.Target.uid(), within); err != nil {
			return err
		}
		for i := range w.ReplicaSets {
			owners[w.ReplicaSets[i].UID] = true
		}
	}
	if w.Target.DaemonSet != nil {
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
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, DeletionTimestamp: p.DeletionTimestamp},
		Spec:       corev1.PodSpec{NodeName: p.Spec.NodeName},
		Status: corev1.PodStatus{
			Phase: p.Status.Phase, Conditions: p.Status.Conditions,
			InitContainerStatuses: p.Status.InitContainerStatuses, ContainerStatuses: p.Status.ContainerStatuses,
		},
	}
	if at, ok := p.Annotations[restartedAt]; ok {
		slim.Annotations = map[string]string{restartedAt: at}
	}
	return slim
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
