package cluster

import (
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LabelController is a label of the pods of ReplicaSet and
// ReplicationController by which they are selected and Services are not.
const LabelController = "controller"

func controllerTemplate(name string) corev1.PodTemplateSpec {
	t := PodTemplate(name)
	t.Labels[LabelController] = name
	return t
}

// ReplicaSet is the web app as a ReplicaSet that no Deployment owns.
func ReplicaSet(namespace, name string, replicas int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: Meta(namespace, name),
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{LabelController: name}},
			Template: controllerTemplate(name),
		},
	}
}

// ReplicationController is the web app as a ReplicationController.
func ReplicationController(namespace, name string, replicas int32) *corev1.ReplicationController {
	t := controllerTemplate(name)
	return &corev1.ReplicationController{
		ObjectMeta: Meta(namespace, name),
		Spec: corev1.ReplicationControllerSpec{
			Replicas: &replicas, Selector: map[string]string{LabelController: name}, Template: &t,
		},
	}
}

// Pod is the web app as a pod without owner.
func Pod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: Meta(namespace, name), Spec: PodTemplate(name).Spec}
}

// Job is the web app as a Job: it never ends by itself, and told to stop it
// does not claim that it has done its work.
func Job(namespace, name string) *batchv1.Job {
	return &batchv1.Job{ObjectMeta: Meta(namespace, name), Spec: jobSpec(name)}
}

func jobSpec(name string) batchv1.JobSpec {
	t := PodTemplate(name)
	t.Spec.RestartPolicy = corev1.RestartPolicyNever
	t.Spec.Containers[0].Args = append(t.Spec.Containers[0].Args, "--exit-code", "143")
	return batchv1.JobSpec{Template: t, BackoffLimit: new(int32(0))}
}

// CronJob makes such a Job each minute, one at a time.
func CronJob(namespace, name string) *batchv1.CronJob {
	return &batchv1.CronJob{
		ObjectMeta: Meta(namespace, name),
		Spec: batchv1.CronJobSpec{
			Schedule: "* * * * *", ConcurrencyPolicy: batchv1.ForbidConcurrent,
			JobTemplate: batchv1.JobTemplateSpec{Spec: jobSpec(name)},
		},
	}
}

// Autoscaler keeps a Deployment between two and five replicas, by what its pods
// use of 100 thousandths of a CPU each.
func Autoscaler(namespace, name string) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: Meta(namespace, name),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name},
			MinReplicas:    new(int32(2)), MaxReplicas: 5,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name:   corev1.ResourceCPU,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewMilliQuantity(100, resource.DecimalSI)},
			}}},
		},
	}
}
