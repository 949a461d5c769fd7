package restart

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Weight says what a Finding means for the restart.
type Weight string

// The weights.
const (
	Warns      Weight = "Warns"      // it goes on, and says so
	Interrupts Weight = "Interrupts" // it goes on only where downtime is allowed
	Forbids    Weight = "Forbids"    // it does not go on
)

// Finding is one thing that would make a restart unclean, in one sentence.
type Finding struct {
	Weight   Weight
	Sentence string
}

// Preflight says what speaks against a restart before anything is touched. It
// reads the world and nothing else.
func Preflight(w World) []Finding {
	if f := unsupported(w); f != nil {
		return []Finding{*f}
	}
	if w.Fence != "" {
		return []Finding{{Forbids, w.Fence}}
	}
	found := append(preflightKind(w), preflightReason(w)...)
	if len(found) == 0 && w.method() != v1alpha1.MethodTemplate && w.capacity(func(*corev1.Pod) bool { return true }) == 0 {
		found = append(found, Finding{Forbids, fmt.Sprintf("%s has no pod to restart.", describe(w.Restart.Spec.Target))})
	}
	if w.method() == v1alpha1.MethodRelease {
		found = append(found, preflightRelease(w)...)
	}
	if n := len(w.Pods); n > maxOldPods && w.method() != v1alpha1.MethodTemplate {
		found = append(found, Finding{Forbids, fmt.Sprintf("It has %d pods, and no more than %d are replaced one by one.", n, maxOldPods)})
	}
	if w.besides() {
		found = append(found, preflightSurge(w)...)
	}
	found = append(found, preflightRoom(w)...)
	if why := notRolledBack(w); why != "" {
		found = append(found, Finding{Warns, strings.TrimSpace(why)})
	}
	if w.Target.DaemonSet == nil && w.Target.Job == nil && !probed(w.Target.template().Spec) {
		found = append(found, Finding{Warns, "No container has a readiness probe, so a new pod counts as Ready as soon as it runs."})
	}
	return found
}

func preflightKind(w World) []Finding {
	if ref := metav1.GetControllerOf(w.Target.object()); ref != nil && w.method() == v1alpha1.MethodRelease {
		return owned(w.Restart.Spec.Target.Kind, ref.Kind, ref.Name)
	}
	switch t := w.Target; {
	case t.Deployment != nil && w.Restart.Spec.Scope == v1alpha1.ScopePod:
		return preflightDeploymentPod(t.Deployment)
	case t.Deployment != nil:
		return preflightDeployment(t.Deployment)
	case t.StatefulSet != nil:
		return preflightStatefulSet(w)
	case t.DaemonSet != nil:
		return preflightDaemonSet(w)
	case t.ReplicaSet != nil:
		return preflightReplicaSet(t.ReplicaSet)
	case t.ReplicationController != nil:
		return preflightReplicationController(t.ReplicationController)
	case t.Job != nil:
		return preflightJob(t.Job)
	case t.Pod != nil:
		return preflightPod(t.Pod)
	}
	return preflightOther(w.Target.Other)
}

// objection is the sentence of the first finding that stops the restart, or
// empty.
func objection(found []Finding, allowDowntime bool) string {
	for _, f := range found {
		if f.Weight == Forbids {
			return f.Sentence
		}
		if f.Weight == Interrupts && !allowDowntime {
			return strings.TrimSuffix(f.Sentence, ".") + "; allowDowntime would let it go on."
		}
	}
	return ""
}

func warnings(found []Finding) []string {
	var said []string
	for _, f := range found {
		if f.Weight != Forbids {
			said = append(said, f.Sentence)
		}
	}
	return said
}

// unsupported is about what is not known how to be restarted, whatever state
// it is in.
func unsupported(w World) *Finding {
	spec := w.Restart.Spec
	forbid := func(format string, args ...any) *Finding {
		return &Finding{Forbids, fmt.Sprintf(format, args...)}
	}
	t := newTarget(spec.Target)
	switch {
	case spec.Target.Kind == KindCronJob:
		return forbid("A CronJob is left alone: it has no pods of its own, and ending those of its Jobs could lose work or run it twice.")
	case t == nil:
		return forbid("A %s of %s is not known: nothing says how it is restarted.", spec.Target.Kind, spec.Target.APIVersion)
	case t.Other != nil && spec.Scope == v1alpha1.ScopePod:
		return forbid("A single pod of a %s cannot be replaced; scope Workload restarts all of them.", spec.Target.Kind)
	case t.Other != nil && w.Target == nil:
		return forbid("%s of %s is not there or may not be read by the agent (see manifests/overlays/other-kinds).", describe(spec.Target), spec.Target.APIVersion)
	case t.DaemonSet != nil && spec.Scope == v1alpha1.ScopePod && spec.Node == "":
		return forbid("The Restart of a DaemonSet's pod has to name its node.")
	}
	return nil
}

// preflightReason asks whether the pod that gave the reason is still there.
func preflightReason(w World) []Finding {
	spec := w.Restart.Spec
	if spec.Pod == "" || spec.Reason == v1alpha1.ReasonManual && spec.Scope != v1alpha1.ScopePod {
		return nil
	}
	for i := range w.Pods {
		p := &w.Pods[i]
		if p.Name == spec.Pod && (spec.PodUID == "" || string(p.UID) == spec.PodUID) && p.DeletionTimestamp == nil {
			return nil
		}
	}
	return []Finding{{Forbids, fmt.Sprintf("Pod %s is gone already, and the reason with it.", spec.Pod)}}
}

func preflightDeployment(d *appsv1.Deployment) []Finding {
	replicas := wanted(d.Spec.Replicas)
	switch {
	case d.Spec.Paused:
		return []Finding{{Forbids, "The Deployment is paused."}}
	case replicas == 0:
		return []Finding{{Forbids, "The Deployment is scaled to 0: there is nothing to restart."}}
	case inRollout(d):
		return []Finding{rolloutInProgress(d)}
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		return []Finding{{Interrupts, "The Deployment's strategy is Recreate: all pods go before a new one starts."}}
	}
	surge, unavailable := rollingBounds(d)
	var found []Finding
	if replicas-unavailable <= 0 {
		found = append(found, Finding{Interrupts, fmt.Sprintf(
			"With %d replicas, maxSurge %d and maxUnavailable %d no old pod has to stay until a new one is Ready.", replicas, surge, unavailable)})
	}
	return append(found, missing(replicas, d.Status.AvailableReplicas)...)
}

func inRollout(d *appsv1.Deployment) bool {
	return d.Status.ObservedGeneration < d.Generation || d.Status.UpdatedReplicas < wanted(d.Spec.Replicas) ||
		d.Status.Replicas > d.Status.UpdatedReplicas
}

func rolloutInProgress(d *appsv1.Deployment) Finding {
	return Finding{Forbids, fmt.Sprintf("A rollout is in progress: %d of %d pods are of the newest template.", d.Status.UpdatedReplicas, wanted(d.Spec.Replicas))}
}

// rollingBounds are maxSurge and maxUnavailable in pods, rounded as the
// Deployment controller does: surge up, unavailable down, and one unavailable
// where both come to none.
func rollingBounds(d *appsv1.Deployment) (surge, unavailable int32) {
	quarter := intstr.FromString("25%")
	s, u := &quarter, &quarter
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		if r.MaxSurge != nil {
			s = r.MaxSurge
		}
		if r.MaxUnavailable != nil {
			u = r.MaxUnavailable
		}
	}
	replicas := int(wanted(d.Spec.Replicas))
	surgePods, surgeErr := intstr.GetScaledValueFromIntOrPercent(s, replicas, true)
	downPods, downErr := intstr.GetScaledValueFromIntOrPercent(u, replicas, false)
	if surgeErr != nil || downErr != nil || (surgePods == 0 && downPods == 0) {
		return int32(max(surgePods, 0)), 1
	}
	return int32(surgePods), int32(downPods)
}

// surges tells whether new pods of this target run beside old ones.
func surges(t *Target) bool {
	if t.Deployment == nil || t.Deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return false
	}
	surge, _ := rollingBounds(t.Deployment)
	return surge > 0
}

// preflightSurge is about what an old and a new pod cannot both have.
func preflightSurge(w World) []Finding {
	var found []Finding
	template := w.Target.template()
	for _, volume := range template.Spec.Volumes {
		if volume.PersistentVolumeClaim == nil {
			continue
		}
		claim, ok := w.Claims[volume.PersistentVolumeClaim.ClaimName]
		if ok && exclusive(&claim) {
			found = append(found, Finding{Forbids, fmt.Sprintf(
				"Its pods share volume claim %s, which one node at a time can have (%s): a new pod beside the old ones could not start.", claim.Name, claim.Spec.AccessModes[0])})
		}
	}
	if port := hostPort(template.Spec); port != 0 {
		found = append(found, Finding{Forbids, fmt.Sprintf(
			"Its pods take port %d of their node: a new pod beside the old ones could not start.", port)})
	}
	return found
}

func exclusive(claim *corev1.PersistentVolumeClaim) bool {
	for _, mode := range claim.Spec.AccessModes {
		if mode == corev1.ReadWriteMany || mode == corev1.ReadOnlyMany {
			return false
		}
	}
	return len(claim.Spec.AccessModes) > 0
}

func hostPort(spec corev1.PodSpec) int32 {
	for _, c := range append(append([]corev1.Container{}, spec.InitContainers...), spec.Containers...) {
		for _, p := range c.Ports {
			if p.HostPort != 0 {
				return p.HostPort
			}
		}
	}
	return 0
}

func probed(spec corev1.PodSpec) bool {
	for _, c := range spec.Containers {
		if c.ReadinessProbe != nil {
			return true
		}
	}
	return false
}

// wanted is spec.replicas, which the API server defaults to 1.
func wanted(replicas *int32) int32 {
	if replicas == nil {
		return 1
	}
	return *replicas
}
