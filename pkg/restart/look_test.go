package restart

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Of a workload with very many pods no more than a page is held whole, and all
// are seen.
func TestPodsArePaged(t *testing.T) {
	var all []corev1.Pod
	for i := range 2*podPage + 7 {
		p := testPod(fmt.Sprintf("web-%d", i), fmt.Sprintf("uid-%d", i), true)
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "StatefulSet", Name: "web", UID: "target", Controller: new(true)}}
		p.Annotations = map[string]string{restartedAt: "then", "other": strings.Repeat("x", 1000)}
		all = append(all, p)
	}
	f := &faulty{list: func(list client.ObjectList, o *client.ListOptions) error {
		at := 0
		if o.Continue != "" {
			_, _ = fmt.Sscan(o.Continue, &at)
		}
		if o.Limit != podPage {
			return fmt.Errorf("asked for %d pods at once", o.Limit)
		}
		end := min(len(all), at+int(o.Limit))
		pods := list.(*corev1.PodList)
		pods.Items = all[at:end]
		if end < len(all) {
			pods.Continue = fmt.Sprint(end)
		}
		return nil
	}}
	w := testWorld(KindStatefulSet)
	if err := newLooker(f, Options{Node: nodeA}.withDefaults(), nil).pods(t.Context(), &w); err != nil {
		t.Fatal(err)
	}
	if len(w.Pods) != len(all) || w.Pods[len(all)-1].Name != all[len(all)-1].Name {
		t.Fatalf("%d pods, want %d", len(w.Pods), len(all))
	}
	p := w.Pods[0]
	if !ready(&p) || p.UID != "uid-0" || p.Spec.NodeName != nodeA || p.Annotations[restartedAt] != "then" || len(p.Annotations) != 1 {
		t.Errorf("what is kept of a pod: %+v", p)
	}
}
