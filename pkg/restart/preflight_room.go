package restart

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// preflightRoom is about what stands around a workload: what may be down at
// once, and whether a new pod finds room.
func preflightRoom(w World) []Finding {
	found := preflightBudget(w)
	if w.besides() {
		found = append(found, preflightQuota(w)...)
		found = append(found, preflightAntiAffinity(w)...)
	}
	return append(append(found, preflightNode(w)...), preflightFilling(w)...)
}

// preflightBudget: a rollout asks no PodDisruptionBudget (kubernetes #91808),
// so it is asked here. An eviction asks it itself, and waits.
func preflightBudget(w World) []Finding {
	down := takenDown(w)
	for i := range w.Budgets {
		b := &w.Budgets[i]
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || selector.Empty() || !selector.Matches(labels.Set(w.Target.template().Labels)) {
			continue
		}
		switch allowed := b.Status.DisruptionsAllowed; {
		case b.Status.ObservedGeneration < b.Generation:
			continue
		case w.method() != v1alpha1.MethodTemplate && allowed == 0:
			return []Finding{{Warns, fmt.Sprintf("PodDisruptionBudget %s allows no pod to go at this moment: each eviction waits for it.", b.Name)}}
		case w.method() == v1alpha1.MethodTemplate && down > allowed:
			return []Finding{{Interrupts, fmt.Sprintf("The rollout may take %s down at once, and PodDisruptionBudget %s allows %d.", pods(int(down)), b.Name, allowed)}}
		}
	}
	return nil
}

// takenDown is how many pods the workload's own rollout may take down before
// their next are Ready.
func takenDown(w World) int32 {
	switch t := w.Target; {
	case t.Deployment != nil && t.Deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		return wanted(t.Deployment.Spec.Replicas)
	case t.Deployment != nil:
		_, unavailable := rollingBounds(t.Deployment)
		return unavailable
	case t.StatefulSet != nil:
		return 1
	case t.DaemonSet != nil && !daemonSurges(t.DaemonSet):
		one := intstr.FromInt32(1)
		bound := &one
		if r := t.DaemonSet.Spec.UpdateStrategy.RollingUpdate; r != nil && r.MaxUnavailable != nil {
			bound = r.MaxUnavailable
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(bound, int(t.DaemonSet.Status.DesiredNumberScheduled), true)
		if err != nil {
			return 1
		}
		return int32(n)
	}
	return 0
}

// preflightQuota asks whether one pod more fits. Quotas with a scope are left
// to the API server: a stall would say what it said.
func preflightQuota(w World) []Finding {
	asks := asked(w.Target.template().Spec)
	for i := range w.Quotas {
		q := &w.Quotas[i]
		if len(q.Spec.Scopes) > 0 || q.Spec.ScopeSelector != nil {
			continue
		}
		for name, more := range asks {
			hard, bounded := q.Status.Hard[name]
			used := q.Status.Used[name].DeepCopy()
			if used.Add(more); bounded && used.Cmp(hard) > 0 {
				return []Finding{{Forbids, fmt.Sprintf("ResourceQuota %s has no room for one pod more (%s: %s of %s are used, %s is needed).",
					q.Name, name, q.Status.Used.Name(name, resource.DecimalSI), &hard, &more)}}
			}
		}
	}
	return nil
}

// asked is what one pod counts against a quota.
func asked(spec corev1.PodSpec) corev1.ResourceList {
	one := resource.MustParse("1")
	sum := corev1.ResourceList{corev1.ResourcePods: one, "count/pods": one}
	add := func(name corev1.ResourceName, q resource.Quantity) {
		total := sum[name].DeepCopy()
		total.Add(q)
		sum[name] = total
	}
	for _, c := range spec.Containers {
		for name, q := range c.Resources.Requests {
			add("requests."+name, q)
			if name == corev1.ResourceCPU || name == corev1.ResourceMemory {
				add(name, q)
			}
		}
		for name, q := range c.Resources.Limits {
			add("limits."+name, q)
		}
	}
	return sum
}

// preflightAntiAffinity: where every node has one already, a new pod waits for
// an old one, which waits for the new one (kubernetes #116891).
func preflightAntiAffinity(w World) []Finding {
	t := w.Target.template()
	if t.Spec.Affinity == nil || t.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	for _, term := range t.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		selector, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
		if err == nil && selector.Matches(labels.Set(t.Labels)) {
			return []Finding{{Warns, fmt.Sprintf("Its pods exclude each other from one %s: without a free one for the new pod the restart stalls.", term.TopologyKey)}}
		}
	}
	return nil
}

// preflightNode: the scheduler keeps pods off a node under disk pressure by
// itself, and the kubelet is evicting there already.
func preflightNode(w World) []Finding {
	if w.NodeState == nil {
		return nil
	}
	for _, c := range w.NodeState.Status.Conditions {
		pressure := c.Type == corev1.NodeDiskPressure || c.Type == corev1.NodeMemoryPressure || c.Type == corev1.NodePIDPressure
		if pressure && c.Status == corev1.ConditionTrue {
			return []Finding{{Warns, fmt.Sprintf("Node %s has %s: its kubelet may evict the pod before its next is Ready, those of low priority first; %s.", w.NodeState.Name, c.Type, priority(w))}}
		}
	}
	return nil
}

// priority says that of the pod that gave the reason, into which admission has
// written its class's value, or of the template where that pod is not known.
func priority(w World) string {
	class := w.Target.template().Spec.PriorityClassName
	switch p := w.pod(w.Restart.Spec.PodUID); {
	case p != nil && p.Spec.PriorityClassName != "" && p.Spec.Priority != nil:
		return fmt.Sprintf("its own is %d, by PriorityClass %s", *p.Spec.Priority, p.Spec.PriorityClassName)
	case p != nil && p.Spec.Priority != nil:
		return fmt.Sprintf("its own is %d", *p.Spec.Priority)
	case class != "":
		return "its own is that of PriorityClass " + class
	}
	return "its template names none"
}

// preflightCopied says why an agent may not make a copy of such a pod: what
// fenceCopies refuses, in words for people.
func preflightCopied(spec *corev1.PodSpec) string {
	all := append(append([]corev1.Container{}, spec.InitContainers...), spec.Containers...)
	switch {
	case spec.HostNetwork || spec.HostPID || spec.HostIPC:
		return "The pod shares a namespace of its node: an agent may make no such pod."
	case spec.ServiceAccountName != "" && spec.ServiceAccountName != "default":
		return fmt.Sprintf("The pod runs as service account %s: an agent may make no such pod.", spec.ServiceAccountName)
	}
	for _, v := range spec.Volumes {
		if v.HostPath != nil {
			return fmt.Sprintf("The pod's volume %s is the path %s of its node: an agent may make no such pod.", v.Name, v.HostPath.Path)
		}
		if v.Secret != nil || v.Projected != nil && projectsSecret(v.Projected.Sources) {
			return fmt.Sprintf("The pod's volume %s is a Secret: an agent may make no such pod.", v.Name)
		}
	}
	for _, c := range all {
		if why := preflightContainer(c); why != "" {
			return why
		}
	}
	return ""
}

func projectsSecret(sources []corev1.VolumeProjection) bool {
	for _, s := range sources {
		if s.Secret != nil {
			return true
		}
	}
	return false
}

func preflightContainer(c corev1.Container) string {
	if s := c.SecurityContext; s != nil && (s.Privileged != nil && *s.Privileged || s.Capabilities != nil && len(s.Capabilities.Add) > 0) {
		return fmt.Sprintf("The pod's container %s has privileges: an agent may make no such pod.", c.Name)
	}
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			return fmt.Sprintf("The pod's container %s reads a Secret: an agent may make no such pod.", c.Name)
		}
	}
	for _, e := range c.EnvFrom {
		if e.SecretRef != nil {
			return fmt.Sprintf("The pod's container %s reads a Secret: an agent may make no such pod.", c.Name)
		}
	}
	return ""
}

// room reads what preflightRoom is about. What may not be read is not judged: a
// person who looks at the plan may see less than an agent.
func (l *looker) room(ctx context.Context, w *World) error {
	in := client.InNamespace(w.Restart.Namespace)
	var budgets policyv1.PodDisruptionBudgetList
	if err := l.client.List(ctx, &budgets, in); err != nil && !apierrors.IsForbidden(err) {
		return fmt.Errorf("cannot list PodDisruptionBudgets in %s: %w", w.Restart.Namespace, err)
	}
	var quotas corev1.ResourceQuotaList
	if err := l.client.List(ctx, &quotas, in); err != nil && !apierrors.IsForbidden(err) {
		return fmt.Errorf("cannot list ResourceQuotas in %s: %w", w.Restart.Namespace, err)
	}
	w.Budgets, w.Quotas = budgets.Items, quotas.Items
	if w.Restart.Spec.Node == "" {
		return nil
	}
	var node corev1.Node
	err := l.client.Get(ctx, client.ObjectKey{Name: w.Restart.Spec.Node}, &node)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read node %s: %w", w.Restart.Spec.Node, err)
	}
	w.NodeState = &node
	return nil
}
