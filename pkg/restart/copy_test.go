package restart

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// A copy keeps what its author wrote and nothing that others wrote.
func TestCopyOf(t *testing.T) {
	p := barePod()
	p.GenerateName, p.Finalizers = "web-", []string{"x"}
	p.OwnerReferences = []metav1.OwnerReference{{Kind: "Other", Name: "x"}}
	p.Annotations = map[string]string{
		"team": "shop", corev1.LastAppliedConfigAnnotation: "{}", "cni.projectcalico.org/podIP": "10.0.0.1",
		v1alpha1.AnnotationLabelsTaken: "{}", "kubernetes.io/config.source": "api",
	}
	p.Spec.Priority, p.Spec.PriorityClassName = new(int32(7)), "high"
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{}}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "kube-api-access-x7", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}},
		{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
	}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "kube-api-access-x7"}, {Name: "settings"}}
	r := beginning(testWorld(KindPod)).Restart
	got := copyOf(p, r)

	if got.UID != "" || got.ResourceVersion != "" || got.GenerateName != "" || got.Finalizers != nil || got.OwnerReferences != nil || got.Status.Phase != "" {
		t.Errorf("metadata %+v, status %+v", got.ObjectMeta, got.Status)
	}
	if got.Labels["app"] != "web" || got.Labels[v1alpha1.LabelRestart] != "restart-uid" || p.Labels[v1alpha1.LabelRestart] != "" {
		t.Errorf("labels %v, the old pod's %v", got.Labels, p.Labels)
	}
	want := map[string]string{"team": "shop", v1alpha1.AnnotationCopyOf: "web-old-0", v1alpha1.AnnotationCopied: "2026-03-01T12:00:00Z"}
	if len(got.Annotations) != len(want) {
		t.Errorf("annotations %v, want %v", got.Annotations, want)
	}
	for key, value := range want {
		if got.Annotations[key] != value {
			t.Errorf("annotation %s is %q, want %q", key, got.Annotations[key], value)
		}
	}
	s := got.Spec
	if s.NodeName != "" || s.Priority != nil || s.PriorityClassName != "high" || s.EphemeralContainers != nil {
		t.Errorf("spec %+v", s)
	}
	if len(s.Volumes) != 1 || len(s.Containers[0].VolumeMounts) != 1 || len(p.Spec.Containers[0].VolumeMounts) != 2 {
		t.Errorf("volumes %+v mounted at %+v", s.Volumes, s.Containers[0].VolumeMounts)
	}
	wish := s.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	if len(wish) != 1 || wish[0].Preference.MatchFields[0].Values[0] != nodeA || p.Spec.Affinity != nil {
		t.Errorf("affinity %+v", wish)
	}

	got.Spec.NodeName = nodeB
	r.Status.ObservedGeneration++
	second := copyOf(got, r)
	if second.Name == got.Name || second.Annotations[v1alpha1.AnnotationCopyOf] != "web-old-0" || len(second.Name) != len(got.Name) {
		t.Errorf("the copy of the copy %s is %s", got.Name, second.Name)
	}
	wish = second.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	if len(wish) != 1 || wish[0].Preference.MatchFields[0].Values[0] != nodeB {
		t.Errorf("wishes pile up: %+v", wish)
	}
}

func TestCopiedUntil(t *testing.T) {
	p := barePod()
	if at := copiedUntil(p, time.Hour); !at.IsZero() {
		t.Errorf("a pod that is no copy cools down until %s", at)
	}
	p.Annotations = map[string]string{v1alpha1.AnnotationCopied: "2026-03-01T12:00:00Z"}
	if at := copiedUntil(p, time.Hour); !at.Equal(noon().Add(time.Hour)) {
		t.Errorf("a copy cools down until %s", at)
	}
}
