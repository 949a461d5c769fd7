package restart

import (
	"encoding/json"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// selecting are the Services that select a pod with these labels.
func selecting(services []corev1.Service, podLabels map[string]string) []corev1.Service {
	var found []corev1.Service
	for i := range services {
		selector := services[i].Spec.Selector
		if len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(podLabels)) {
			found = append(found, services[i])
		}
	}
	return found
}

// serviceLabels are the labels by which Services select a pod now.
func serviceLabels(services []corev1.Service, podLabels map[string]string) map[string]string {
	found := map[string]string{}
	for _, s := range selecting(services, podLabels) {
		for key := range s.Spec.Selector {
			found[key] = podLabels[key]
		}
	}
	return found
}

// taken are the labels that a restart took off a pod.
func taken(p *corev1.Pod) map[string]string {
	found := map[string]string{}
	if text := p.Annotations[v1alpha1.AnnotationLabelsTaken]; text != "" {
		_ = json.Unmarshal([]byte(text), &found) // what cannot be read was not written by a restart
	}
	return found
}

// allLabels are a pod's labels with those that were taken off.
func allLabels(p *corev1.Pod) map[string]string {
	all := taken(p)
	maps.Copy(all, p.Labels)
	return all
}

// named tells whether an EndpointSlice names this pod, in whatever condition.
func named(slices []discoveryv1.EndpointSlice, uid types.UID) bool {
	for i := range slices {
		for j := range slices[i].Endpoints {
			if ref := slices[i].Endpoints[j].TargetRef; ref != nil && ref.UID == uid {
				return true
			}
		}
	}
	return false
}

// serves tells whether each of these Services sends to this pod.
func serves(services []corev1.Service, all []discoveryv1.EndpointSlice, uid types.UID) bool {
	for _, s := range services {
		of := slices.DeleteFunc(slices.Clone(all), func(e discoveryv1.EndpointSlice) bool {
			return e.Labels[discoveryv1.LabelServiceName] != s.Name
		})
		if !readyEndpoint(of, uid) {
			return false
		}
	}
	return true
}

func readyEndpoint(slices []discoveryv1.EndpointSlice, uid types.UID) bool {
	for i := range slices {
		for j := range slices[i].Endpoints {
			e := &slices[i].Endpoints[j]
			if e.TargetRef != nil && e.TargetRef.UID == uid && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				return true
			}
		}
	}
	return false
}
