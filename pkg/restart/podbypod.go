package restart

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// A restart pod by pod takes one old pod after the other, in the order they
// were written down when it began, and goes on only when as many pods are
// Ready as before. What is done to one pod depends on the method:
//
//	Evict    evict, wait for its next
//	Release  release, wait for its next, withdraw, wait for the endpoints, evict
//	Copy     copy, wait until that serves, withdraw, wait for the endpoints, evict

// beginPods makes the first of these writes, unless it was made already.
func beginPods(w World) Step {
	if w.touched() {
		return report(v1alpha1.PhaseRunning, w.rollout().sentence)
	}
	if w.overdue() {
		return stalled(w)
	}
	if why := objection(Preflight(w), w.Restart.Spec.AllowDowntime); why != "" {
		return end(v1alpha1.PhaseRefused, why)
	}
	return nextPod(w)
}

// followPods goes on until all old pods are gone or going and their next are
// Ready.
func followPods(w World) Step {
	if w.rollout().complete {
		return report(v1alpha1.PhaseVerifying, "The new pods are Ready; the old ones are on their way out.")
	}
	return nextPod(w)
}

// nextPod does the next thing to the pod whose turn it is.
func nextPod(w World) Step {
	p := w.inHand()
	if p == nil {
		return waitOn(w, w.rollout().sentence)
	}
	switch w.method() {
	case v1alpha1.MethodRelease:
		return releasePod(w, p)
	case v1alpha1.MethodCopy:
		return replaceByCopy(w, p)
	}
	return evictPod(w, p)
}

// inHand is the first old pod that is not on its way out.
func (w World) inHand() *corev1.Pod {
	for _, old := range w.Restart.Status.OldPods {
		if p := w.pod(old.UID); p != nil && p.DeletionTimestamp == nil {
			return p
		}
	}
	return nil
}

func (w World) pod(uid string) *corev1.Pod {
	for i := range w.Pods {
		if string(w.Pods[i].UID) == uid {
			return &w.Pods[i]
		}
	}
	return nil
}

// touched tells whether a write was made about any old pod.
func (w World) touched() bool {
	if w.copy() != nil {
		return true
	}
	for _, old := range w.Restart.Status.OldPods {
		if p := w.pod(old.UID); p == nil || p.DeletionTimestamp != nil || w.handled(p) {
			return true
		}
	}
	return false
}

func evictPod(w World, p *corev1.Pod) Step {
	switch {
	case w.overdue():
		return stalled(w)
	case !w.whole(p):
		return waitOn(w, w.rollout().sentence)
	}
	return Step{Action: Evict, Pod: podRecord(p)}
}

// rolloutPods is complete when every old pod is gone or going and as many
// pods are Ready as before.
func rolloutPods(w World) rollout {
	if w.method() == v1alpha1.MethodCopy {
		return rolloutCopy(w)
	}
	all, left := len(w.Restart.Status.OldPods), 0
	for _, old := range w.Restart.Status.OldPods {
		if p := w.pod(old.UID); p != nil && p.DeletionTimestamp == nil {
			left++
		}
	}
	r := rollout{complete: left == 0 && w.whole(nil)}
	switch said := fmt.Sprintf("%d of %s replaced", all-left, pods(all)); {
	case r.complete:
		r.sentence = said + "; the new ones are Ready."
	case w.unready() != nil:
		r.sentence = fmt.Sprintf("%s; the new pod %s is not Ready yet.", said, w.unready().Name)
	case !w.touched():
		r.sentence = said + "."
	default:
		r.sentence = said + "; the next new one is not there yet."
	}
	return r
}

// unready is a new pod that is not Ready.
func (w World) unready() *corev1.Pod {
	for _, p := range w.newPods() {
		if !ready(&p) {
			return &p
		}
	}
	return nil
}

// sortOldPods puts old pods into the order they are taken in: of a
// StatefulSet the highest ordinal first, as its controller does; else the pod
// that gave the reason first.
func sortOldPods(w World, old []v1alpha1.PodReference) {
	reason := func(r v1alpha1.PodReference) int {
		if r.UID == w.Restart.Spec.PodUID {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(old, func(a, b v1alpha1.PodReference) int {
		if w.Target.StatefulSet != nil {
			return cmp.Compare(ordinal(b.Name), ordinal(a.Name))
		}
		return cmp.Compare(reason(a), reason(b))
	})
}

// ordinal is the number at the end of a StatefulSet's pod's name.
func ordinal(name string) int {
	n, err := strconv.Atoi(name[strings.LastIndex(name, "-")+1:])
	if err != nil {
		return -1
	}
	return n
}
