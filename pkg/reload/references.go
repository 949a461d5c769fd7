package reload

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Annotation is what a workload asks by: "true" for all that its pods use,
// configmap or secret for all of one kind, or a list such as
// configmap/app,secret/db, which may name what its pods do not use too.
const Annotation = "nodeagent.dev/reload"

// kind is of what is referred to.
type kind string

const (
	configMap kind = "configmap"
	secret    kind = "secret"
)

// reference is one ConfigMap or Secret that a pod template names.
type reference struct {
	Kind kind
	Name string
	// Optional says that pods start without it; then its coming is a change.
	Optional bool
}

func (r reference) String() string { return string(r.Kind) + "/" + r.Name }

// wantedBy are the references that a workload is restarted for.
func wantedBy(annotation string, template corev1.PodTemplateSpec) []reference {
	annotation = strings.TrimSpace(annotation)
	switch annotation {
	case "", "false":
		return nil
	case "true":
		return references(template.Spec)
	}
	chosen, used := map[string]reference{}, references(template.Spec)
	for part := range strings.SplitSeq(annotation, ",") {
		part = strings.TrimSpace(part)
		of, name, named := strings.Cut(part, "/")
		if k := kind(of); named && name != "" && (k == configMap || k == secret) {
			chosen[part] = reference{k, name, true} // pods that do not use it run without it
		}
		for _, r := range used {
			if part == r.String() || part == string(r.Kind) {
				chosen[r.String()] = r
			}
		}
	}
	return sorted(chosen)
}

// references are all ConfigMaps and Secrets that pods of a template use, each
// once, in order of their names. One that is needed anywhere is not optional.
func references(spec corev1.PodSpec) []reference {
	found := map[string]reference{}
	add := func(k kind, name string, optional *bool) {
		if name == "" {
			return
		}
		r := reference{k, name, optional != nil && *optional}
		if other, ok := found[r.String()]; ok {
			r.Optional = r.Optional && other.Optional
		}
		found[r.String()] = r
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			ofContainer(&containers[i], add)
		}
	}
	for i := range spec.Volumes {
		ofVolume(&spec.Volumes[i], add)
	}
	for _, s := range spec.ImagePullSecrets {
		add(secret, s.Name, nil)
	}
	return sorted(found)
}

func sorted(found map[string]reference) []reference {
	all := make([]reference, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		all = append(all, found[name])
	}
	return all
}

func ofContainer(c *corev1.Container, add func(kind, string, *bool)) {
	for _, from := range c.EnvFrom {
		if r := from.ConfigMapRef; r != nil {
			add(configMap, r.Name, r.Optional)
		}
		if r := from.SecretRef; r != nil {
			add(secret, r.Name, r.Optional)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
			add(configMap, r.Name, r.Optional)
		}
		if r := e.ValueFrom.SecretKeyRef; r != nil {
			add(secret, r.Name, r.Optional)
		}
	}
}

func ofVolume(v *corev1.Volume, add func(kind, string, *bool)) {
	if v.ConfigMap != nil {
		add(configMap, v.ConfigMap.Name, v.ConfigMap.Optional)
	}
	if v.Secret != nil {
		add(secret, v.Secret.SecretName, v.Secret.Optional)
	}
	if v.Projected == nil {
		return
	}
	for _, s := range v.Projected.Sources {
		if s.ConfigMap != nil {
			add(configMap, s.ConfigMap.Name, s.ConfigMap.Optional)
		}
		if s.Secret != nil {
			add(secret, s.Secret.Name, s.Secret.Optional)
		}
	}
}
