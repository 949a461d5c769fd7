package reload

import (
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func at(d time.Duration) time.Time {
	return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).Add(d)
}

func local(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

// everywhere names a ConfigMap or Secret in every place where a pod can.
func everywhere() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("envfrom")}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("envfrom"), Optional: new(true)}},
		}}},
		Containers: []corev1.Container{{Env: []corev1.EnvVar{
			{Name: "PLAIN", Value: "x"},
			{Name: "FIELD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{Key: "key", LocalObjectReference: local("env")}}},
			{Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "key", LocalObjectReference: local("env")}}},
			{Name: "C", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "key", LocalObjectReference: local("env"), Optional: new(true)}}},
		}}},
		Volumes: []corev1.Volume{
			{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("volume")}}},
			{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "volume"}}},
			{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("projected")}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: local("projected")}},
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}},
			}}}},
		},
		ImagePullSecrets: []corev1.LocalObjectReference{local("registry")},
	}}
}

func TestReferences(t *testing.T) {
	for _, tt := range []struct {
		annotation string
		want       []string
	}{
		{"true", []string{
			"configmap/env", "configmap/envfrom", "configmap/projected", "configmap/volume",
			"secret/env", "secret/envfrom", "secret/projected", "secret/registry", "secret/volume",
		}},
		{"", nil},
		{"false", nil},
		{"yes", nil},
		{"configmap/env", []string{"configmap/env"}},
		{"secret/env, configmap/volume, configmap/not-used, pod/x, secret/", []string{"configmap/not-used", "configmap/volume", "secret/env"}},
		{"configmap", []string{"configmap/env", "configmap/envfrom", "configmap/projected", "configmap/volume"}},
	} {
		var got []string
		for _, r := range wantedBy(tt.annotation, everywhere()) {
			got = append(got, r.String())
			if optional := r.String() == "secret/envfrom" || r.Name == "not-used"; r.Optional != optional {
				t.Errorf("%s: optional %v, want %v", r, r.Optional, optional)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: %v, want %v", tt.annotation, got, tt.want)
		}
	}
}

func TestFingerprint(t *testing.T) {
	data := func(pairs ...string) map[string][]byte {
		m := map[string][]byte{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = []byte(pairs[i+1])
		}
		return m
	}
	base := fingerprint("s", data("a", "1", "b", "2"))
	if base != fingerprint("s", data("b", "2", "a", "1")) {
		t.Error("the order of keys makes a difference")
	}
	for name, other := range map[string]string{
		"another value": fingerprint("s", data("a", "1", "b", "3")),
		"a key more":    fingerprint("s", data("a", "1", "b", "2", "c", "")),
		"moved bytes":   fingerprint("s", data("a", "1b", "", "2")),
		"other object":  fingerprint("t", data("a", "1", "b", "2")),
		"nothing":       absent,
	} {
		if other == base {
			t.Errorf("%s makes no difference", name)
		}
	}
}

func TestChanges(t *testing.T) {
	needed, optional := reference{Kind: configMap, Name: "app"}, reference{Kind: configMap, Name: "app", Optional: true}
	for _, tt := range []struct {
		name         string
		ref          reference
		applied, now prints
		changed      bool
		remembered   string
	}{
		{"never seen", needed, nil, prints{"configmap/app": "1"}, false, "1"},
		{"the same", needed, prints{"configmap/app": "1"}, prints{"configmap/app": "1"}, false, "1"},
		{"another", needed, prints{"configmap/app": "1"}, prints{"configmap/app": "2"}, true, "1"},
		{"gone", needed, prints{"configmap/app": "1"}, prints{"configmap/app": absent}, false, "1"},
		{"gone and back", needed, prints{"configmap/app": "1"}, prints{"configmap/app": "1"}, false, "1"},
		{"came, its pods waited", needed, prints{"configmap/app": absent}, prints{"configmap/app": "1"}, false, "1"},
		{"came, its pods ran without", optional, prints{"configmap/app": absent}, prints{"configmap/app": "1"}, true, absent},
		{"new in the template", needed, prints{"secret/db": "9"}, prints{"configmap/app": "1"}, false, "1"},
	} {
		changed, remembered := changes([]reference{tt.ref}, tt.applied, tt.now)
		if (len(changed) > 0) != tt.changed || !maps.Equal(remembered, prints{"configmap/app": tt.remembered}) {
			t.Errorf("%s: changed %v, remembered %v", tt.name, changed, remembered)
		}
	}
}

func TestDecide(t *testing.T) {
	refs := []reference{{Kind: configMap, Name: "app"}}
	one, two := prints{"configmap/app": "1"}, prints{"configmap/app": "2"}
	made := func(reason v1alpha1.Reason, phase v1alpha1.Phase, forData prints, started, finished time.Duration) *v1alpha1.Restart {
		r := &v1alpha1.Restart{ObjectMeta: metav1.ObjectMeta{Generation: 1, Annotations: map[string]string{AnnotationDigest: digest(refs, forData)}}}
		r.Spec.Reason, r.Status.Phase, r.Status.ObservedGeneration = reason, phase, 1
		r.Status.Started = new(metav1.NewTime(at(started)))
		if phase.Ended() {
			r.Status.Finished = new(metav1.NewTime(at(finished)))
		}
		return r
	}
	const minute = time.Minute
	for _, tt := range []struct {
		name string
		view view
		want action
		wait time.Duration // with later
	}{
		{"never seen", view{now: one}, remember, 0},
		{"nothing new", view{applied: one, now: one}, nothing, 0},
		{"changed just now", view{applied: one, now: two, changed: at(-time.Second)}, later, quiet - time.Second},
		{"changed and quiet", view{applied: one, now: two, changed: at(-quiet)}, ask, 0},
		{"changed while no agent ran", view{applied: one, now: two}, ask, 0},
		{"asked for, on its way", view{applied: one, now: two, restart: made(v1alpha1.ReasonConfigChange, v1alpha1.PhaseRunning, two, -minute, 0)}, later, poll},
		{"asked for, succeeded", view{applied: one, now: two, restart: made(v1alpha1.ReasonConfigChange, v1alpha1.PhaseSucceeded, two, -minute, 0)}, remember, 0},
		{"asked for, stalled: people are told, it is not repeated", view{applied: one, now: two, restart: made(v1alpha1.ReasonConfigChange, v1alpha1.PhaseStalled, two, -minute, 0)}, remember, 0},
		{"refused just now", view{applied: one, now: two, restart: made(v1alpha1.ReasonConfigChange, v1alpha1.PhaseRefused, two, -minute, -minute)}, later, refusedAgain - minute},
		{"refused a while ago", view{applied: one, now: two, restart: made(v1alpha1.ReasonConfigChange, v1alpha1.PhaseRefused, two, -minute, -refusedAgain)}, ask, 0},
		{"asked for, and then restarted by a person", view{applied: one, now: two, restart: made(v1alpha1.ReasonManual, v1alpha1.PhaseStalled, two, -minute, 0)}, remember, 0},
		{"changed again meanwhile", view{applied: one, now: prints{"configmap/app": "3"}, restart: made(v1alpha1.ReasonConfigChange, v1alpha1.PhaseRunning, two, -minute, 0)}, later, poll},
		{"changed again right after", view{applied: one, now: prints{"configmap/app": "3"}, restart: made(v1alpha1.ReasonConfigChange, v1alpha1.PhaseSucceeded, two, -minute, -time.Second)}, later, pause - time.Second},
		{"changed again later", view{applied: one, now: prints{"configmap/app": "3"}, restart: made(v1alpha1.ReasonConfigChange, v1alpha1.PhaseSucceeded, two, -minute, -pause)}, ask, 0},
		{"restarted for a full disk since", view{applied: one, now: two, changed: at(-minute), restart: made(v1alpha1.ReasonDiskFill, v1alpha1.PhaseSucceeded, one, -minute/2, 0)}, remember, 0},
		{"restarted for a full disk before", view{applied: one, now: two, changed: at(-minute), restart: made(v1alpha1.ReasonDiskFill, v1alpha1.PhaseSucceeded, one, -2*minute, 0)}, ask, 0},
		{"restarted for a full disk, who knows when", view{applied: one, now: two, restart: made(v1alpha1.ReasonDiskFill, v1alpha1.PhaseSucceeded, one, -minute, 0)}, ask, 0},
		{"being restarted for a full disk", view{applied: one, now: two, changed: at(-minute), restart: made(v1alpha1.ReasonDiskFill, v1alpha1.PhaseRunning, one, -minute, 0)}, later, poll},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.view.at, tt.view.refs = at(0), refs
			got := decide(tt.view)
			if got.action != tt.want {
				t.Fatalf("action %v, want %v", got.action, tt.want)
			}
			if got.action == later && !got.until.Equal(at(tt.wait)) {
				t.Errorf("until %s from now, want %s", got.until.Sub(at(0)), tt.wait)
			}
			if got.action == remember && !maps.Equal(got.applied, tt.view.now) {
				t.Errorf("remembers %v", got.applied)
			}
		})
	}
}
