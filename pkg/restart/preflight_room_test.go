package restart

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestPreflightRoom(t *testing.T) {
	with := func(w World, change func(*World)) World { change(&w); return w }
	budget := func(allowed int32) policyv1.PodDisruptionBudget {
		return policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: selector()},
			Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed},
		}
	}
	quota := func(name corev1.ResourceName, hard, used string) func(*World) {
		return func(w *World) {
			w.Target.Deployment.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")}
			w.Quotas = []corev1.ResourceQuota{{ObjectMeta: metav1.ObjectMeta{Name: "small"}, Status: corev1.ResourceQuotaStatus{
				Hard: corev1.ResourceList{name: resource.MustParse(hard)}, Used: corev1.ResourceList{name: resource.MustParse(used)},
			}}}
		}
	}
	unavailable := func(n int) func(*World) {
		return func(w *World) { w.Target.Deployment.Spec.Strategy.RollingUpdate = bounds(1, n) }
	}
	exclusive := func(w *World) {
		w.Target.Deployment.Spec.Template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{LabelSelector: selector(), TopologyKey: corev1.LabelHostname}},
		}}
	}
	pressed := func(kind corev1.NodeConditionType) func(*World) {
		return func(w *World) {
			w.NodeState = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeA}, Status: corev1.NodeStatus{
				Conditions: []corev1.NodeCondition{{Type: kind, Status: corev1.ConditionTrue}},
			}}
		}
	}
	bare := func(change func(*corev1.PodSpec)) World {
		return with(testWorld(KindPod), func(w *World) { change(&w.Target.Pod.Spec) })
	}
	d := testWorld(KindDeployment)
	tests := []struct {
		name   string
		world  World
		weight Weight
		says   string
	}{
		{"a budget, nothing goes down", with(testWorld(KindDeployment), func(w *World) { unavailable(0)(w); w.Budgets = []policyv1.PodDisruptionBudget{budget(0)} }), "", ""},
		{"a budget that allows it", with(testWorld(KindDeployment), func(w *World) { unavailable(1)(w); w.Budgets = []policyv1.PodDisruptionBudget{budget(1)} }), "", ""},
		{"a budget that does not", with(testWorld(KindDeployment), func(w *World) { unavailable(1)(w); w.Budgets = []policyv1.PodDisruptionBudget{budget(0)} }), Interrupts, "1 pod down at once, and PodDisruptionBudget web allows 0"},
		{"a budget that was changed just now", with(testWorld(KindDeployment), func(w *World) {
			unavailable(1)(w)
			w.Budgets = []policyv1.PodDisruptionBudget{budget(0)}
			w.Budgets[0].Generation = 1
		}), "", ""},
		{"another workload's budget", with(testWorld(KindDeployment), func(w *World) {
			unavailable(1)(w)
			other := budget(0)
			other.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}
			w.Budgets = []policyv1.PodDisruptionBudget{other}
		}), "", ""},
		{"a StatefulSet against its budget", with(testWorld(KindStatefulSet), func(w *World) { w.Budgets = []policyv1.PodDisruptionBudget{budget(0)} }), Interrupts, "allows 0"},
		{"a DaemonSet's pod against its budget", with(testWorld(KindDaemonSet), func(w *World) { w.Budgets = []policyv1.PodDisruptionBudget{budget(0)} }), Warns, "each eviction waits"},
		{"a whole DaemonSet against its budget", with(wholeDaemonSet(func(d *appsv1.DaemonSet) {
			d.Status.NumberAvailable = 3
			d.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: new(intstr.FromInt32(2))}
		}), func(w *World) { w.Budgets = []policyv1.PodDisruptionBudget{budget(1)} }), Interrupts, "2 pods down at once"},
		{"a quota with room", with(testWorld(KindDeployment), quota("requests.cpu", "2", "1500m")), "", ""},
		{"a quota without", with(testWorld(KindDeployment), quota("requests.cpu", "2", "1800m")), Forbids, "ResourceQuota small has no room for one pod more (requests.cpu: 1800m of 2 are used, 500m is needed)"},
		{"a quota of limits", with(testWorld(KindDeployment), func(w *World) {
			quota("limits.cpu", "2", "1800m")(w)
			c := &w.Target.Deployment.Spec.Template.Spec.Containers[0]
			c.Resources.Limits = c.Resources.Requests
		}), Forbids, "(limits.cpu: 1800m of 2 are used, 500m is needed)"},
		{"a quota of some pods alone, which the API server knows", with(testWorld(KindDeployment), func(w *World) {
			quota("pods", "2", "2")(w)
			w.Quotas[0].Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}
		}), "", ""},
		{"a quota of pods", with(testWorld(KindDeployment), quota("pods", "2", "2")), Forbids, "ResourceQuota small"},
		{"a quota, no surge", with(testWorld(KindDeployment), func(w *World) {
			quota("pods", "2", "2")(w)
			w.Target.Deployment.Spec.Strategy.RollingUpdate = bounds(0, 1)
		}), "", ""},
		{"pods that exclude each other", with(testWorld(KindDeployment), exclusive), Warns, "exclude each other from one kubernetes.io/hostname"},
		{"pods that exclude each other, no surge", with(testWorld(KindDeployment), func(w *World) {
			exclusive(w)
			w.Target.Deployment.Spec.Strategy.RollingUpdate = bounds(0, 1)
		}), "", ""},
		{"a node under disk pressure", with(testWorld(KindDeployment), pressed(corev1.NodeDiskPressure)), Warns, "Node node-a has DiskPressure: its kubelet may evict the pod before its next is Ready, those of low priority first; its template names none."},
		{"a node under disk pressure, a pod of some weight", with(testWorld(KindDeployment), func(w *World) {
			pressed(corev1.NodeDiskPressure)(w)
			w.Pods[0].Spec.PriorityClassName, w.Pods[0].Spec.Priority = "gold", new(int32(1000))
		}), Warns, "; its own is 1000, by PriorityClass gold."},
		{"a node under disk pressure, a pod of no class", with(testWorld(KindDeployment), func(w *World) {
			pressed(corev1.NodeDiskPressure)(w)
			w.Pods[0].Spec.Priority = new(int32(0))
		}), Warns, "; its own is 0."},
		{"a node under memory pressure, the pod is not known", with(testWorld(KindDeployment), func(w *World) {
			pressed(corev1.NodeMemoryPressure)(w)
			w.Restart.Spec.PodUID = ""
			w.Target.Deployment.Spec.Template.Spec.PriorityClassName = "gold"
		}), Warns, "; its own is that of PriorityClass gold."},
		{"a node that is ready", with(testWorld(KindDeployment), pressed(corev1.NodeReady)), "", ""},
		{"nothing around", d, "", ""},
		{"too many pods one by one", with(testWorld(KindReplicaSet), func(w *World) {
			w.Services = nil
			for range maxOldPods {
				w.Pods = append(w.Pods, testPod("x", "x", true))
			}
		}), Forbids, "502 pods, and no more than 500"},
		{"a bare pod in its node's network", bare(func(s *corev1.PodSpec) { s.HostNetwork = true }), Forbids, "namespace of its node"},
		{"a bare pod with an account", bare(func(s *corev1.PodSpec) { s.ServiceAccountName = "builder" }), Forbids, "service account builder"},
		{"a bare pod with a Secret", bare(func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "key", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}}}
		}), Forbids, "volume key is a Secret"},
		{"a bare pod with a projected Secret", bare(func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "key", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{}}}}}}}
		}), Forbids, "volume key is a Secret"},
		{"a bare pod that reads a Secret", bare(func(s *corev1.PodSpec) {
			s.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{}}}
		}), Forbids, "container web reads a Secret"},
		{"a bare pod that reads one key of a Secret", bare(func(s *corev1.PodSpec) {
			s.Containers[0].Env = []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{}}}}
		}), Forbids, "container web reads a Secret"},
		{"a privileged bare pod", bare(func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: new(true)}
		}), Forbids, "container web has privileges"},
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
			for _, f := range found {
				if f.Weight == test.weight && strings.Contains(f.Sentence, test.says) {
					return
				}
			}
			t.Errorf("found %+v, want one that %s and says %q", found, test.weight, test.says)
		})
	}
}
