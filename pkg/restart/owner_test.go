package restart

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containerd tells of a static pod by the hash of its file; its mirror in the
// API has another uid.
func TestNodeUID(t *testing.T) {
	for _, test := range []struct {
		name        string
		annotations map[string]string
		want        string
	}{
		{"a pod", nil, "api"},
		{"a static pod", map[string]string{corev1.MirrorPodAnnotationKey: "hash"}, "hash"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "api", Annotations: test.annotations}}
		if got := NodeUID(pod); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}
