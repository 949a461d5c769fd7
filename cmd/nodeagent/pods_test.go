package main

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/disk"
)

// limited is a container with an ephemeral-storage limit, or with none.
func limited(name, limit string) corev1.Container {
	c := corev1.Container{Name: name, Image: "an image"}
	if limit != "" {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(limit)}
	}
	return c
}

func sidecar(name, limit string) corev1.Container {
	c := limited(name, limit)
	always := corev1.ContainerRestartPolicyAlways
	c.RestartPolicy = &always
	return c
}

func TestLimits(t *testing.T) {
	type all = []corev1.Container
	for _, tt := range []struct {
		name             string
		containers, init all
		pod              int64
		own              map[string]int64
	}{
		{"none", all{limited("a", "")}, nil, 0, map[string]int64{}},
		{"one", all{limited("a", "1Ki")}, nil, 1024, map[string]int64{"a": 1024}},
		{"one of two", all{limited("a", "1Ki"), limited("b", "")}, nil, 1024, map[string]int64{"a": 1024}},
		{"two", all{limited("a", "1Ki"), limited("b", "2Ki")}, nil, 3072, map[string]int64{"a": 1024, "b": 2048}},
		{"small init", all{limited("a", "2Ki")}, all{limited("i", "1Ki")}, 2048, map[string]int64{"a": 2048}},
		{"large init", all{limited("a", "2Ki")}, all{limited("i", "5Ki")}, 5120, map[string]int64{"a": 2048}},
		{"sidecar", all{limited("a", "2Ki")}, all{sidecar("s", "1Ki")}, 3072, map[string]int64{"a": 2048}},
		{"init beside a sidecar", all{limited("a", "1Ki")}, all{sidecar("s", "1Ki"), limited("i", "4Ki")}, 5120, map[string]int64{"a": 1024}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u", Annotations: map[string]string{"large": "text"}},
				Spec:       corev1.PodSpec{Containers: tt.containers, InitContainers: tt.init},
			}
			slim, err := onlyLimits(pod)
			if err != nil {
				t.Fatal(err)
			}
			kept := slim.(*corev1.Pod)
			if kept.Annotations != nil || kept.UID != "u" {
				t.Errorf("kept %+v", kept.ObjectMeta)
			}
			if got, want := limitsOf(kept.Spec), (disk.Limits{Pod: tt.pod, Containers: tt.own}); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}
