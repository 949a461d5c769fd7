package restart

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

const (
	nodeA = "node-a"
	nodeB = "node-b"
)

// noon is when the pure tests play, in whole seconds as the API keeps time.
func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func testRestart(kind string) *v1alpha1.Restart {
	scope := v1alpha1.ScopeWorkload
	if kind == KindDaemonSet {
		scope = v1alpha1.ScopePod
	}
	return &v1alpha1.Restart{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: Name(kind, "web"), Generation: 1, UID: "restart-uid"},
		Spec: v1alpha1.RestartSpec{
			Target: v1alpha1.TargetReference{APIVersion: "apps/v1", Kind: kind, Name: "web"},
			Scope:  scope, Pod: "web-old-0", PodUID: "old-0", Node: nodeA, Reason: v1alpha1.ReasonDiskFill,
		},
	}
}

func testPod(name, uid string, isReady bool) corev1.Pod {
	status := corev1.ConditionFalse
	if isReady {
		status = corev1.ConditionTrue
	}
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID(uid), ResourceVersion: "7",
			Labels: map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: "abc"},
		},
		Spec: corev1.PodSpec{NodeName: nodeA},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}},
		},
	}
}

func going(p corev1.Pod) corev1.Pod {
	p.DeletionTimestamp = new(metav1.NewTime(noon()))
	return p
}

func oldPods() []corev1.Pod {
	return []corev1.Pod{testPod("web-old-0", "old-0", true), testPod("web-old-1", "old-1", true)}
}

func newPods() []corev1.Pod {
	return []corev1.Pod{testPod("web-new-0", "new-0", true), testPod("web-new-1", "new-1", true)}
}

func testDeployment() *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "target", Generation: 1, ResourceVersion: "7"},
		Spec:       appsv1.DeploymentSpec{Replicas: new(int32(2)), Selector: selector(), Template: podTemplate()},
		Status:     appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 2, UpdatedReplicas: 2, AvailableReplicas: 2},
	}
}

func testStatefulSet() *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "target", Generation: 1},
		Spec:       appsv1.StatefulSetSpec{Replicas: new(int32(2)), Selector: selector(), Template: podTemplate()},
		Status: appsv1.StatefulSetStatus{
			ObservedGeneration: 1, Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 2,
			CurrentRevision: "1", UpdateRevision: "1",
		},
	}
}

func testDaemonSet() *appsv1.DaemonSet {
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "target", Generation: 1},
		Spec:       appsv1.DaemonSetSpec{Selector: selector(), Template: podTemplate()},
		Status:     appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: 3, UpdatedNumberScheduled: 3},
	}
}

// testWorld is a workload with two old pods, and a Restart that is asked for.
func testWorld(kind string) World {
	w := World{Now: noon(), Node: nodeA, Restart: testRestart(kind), Pods: oldPods(), Written: map[string]Written{}}
	switch kind {
	case KindDeployment:
		w.Target = &Target{Deployment: testDeployment()}
	case KindStatefulSet:
		w.Target = &Target{StatefulSet: testStatefulSet()}
	case KindDaemonSet:
		w.Target = &Target{DaemonSet: testDaemonSet()}
		w.Pods = w.Pods[:1]
	case KindReplicaSet:
		w.Target = &Target{ReplicaSet: testReplicaSet()}
	case KindReplicationController:
		w.Target = &Target{ReplicationController: testReplicationController()}
		w.Restart.Spec.Target.APIVersion = "v1"
	case KindJob:
		w.Target = &Target{Job: testJob()}
		w.Restart.Spec.Target.APIVersion = "batch/v1"
		w.Pods = w.Pods[:1]
	case KindPod:
		w.Target = &Target{Pod: barePod()}
		w.Restart.Spec.Target = v1alpha1.TargetReference{APIVersion: "v1", Kind: KindPod, Name: "web-old-0"}
		w.Pods = []corev1.Pod{*w.Target.Pod}
	}
	return w
}

// onePod is testWorld with scope Pod.
func onePod(kind string) World {
	w := testWorld(kind)
	w.Restart.Spec.Scope = v1alpha1.ScopePod
	return w
}

func testReplicaSet() *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "target", Generation: 1},
		Spec:       appsv1.ReplicaSetSpec{Replicas: new(int32(2)), Selector: selector(), Template: podTemplate()},
		Status:     appsv1.ReplicaSetStatus{ObservedGeneration: 1, Replicas: 2, AvailableReplicas: 2},
	}
}

func testReplicationController() *corev1.ReplicationController {
	return &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "target", Generation: 1},
		Spec:       corev1.ReplicationControllerSpec{Replicas: new(int32(2)), Selector: selector().MatchLabels, Template: new(podTemplate())},
		Status:     corev1.ReplicationControllerStatus{ObservedGeneration: 1, Replicas: 2, AvailableReplicas: 2},
	}
}

func testJob() *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "target", Generation: 1,
			Annotations: map[string]string{v1alpha1.AnnotationRestart: "act"}},
		Spec: batchv1.JobSpec{
			Parallelism: new(int32(1)), Completions: new(int32(1)), Selector: selector(), Template: podTemplate(),
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{ignoreDisruption()}},
		},
	}
}

func ignoreDisruption() batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{
		Action:          batchv1.PodFailurePolicyActionIgnore,
		OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
	}
}

func barePod() *corev1.Pod {
	p := testPod("web-old-0", "old-0", true)
	p.Spec = podTemplate().Spec
	p.Spec.NodeName = nodeA
	return &p
}

// webService selects pods by app alone.
func webService() corev1.Service {
	return corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}},
	}
}

// sends is an EndpointSlice of webService that names these pods.
func sends(uids ...string) []discoveryv1.EndpointSlice {
	slice := discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}}
	for _, uid := range uids {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			TargetRef: &corev1.ObjectReference{UID: types.UID(uid)}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		})
	}
	return []discoveryv1.EndpointSlice{slice}
}

// begun is testWorld after Begin.
func begun(kind string) World { return beginning(testWorld(kind)) }

func beginning(w World) World {
	status, err := nextStatus(w, Next(w))
	if err != nil {
		panic(err)
	}
	w.Restart.Status = status
	return w
}

// stampedWorld is begun with the stamp in the template.
func stampedWorld(kind string, phase v1alpha1.Phase) World {
	w := begun(kind)
	setStamp(&w, stamp(w.Restart))
	w.Restart.Status.Phase = phase
	return w
}

func setStamp(w *World, value string) {
	annotations := map[string]string{restartedAt: value}
	if value == "" {
		annotations = nil
	}
	switch {
	case w.Target.Deployment != nil:
		w.Target.Deployment.Spec.Template.Annotations = annotations
		w.Target.Deployment.Generation++
	case w.Target.StatefulSet != nil:
		w.Target.StatefulSet.Spec.Template.Annotations = annotations
		w.Target.StatefulSet.Generation++
	case w.Target.DaemonSet != nil:
		w.Target.DaemonSet.Spec.Template.Annotations = annotations
		w.Target.DaemonSet.Generation++
	}
}

// rolledOut makes the target's own controller have finished.
func rolledOut(w *World) {
	switch {
	case w.Target.Deployment != nil:
		w.Target.Deployment.Status.ObservedGeneration = w.Target.Deployment.Generation
	case w.Target.StatefulSet != nil:
		w.Target.StatefulSet.Status.ObservedGeneration = w.Target.StatefulSet.Generation
	case w.Target.DaemonSet != nil:
		w.Target.DaemonSet.Status.ObservedGeneration = w.Target.DaemonSet.Generation
	}
	w.Pods = newPods()
}
