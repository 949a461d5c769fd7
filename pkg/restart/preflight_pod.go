package restart

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// preflightPod is about a pod without owner: what a copy beside it cannot
// have, or would not be.
func preflightPod(p *corev1.Pod) []Finding {
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil && !static(p) {
		return owned(KindPod, ref.Kind, ref.Name)
	}
	switch {
	case static(p):
		return []Finding{{Forbids, "The kubelet runs this pod from a file on its node: it cannot be replaced through the API."}}
	case len(taken(p)) > 0:
		return []Finding{{Forbids, "Another restart has this pod in hand, or left it half done: its annotation " + v1alpha1.AnnotationLabelsTaken + " says which labels were taken off it."}}
	case p.Spec.RestartPolicy == corev1.RestartPolicyNever || p.Spec.RestartPolicy == corev1.RestartPolicyOnFailure:
		return []Finding{{Forbids, fmt.Sprintf("The pod's restartPolicy is %s: it runs to an end, and a copy would run it twice.", p.Spec.RestartPolicy)}}
	case p.Spec.Hostname != "" || p.Spec.Subdomain != "":
		return []Finding{{Forbids, fmt.Sprintf("The pod has a name in DNS of its own (%s), which a copy beside it cannot have.", strings.Trim(p.Spec.Hostname+"."+p.Spec.Subdomain, "."))}}
	}
	if why := preflightCopied(&p.Spec); why != "" {
		return []Finding{{Forbids, why}}
	}
	return preflightVolumes(p)
}

func preflightVolumes(p *corev1.Pod) []Finding {
	var lost []string
	for _, v := range p.Spec.Volumes {
		if v.EmptyDir != nil || v.Ephemeral != nil {
			lost = append(lost, v.Name)
		}
	}
	if len(lost) > 0 {
		return []Finding{{Warns, fmt.Sprintf("What is in the volume %s is lost: the copy begins with an empty one.", strings.Join(lost, ", "))}}
	}
	return nil
}
