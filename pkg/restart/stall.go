package restart

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// stallReason says in a sentence what the restart waits for in vain, from the
// surest cause to the vaguest.
func stallReason(w World) string {
	if why := trouble(w); why != "" {
		return why
	}
	return w.rollout().sentence
}

// trouble is the cause as far as pods, the workload or the last step tell it.
func trouble(w World) string {
	if w.Target == nil {
		return ""
	}
	if w.Target.Deployment != nil && w.Target.Deployment.Spec.Paused && w.method() == v1alpha1.MethodTemplate {
		return "The Deployment was paused meanwhile."
	}
	for _, p := range w.newPods() {
		if why := podTrouble(&p); why != "" {
			return why + hangs(w.Target.StatefulSet)
		}
	}
	if why := deploymentTrouble(w.Target.Deployment); why != "" {
		return why
	}
	for _, p := range w.oldPods() {
		if p.DeletionTimestamp != nil {
			return fmt.Sprintf("The old pod %s is still terminating.", p.Name)
		}
	}
	if w.Trouble != "" {
		return "The last step failed: " + w.Trouble + "."
	}
	return ""
}

// hangs says what has to be done by hand: a StatefulSet in order waits for a
// broken pod, and does not replace it for a better template either.
func hangs(s *appsv1.StatefulSet) string {
	if s == nil || s.Spec.PodManagementPolicy == appsv1.ParallelPodManagement {
		return ""
	}
	return " The StatefulSet waits for it: once its cause is mended it has to be deleted by hand (kubernetes #67250)."
}

// podTrouble says why a pod is not Ready, or nothing if it is.
func podTrouble(p *corev1.Pod) string {
	if ready(p) {
		return ""
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return fmt.Sprintf("Pod %s cannot be scheduled: %s.", p.Name, c.Message)
		}
	}
	all := append(append([]corev1.ContainerStatus{}, p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...)
	for _, c := range all {
		if why := containerTrouble(p.Name, c); why != "" {
			return why
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		if last := lastEnd(c); last != nil && !c.Ready {
			return fmt.Sprintf("Container %s of pod %s ended with exit code %d (restart count %d).", c.Name, p.Name, last.ExitCode, c.RestartCount)
		}
		if c.State.Running != nil && !c.Ready {
			return fmt.Sprintf("Container %s of pod %s runs but its readiness probe fails.", c.Name, p.Name)
		}
	}
	return fmt.Sprintf("Pod %s is %s and not Ready.", p.Name, phaseOf(p))
}

// lastEnd is how a container ended that ended at all: between two waits in
// CrashLoopBackOff it runs for a moment.
func lastEnd(c corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if c.State.Terminated != nil {
		return c.State.Terminated
	}
	return c.LastTerminationState.Terminated
}

// containerTrouble reads the kubelet's reasons: ImagePullBackOff,
// CrashLoopBackOff, CreateContainerConfigError, …
func containerTrouble(pod string, c corev1.ContainerStatus) string {
	waiting := c.State.Waiting
	if waiting == nil || waiting.Reason == "" || waiting.Reason == "ContainerCreating" || waiting.Reason == "PodInitializing" {
		return ""
	}
	said := ""
	if waiting.Message != "" {
		said = " (" + cut(waiting.Message, 200) + ")"
	}
	if last := c.LastTerminationState.Terminated; last != nil {
		said += fmt.Sprintf(", last exit code %d", last.ExitCode)
	}
	return fmt.Sprintf("Container %s of pod %s waits in %s%s.", c.Name, pod, waiting.Reason, said)
}

// deploymentTrouble is what keeps a ReplicaSet from making pods at all: a
// quota, an admission webhook.
func deploymentTrouble(d *appsv1.Deployment) string {
	if d == nil {
		return ""
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return "New pods cannot be made: " + cut(c.Message, 300) + "."
		}
	}
	return ""
}

func phaseOf(p *corev1.Pod) corev1.PodPhase {
	if p.Status.Phase == "" {
		return corev1.PodPending
	}
	return p.Status.Phase
}
