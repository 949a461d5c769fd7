package restart

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// replaceByCopy is the next thing to do to a pod without owner.
func replaceByCopy(w World, p *corev1.Pod) Step {
	next := w.copy()
	switch {
	case next == nil && w.overdue():
		return stalled(w)
	case next == nil:
		return Step{Action: Copy, Pod: podRecord(p)}
	case bequeathable(w.Restart, p, next):
		return Step{Action: Bequeath, Pod: podRecord(next)}
	case !w.copyServes(next):
		return waitOn(w, rolloutCopy(w).sentence)
	}
	return drainPod(w, p)
}

// copy is the pod that this restart made, known by its name and mark.
func (w World) copy() *corev1.Pod {
	if w.method() != v1alpha1.MethodCopy {
		return nil
	}
	for i := range w.Pods {
		p := &w.Pods[i]
		if w.handled(p) && p.Annotations[v1alpha1.AnnotationCopied] == stamp(w.Restart) && !w.old(p) {
			return p
		}
	}
	return nil
}

func (w World) old(p *corev1.Pod) bool {
	return slices.ContainsFunc(w.Restart.Status.OldPods, func(r v1alpha1.PodReference) bool { return r.UID == string(p.UID) })
}

// copyServes tells whether the copy is Ready and stands in the endpoints of
// each Service that selects it.
func (w World) copyServes(next *corev1.Pod) bool {
	return next != nil && next.DeletionTimestamp == nil && ready(next) &&
		serves(selecting(w.Services, next.Labels), w.Slices, next.UID)
}

func rolloutCopy(w World) rollout {
	next, old := w.copy(), w.inHand()
	switch {
	case next == nil:
		return rollout{sentence: "The copy is not there yet."}
	case !ready(next):
		return rollout{sentence: fmt.Sprintf("The copy %s is not Ready yet.", next.Name)}
	case !w.copyServes(next):
		return rollout{sentence: fmt.Sprintf("The copy %s is Ready and not in the endpoints yet.", next.Name)}
	case old != nil && (len(serviceLabels(w.Services, old.Labels)) > 0 || named(w.Slices, old.UID)):
		return rollout{sentence: fmt.Sprintf("The copy %s serves; the old pod is on its way out of the endpoints.", next.Name)}
	}
	// The old pod may still be there: from here on its end is what is meant,
	// and before here it is somebody else's doing.
	return rollout{complete: true, sentence: fmt.Sprintf("The copy %s serves.", next.Name)}
}

// bequeathable tells whether the Restart would go with the old pod, and the
// copy has not been made its owner yet.
func bequeathable(r *v1alpha1.Restart, old, next *corev1.Pod) bool {
	owned := func(p *corev1.Pod) bool {
		return slices.ContainsFunc(r.OwnerReferences, func(ref metav1.OwnerReference) bool { return ref.UID == p.UID })
	}
	return owned(old) && !owned(next)
}

// copyOf is the pod that takes an old one's place: what a person wrote about
// it, without what the API server, the scheduler and the node wrote.
func copyOf(p *corev1.Pod, r *v1alpha1.Restart) *corev1.Pod {
	next := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: copyName(p, r),
			Labels: maps.Clone(p.Labels), Annotations: map[string]string{},
		},
		Spec: *p.Spec.DeepCopy(),
	}
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	next.Labels[v1alpha1.LabelRestart] = string(r.UID)
	for key, value := range p.Annotations {
		if !writtenByOthers(key) {
			next.Annotations[key] = value
		}
	}
	next.Annotations[v1alpha1.AnnotationCopyOf] = original(p)
	next.Annotations[v1alpha1.AnnotationCopied] = stamp(r)
	next.Spec.NodeName = ""
	next.Spec.EphemeralContainers = nil
	// Admission computes these from the class's name and refuses others.
	next.Spec.Priority, next.Spec.PreemptionPolicy = nil, nil
	dropTokens(&next.Spec)
	avoidNode(&next.Spec, p.Spec.NodeName)
	return next
}

// copyName is the same for the same restart, so a second copy is refused by
// the API server. A host's name has 63 characters at most.
func copyName(p *corev1.Pod, r *v1alpha1.Restart) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", r.UID, r.Status.ObservedGeneration))
	const longest = 63 - 6
	name := original(p)
	if len(name) > longest {
		name = strings.TrimRight(name[:longest], "-.")
	}
	return name + "-" + hex.EncodeToString(sum[:])[:5]
}

// original is the name of the pod that the first copy was made of.
func original(p *corev1.Pod) string {
	if name := p.Annotations[v1alpha1.AnnotationCopyOf]; name != "" {
		return name
	}
	return p.Name
}

// writtenByOthers tells whether an annotation speaks of this one pod and was
// not written by its author.
func writtenByOthers(key string) bool {
	if key == corev1.LastAppliedConfigAnnotation || key == v1alpha1.AnnotationLabelsTaken ||
		key == v1alpha1.AnnotationCopied || key == v1alpha1.AnnotationCopyOf {
		return true
	}
	domain, _, _ := strings.Cut(key, "/")
	return slices.Contains([]string{"kubernetes.io", "cni.projectcalico.org"}, domain) ||
		slices.Contains([]string{"k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status"}, key)
}

// tokenVolume is the prefix of the volume that the ServiceAccount admission
// adds to each pod; it adds a new one to the copy.
const tokenVolume = "kube-api-access-"

func dropTokens(spec *corev1.PodSpec) {
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool {
		return v.Projected != nil && strings.HasPrefix(v.Name, tokenVolume)
	})
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = true
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			containers[i].VolumeMounts = slices.DeleteFunc(containers[i].VolumeMounts, func(m corev1.VolumeMount) bool {
				return strings.HasPrefix(m.Name, tokenVolume) && !volumes[m.Name]
			})
		}
	}
}

// avoidNode asks the scheduler for another node where there is one: this one
// fills. It is a wish, so the only node that fits is still taken.
func avoidNode(spec *corev1.PodSpec, node string) {
	if node == "" {
		return
	}
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	a := spec.Affinity.NodeAffinity
	// The wish of the copy before this one is over.
	a.PreferredDuringSchedulingIgnoredDuringExecution = slices.DeleteFunc(a.PreferredDuringSchedulingIgnoredDuringExecution, ourWish)
	a.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PreferredDuringSchedulingIgnoredDuringExecution, wish(node))
}

func wish(node string) corev1.PreferredSchedulingTerm {
	return corev1.PreferredSchedulingTerm{Weight: 100, Preference: corev1.NodeSelectorTerm{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpNotIn, Values: []string{node}}},
	}}
}

// ourWish tells a wish of avoidNode from those that people write: the
// scheduler's only field is metadata.name, and hardly anybody prefers by it.
func ourWish(t corev1.PreferredSchedulingTerm) bool {
	f := t.Preference.MatchFields
	return t.Weight == 100 && len(t.Preference.MatchExpressions) == 0 && len(f) == 1 &&
		f[0].Key == metav1.ObjectNameField && f[0].Operator == corev1.NodeSelectorOpNotIn && len(f[0].Values) == 1
}

// copiedUntil is until when a copy is not to be replaced again without a
// person's asking. The cooldown cannot be counted from its Restart: each copy
// has a name, and so a Restart, of its own.
func copiedUntil(p *corev1.Pod, cooldown time.Duration) time.Time {
	at, err := time.Parse(time.RFC3339, p.Annotations[v1alpha1.AnnotationCopied])
	if err != nil {
		return time.Time{}
	}
	return at.Add(cooldown)
}
