package restart

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// releasePod is the next thing to do to a pod that is taken from its
// controller: without a label that the controller selects by, the controller
// lets go of it and makes another, while it goes on serving. No replica count
// is touched.
func releasePod(w World, p *corev1.Pod) Step {
	switch {
	case !w.handled(p) && w.overdue():
		return stalled(w)
	case !w.whole(p):
		return waitOn(w, w.rollout().sentence)
	case !w.handled(p):
		return Step{Action: Release, Pod: podRecord(p)}
	}
	return drainPod(w, p)
}

// drainPod takes a pod out of its Services, waits until no endpoint names it,
// and evicts it. The pod's own grace period is kept.
func drainPod(w World, p *corev1.Pod) Step {
	switch {
	case w.overdue() && w.Trouble != "":
		return stalled(w)
	case len(serviceLabels(w.Services, p.Labels)) > 0:
		return Step{Action: Withdraw, Pod: podRecord(p)}
	case named(w.Slices, p.UID):
		return waitOn(w, fmt.Sprintf("Pod %s is on its way out of the endpoints.", p.Name))
	}
	return Step{Action: Evict, Pod: podRecord(p)}
}

// releaseKey is the label that is taken off a pod so that its controller lets
// go of it; empty if there is none. A label that no Service selects by is
// preferred: dips says that there is none, so the pod leaves the endpoints at
// once, before its next is Ready.
func releaseKey(w World, p *corev1.Pod) (key string, dips bool) {
	if w.Target.Deployment != nil {
		if _, ok := p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; !ok {
			return "", false
		}
		return appsv1.DefaultDeploymentUniqueLabelKey, false
	}
	candidates := selectorKeys(w.Target.selector(), p.Labels)
	used := serviceLabels(w.Services, p.Labels)
	for _, k := range candidates {
		if _, ok := used[k]; !ok {
			return k, false
		}
	}
	if len(candidates) == 0 {
		return "", false
	}
	return candidates[0], true
}

// selectorKeys are the labels without which a selector does not find a pod.
func selectorKeys(selector *metav1.LabelSelector, podLabels map[string]string) []string {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil
	}
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(podLabels)) {
		without := maps.Clone(podLabels)
		delete(without, key)
		if !parsed.Matches(labels.Set(without)) {
			keys = append(keys, key)
		}
	}
	return keys
}

// takeLabels is a merge patch that takes labels off a pod and writes them
// down on it, with the mark by which the restart finds it again.
func takeLabels(p *corev1.Pod, restartUID string, keys []string) ([]byte, error) {
	off, record := map[string]any{v1alpha1.LabelRestart: restartUID}, taken(p)
	for _, key := range keys {
		record[key] = p.Labels[key]
		off[key] = nil
	}
	text, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the labels of pod %s: %w", p.Name, err)
	}
	return podPatch(p, off, map[string]any{v1alpha1.AnnotationLabelsTaken: string(text)})
}

// giveLabels is a merge patch that undoes all of takeLabels.
func giveLabels(p *corev1.Pod) ([]byte, error) {
	back := map[string]any{v1alpha1.LabelRestart: nil}
	for key, value := range taken(p) {
		back[key] = value
	}
	return podPatch(p, back, map[string]any{v1alpha1.AnnotationLabelsTaken: nil})
}

// podPatch carries uid and resourceVersion, so the API server refuses it when
// the pod is no longer the one that was looked at.
func podPatch(p *corev1.Pod, podLabels, annotations map[string]any) ([]byte, error) {
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": p.UID, "resourceVersion": p.ResourceVersion, "labels": podLabels, "annotations": annotations,
	}})
	if err != nil {
		return nil, fmt.Errorf("cannot encode the patch of pod %s: %w", p.Name, err)
	}
	return raw, nil
}
