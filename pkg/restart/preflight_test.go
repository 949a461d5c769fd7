package restart

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestPreflight(t *testing.T) {
	d := func(change func(*appsv1.Deployment)) World {
		w := testWorld(KindDeployment)
		change(w.Target.Deployment)
		return w
	}
	ss := func(change func(*appsv1.StatefulSet)) World {
		w := testWorld(KindStatefulSet)
		change(w.Target.StatefulSet)
		return w
	}
	other := func(kind, apiVersion string) World {
		w := testWorld(kind)
		w.Restart.Spec.Target.APIVersion = apiVersion
		return w
	}
	spec := func(kind string, change func(*v1alpha1.RestartSpec)) World {
		w := testWorld(kind)
		change(&w.Restart.Spec)
		return w
	}
	claimed := func(surge int, modes ...corev1.PersistentVolumeAccessMode) World {
		w := d(func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = bounds(surge, 1-surge)
			d.Spec.Template.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
		})
		w.Claims = map[string]corev1.PersistentVolumeClaim{"data": {
			ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes},
		}}
		return w
	}
	one := func(surge, unavailable int) World {
		return d(func(d *appsv1.Deployment) {
			d.Spec.Replicas, d.Status = new(int32(1)), appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}
			d.Spec.Strategy.RollingUpdate = bounds(surge, unavailable)
		})
	}
	port := func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 8080}}
	}
	tests := []struct {
		name   string
		world  World
		weight Weight // of the first finding; empty: none
		says   string
	}{
		{"Deployment, clean", testWorld(KindDeployment), "", ""},
		{"StatefulSet, clean", testWorld(KindStatefulSet), "", ""},
		{"DaemonSet, clean", testWorld(KindDaemonSet), "", ""},
		{"CronJob", other("CronJob", "batch/v1"), Forbids, "left alone"},
		{"another group's Deployment", other(KindDeployment, "example.com/v1"), Forbids, "example.com/v1"},
		{"a DaemonSet's pod, no node", spec(KindDaemonSet, func(s *v1alpha1.RestartSpec) { s.Node = "" }), Forbids, "name its node"},
		{"the pod is gone", spec(KindDeployment, func(s *v1alpha1.RestartSpec) { s.Pod = "gone" }), Forbids, "the reason with it"},
		{"the pod is another of the same name", spec(KindStatefulSet, func(s *v1alpha1.RestartSpec) { s.PodUID = "former" }), Forbids, "the reason with it"},
		{"the pod is gone, a person asks", spec(KindDeployment, func(s *v1alpha1.RestartSpec) { s.Pod, s.Reason = "gone", v1alpha1.ReasonManual }), "", ""},
		{"paused", d(func(d *appsv1.Deployment) { d.Spec.Paused = true }), Forbids, "paused"},
		{"scaled to 0", d(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(0)) }), Forbids, "scaled to 0"},
		{"not observed yet", d(func(d *appsv1.Deployment) { d.Generation++ }), Forbids, "rollout is in progress"},
		{"half updated", d(func(d *appsv1.Deployment) { d.Status.UpdatedReplicas = 1 }), Forbids, "1 of 2 pods"},
		{"old pods left", d(func(d *appsv1.Deployment) { d.Status.Replicas = 3 }), Forbids, "rollout is in progress"},
		{"a pod is not available", d(func(d *appsv1.Deployment) { d.Status.AvailableReplicas = 1 }), Warns, "1 of 2 pods are not available"},
		{"Recreate", d(func(d *appsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType }), Interrupts, "Recreate"},
		{"one replica, default bounds", d(func(d *appsv1.Deployment) {
			d.Spec.Replicas, d.Status = new(int32(1)), appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}
		}), "", ""},
		{"one replica, no surge", one(0, 1), Interrupts, "maxSurge 0"},
		{"one replica, no bounds at all", one(0, 0), Interrupts, "maxUnavailable 1"},
		{"one replica, surge but unavailable", one(1, 1), Interrupts, "maxUnavailable 1"},
		{"no readiness probe", d(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].ReadinessProbe = nil }), Warns, "readiness probe"},
		{"shared RWO claim, surge", claimed(1, corev1.ReadWriteOnce), Forbids, "volume claim data"},
		{"shared RWOP claim, surge", claimed(1, corev1.ReadWriteOncePod), Forbids, "volume claim data"},
		{"shared RWX claim, surge", claimed(1, corev1.ReadWriteOnce, corev1.ReadWriteMany), "", ""},
		{"shared RWO claim, no surge", claimed(0, corev1.ReadWriteOnce), "", ""},
		{"host port, surge", d(port), Forbids, "port 8080"},
		{"host port, no surge", d(func(d *appsv1.Deployment) { port(d); d.Spec.Strategy.RollingUpdate = bounds(0, 1) }), "", ""},
		{"set scaled to 0", ss(func(s *appsv1.StatefulSet) { s.Spec.Replicas = new(int32(0)) }), Forbids, "scaled to 0"},
		{"set of one", ss(func(s *appsv1.StatefulSet) {
			s.Spec.Replicas, s.Status.ReadyReplicas = new(int32(1)), 1
		}), Interrupts, "one replica"},
		{"set in a rollout", ss(func(s *appsv1.StatefulSet) { s.Status.UpdateRevision = "2" }), Forbids, "in progress"},
		{"set with a broken pod", ss(func(s *appsv1.StatefulSet) { s.Status.ReadyReplicas = 1 }), Forbids, "Only 1 of 2"},
		{"parallel set with a broken pod", ss(func(s *appsv1.StatefulSet) {
			s.Status.ReadyReplicas, s.Spec.PodManagementPolicy = 1, appsv1.ParallelPodManagement
		}), "", ""},
		{"set not observed yet", ss(func(s *appsv1.StatefulSet) { s.Generation++ }), Forbids, "in progress"},
		{"set with a pod too few", ss(func(s *appsv1.StatefulSet) { s.Status.Replicas = 1 }), Forbids, "in progress"},
		{"a DaemonSet without a pod on the node", func() World {
			w := spec(KindDaemonSet, func(s *v1alpha1.RestartSpec) { s.Pod, s.PodUID, s.Reason = "", "", v1alpha1.ReasonManual })
			w.Pods = nil
			return w
		}(), Forbids, "no pod on node node-a"},
		{"DaemonSet in a rollout", func() World {
			w := testWorld(KindDaemonSet)
			w.Target.DaemonSet.Status.UpdatedNumberScheduled = 2
			return w
		}(), Forbids, "2 of 3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found := Preflight(test.world)
			if test.weight == "" {
				if len(found) != 0 {
					t.Errorf("found %+v, want nothing", found)
				}
				return
			}
			if len(found) != 1 || found[0].Weight != test.weight || !strings.Contains(found[0].Sentence, test.says) {
				t.Errorf("found %+v, want one that %s and says %q", found, test.weight, test.says)
			}
		})
	}
}

func bounds(surge, unavailable int) *appsv1.RollingUpdateDeployment {
	return &appsv1.RollingUpdateDeployment{
		MaxSurge: new(intstr.FromInt32(int32(surge))), MaxUnavailable: new(intstr.FromInt32(int32(unavailable))),
	}
}

func TestObjection(t *testing.T) {
	downtime, forbidden := Finding{Interrupts, "All pods go."}, Finding{Forbids, "It is paused."}
	tests := []struct {
		name  string
		found []Finding
		allow bool
		want  string
	}{
		{"none", nil, false, ""},
		{"a warning", []Finding{{Warns, "Mind."}}, false, ""},
		{"downtime", []Finding{downtime}, false, "All pods go; allowDowntime would let it go on."},
		{"downtime allowed", []Finding{downtime}, true, ""},
		{"forbidden whatever is allowed", []Finding{downtime, forbidden}, true, "It is paused."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := objection(test.found, test.allow); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestRollingBounds(t *testing.T) {
	// Kubernetes' own default lets four replicas dip below full and three not.
	for replicas, want := range map[int32][2]int32{1: {1, 0}, 3: {1, 0}, 4: {1, 1}, 10: {3, 2}} {
		d := testDeployment()
		d.Spec.Replicas = &replicas
		if surge, unavailable := rollingBounds(d); surge != want[0] || unavailable != want[1] {
			t.Errorf("%d replicas: surge %d, unavailable %d, want %v", replicas, surge, unavailable, want)
		}
	}
}
