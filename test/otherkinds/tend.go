package otherkinds

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// restartedAt is what a restart writes into a pod template.
const restartedAt = "kubectl.kubernetes.io/restartedAt"

const hashLabel = "rollouts-pod-template-hash"

// tendReplicaSets has one ReplicaSet for each template, as Argo Rollouts has, and
// scales the older ones down once the newest has all its pods.
func tendReplicaSets(ctx context.Context, c client.Client, o *unstructured.Unstructured, template corev1.PodTemplateSpec) counts {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(template.Annotations[restartedAt]))
	newest := fmt.Sprintf("%x", sum.Sum32())
	template.Labels[hashLabel] = newest
	_ = c.Create(ctx, &appsv1.ReplicaSet{
		ObjectMeta: owned(o, o.GetName()+"-"+newest, template),
		Spec:       appsv1.ReplicaSetSpec{Replicas: new(int32(replicas)), Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}) // it may be there
	var list appsv1.ReplicaSetList
	_ = c.List(ctx, &list, of(o)...)
	var all []generation
	for i := range list.Items {
		set := &list.Items[i]
		all = append(all, generation{set, set.Labels[hashLabel] == newest, set.Spec.Replicas, set.Status.Replicas, set.Status.AvailableReplicas})
	}
	return handOver(ctx, c, all)
}

// tendControllers has a new ReplicationController for each template that was
// written, as a DeploymentConfig has: that of an earlier one is not taken again.
func tendControllers(ctx context.Context, c client.Client, o *unstructured.Unstructured, template corev1.PodTemplateSpec) counts {
	newest := fmt.Sprintf("%s-%d", o.GetName(), o.GetGeneration())
	template.Labels["deployment"] = newest
	_ = c.Create(ctx, &corev1.ReplicationController{
		ObjectMeta: owned(o, newest, template),
		Spec:       corev1.ReplicationControllerSpec{Replicas: new(int32(replicas)), Selector: template.Labels, Template: &template},
	}) // it may be there
	var list corev1.ReplicationControllerList
	_ = c.List(ctx, &list, of(o)...)
	var all []generation
	for i := range list.Items {
		rc := &list.Items[i]
		all = append(all, generation{rc, rc.Name == newest, rc.Spec.Replicas, rc.Status.Replicas, rc.Status.AvailableReplicas})
	}
	return handOver(ctx, c, all)
}

// generation is what has the pods of one template.
type generation struct {
	client.Object
	newest        bool
	wants         *int32 // in the object
	has, hasReady int32
}

// handOver scales the older ones down once the newest has all its pods.
func handOver(ctx context.Context, c client.Client, all []generation) (n counts) {
	for _, g := range all {
		n.all += int64(g.has)
		n.available += int64(g.hasReady)
		if g.newest {
			n.updated = int64(g.hasReady)
		}
	}
	for _, g := range all {
		if n.updated == replicas && !g.newest && *g.wants > 0 {
			*g.wants = 0
			_ = c.Update(ctx, g.Object)
		}
	}
	return n
}

// tendPods makes new pods and deletes old ones, as a CloneSet with surge does.
func tendPods(ctx context.Context, c client.Client, o *unstructured.Unstructured, template corev1.PodTemplateSpec) counts {
	n, pods := count(ctx, c, o, template)
	old := slices.DeleteFunc(pods, func(p corev1.Pod) bool { return isNew(&p, template) })
	switch {
	case n.all-int64(len(old)) < replicas:
		_ = c.Create(ctx, podOf(o, "", template))
	case n.updated == replicas && len(old) > 0:
		remove(ctx, c, &old[0])
	}
	return n
}

// tendOrdinals replaces one pod after the other under its name, the highest
// ordinal first, as Kruise's StatefulSet does in order.
func tendOrdinals(ctx context.Context, c client.Client, o *unstructured.Unstructured, template corev1.PodTemplateSpec) counts {
	n, pods := count(ctx, c, o, template)
	for i := range replicas {
		name := fmt.Sprintf("%s-%d", o.GetName(), i)
		if !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Name == name }) {
			_ = c.Create(ctx, podOf(o, name, template)) // the one before it may be on its way out
			return n
		}
	}
	old := slices.DeleteFunc(pods, func(p corev1.Pod) bool { return isNew(&p, template) })
	if n.available == replicas && len(old) > 0 {
		last := slices.MaxFunc(old, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
		remove(ctx, c, &last)
	}
	return n
}

// count is of the pods that were not told to go.
func count(ctx context.Context, c client.Client, o *unstructured.Unstructured, template corev1.PodTemplateSpec) (n counts, pods []corev1.Pod) {
	var list corev1.PodList
	_ = c.List(ctx, &list, of(o)...)
	pods = slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	for i := range pods {
		n.all++
		if !cluster.Ready(&pods[i]) {
			continue
		}
		n.available++
		if isNew(&pods[i], template) {
			n.updated++
		}
	}
	return n, pods
}

func isNew(p *corev1.Pod, template corev1.PodTemplateSpec) bool {
	return p.Annotations[restartedAt] == template.Annotations[restartedAt]
}

func remove(ctx context.Context, c client.Client, p *corev1.Pod) {
	_ = c.Delete(ctx, p, client.Preconditions{UID: &p.UID})
}

// podOf is a pod of the object's own; without a name it gets one.
func podOf(o *unstructured.Unstructured, name string, template corev1.PodTemplateSpec) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: owned(o, name, template), Spec: template.Spec}
	p.Annotations = template.Annotations
	if name == "" {
		p.GenerateName = o.GetName() + "-"
	}
	return p
}

func owned(o *unstructured.Unstructured, name string, template corev1.PodTemplateSpec) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: o.GetNamespace(), Name: name, Labels: template.Labels,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Name: o.GetName(), UID: o.GetUID(), Controller: new(true)}},
	}
}

func of(o *unstructured.Unstructured) []client.ListOption {
	return []client.ListOption{client.InNamespace(o.GetNamespace()), client.MatchingLabels{"app": o.GetName()}}
}
