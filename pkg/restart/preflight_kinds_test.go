package restart

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestPreflightPodByPod(t *testing.T) {
	with := func(w World, change func(*World)) World { change(&w); return w }
	d := func(change func(*appsv1.Deployment)) World {
		return with(onePod(KindDeployment), func(w *World) { change(w.Target.Deployment) })
	}
	bare := func(change func(*corev1.Pod)) World {
		return with(testWorld(KindPod), func(w *World) { change(w.Target.Pod); w.Pods = []corev1.Pod{*w.Target.Pod} })
	}
	volume := func(v corev1.VolumeSource) World {
		return bare(func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: v}} })
	}
	job := func(change func(*batchv1.Job)) World {
		return with(testWorld(KindJob), func(w *World) { change(w.Target.Job) })
	}
	ss := func(scope v1alpha1.Scope, change func(*appsv1.StatefulSet)) World {
		return with(testWorld(KindStatefulSet), func(w *World) { w.Restart.Spec.Scope = scope; change(w.Target.StatefulSet) })
	}
	served := func(w World) World {
		w.Services = []corev1.Service{webService()}
		return w
	}
	const workload, one = v1alpha1.ScopeWorkload, v1alpha1.ScopePod
	claim := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}
	tests := []struct {
		name   string
		world  World
		weight Weight
		says   string
	}{
		{"one pod of a Deployment", served(onePod(KindDeployment)), "", ""},
		{"one pod, paused", d(func(d *appsv1.Deployment) { d.Spec.Paused = true }), "", ""},
		{"one pod, in a rollout", d(func(d *appsv1.Deployment) { d.Status.UpdatedReplicas = 1 }), Forbids, "1 of 2"},
		{"one pod, scaled to 0", d(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(0)) }), Forbids, "scaled to 0"},
		{"one pod, Recreate", d(func(d *appsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType }), Interrupts, "side by side"},
		{"one pod, a sibling is down", d(func(d *appsv1.Deployment) { d.Status.AvailableReplicas = 1 }), Warns, "1 of 2"},
		{"one pod, host port", d(func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = bounds(0, 1)
			d.Spec.Template.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 8080}}
		}), Forbids, "port 8080"},
		{"one pod without pod-template-hash", with(onePod(KindDeployment), func(w *World) { delete(w.Pods[0].Labels, "pod-template-hash") }), Forbids, "let go of it"},
		{"one pod that is gone", with(onePod(KindDeployment), func(w *World) { w.Restart.Spec.Pod = "gone" }), Forbids, "is gone already"},

		{"OnDelete", onDelete(), Warns, "its ordinal is down"},
		{"OnDelete, template changed", with(onDelete(), func(w *World) {
			w.Pods[1].Labels[appsv1.ControllerRevisionHashLabelKey] = "0"
		}), Forbids, "would come back with the new one"},
		{"partition", ss(workload, func(s *appsv1.StatefulSet) { partitioned(s, 1) }), Warns, "its ordinal is down"},
		{"partition, halves differ", ss(workload, func(s *appsv1.StatefulSet) {
			partitioned(s, 1)
			s.Status.UpdateRevision, s.Status.UpdatedReplicas = "2", 1
		}), Warns, "its ordinal is down"},
		{"partition, in a rollout", ss(workload, func(s *appsv1.StatefulSet) {
			partitioned(s, 1)
			s.Status.UpdateRevision, s.Status.UpdatedReplicas = "2", 0
		}), Forbids, "in progress"},
		{"one pod of a StatefulSet", ss(one, func(*appsv1.StatefulSet) {}), Warns, "its ordinal is down"},
		{"the only pod of a StatefulSet", ss(one, func(s *appsv1.StatefulSet) { s.Spec.Replicas, s.Status.ReadyReplicas = new(int32(1)), 1 }), Interrupts, "one replica"},
		{"one pod, another is broken", ss(one, func(s *appsv1.StatefulSet) { s.Status.ReadyReplicas = 1 }), Forbids, "Only 1 of 2"},
		{"one pod, the broken one itself", with(ss(one, func(s *appsv1.StatefulSet) { s.Status.ReadyReplicas = 1 }), func(w *World) {
			w.Pods[0] = testPod("web-old-0", "old-0", false)
		}), Warns, "its ordinal is down"},

		{"whole DaemonSet", wholeDaemonSet(nil), Warns, "Each node's pod goes"},
		{"whole DaemonSet, surge", wholeDaemonSet(func(d *appsv1.DaemonSet) {
			d.Status.NumberAvailable = 3
			d.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxSurge: new(intstr.FromString("10%"))}
		}), "", ""},
		{"whole DaemonSet, OnDelete", wholeDaemonSet(func(d *appsv1.DaemonSet) { d.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType }), Warns, "Each node's pod goes"},
		{"whole DaemonSet, OnDelete, template changed", wholeDaemonSet(func(d *appsv1.DaemonSet) {
			d.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType
			d.Status.UpdatedNumberScheduled = 0
		}), Forbids, "would come back with the new one"},
		{"whole DaemonSet, on no node", wholeDaemonSet(func(d *appsv1.DaemonSet) { d.Status = appsv1.DaemonSetStatus{ObservedGeneration: 1} }), Forbids, "no node"},

		{"ReplicaSet", testWorld(KindReplicaSet), "", ""},
		{"ReplicaSet, served by the same label", served(testWorld(KindReplicaSet)), Warns, "One pod less serves"},
		{"ReplicaSet of one, served by the same label", served(with(testWorld(KindReplicaSet), func(w *World) {
			w.Target.ReplicaSet.Spec.Replicas = new(int32(1))
		})), Interrupts, "Its one pod leaves its Services"},
		{"ReplicaSet of a Deployment", with(testWorld(KindReplicaSet), func(w *World) {
			w.Target.ReplicaSet.OwnerReferences = []metav1.OwnerReference{{Kind: KindDeployment, Name: "web", Controller: new(true)}}
		}), Forbids, "belongs to Deployment web"},
		{"ReplicaSet, scaled to 0", with(testWorld(KindReplicaSet), func(w *World) { w.Target.ReplicaSet.Spec.Replicas = new(int32(0)) }), Forbids, "scaled to 0"},
		{"ReplicaSet, not observed", with(testWorld(KindReplicaSet), func(w *World) { w.Target.ReplicaSet.Generation = 2 }), Forbids, "changed just now"},
		{"ReplicationController", testWorld(KindReplicationController), "", ""},
		{"ReplicationController without pods", with(testWorld(KindReplicationController), func(w *World) {
			w.Pods, w.Restart.Spec.Pod = nil, ""
		}), Forbids, "replicationcontroller/web has no pod"},
		{"ReplicationController, not observed", with(testWorld(KindReplicationController), func(w *World) { w.Target.ReplicationController.Generation = 2 }), Forbids, "changed just now"},
		{"ReplicationController, a pod is down", with(testWorld(KindReplicationController), func(w *World) { w.Target.ReplicationController.Status.AvailableReplicas = 1 }), Warns, "1 of 2"},

		{"bare pod", testWorld(KindPod), "", ""},
		{"bare pod, static", bare(func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }), Forbids, "from a file on its node"},
		{"bare pod in another restart's hand", bare(func(p *corev1.Pod) {
			p.Annotations = map[string]string{v1alpha1.AnnotationLabelsTaken: `{"app":"web"}`}
		}), Forbids, "Another restart has this pod in hand"},
		{"bare pod with an owner", bare(func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: KindReplicaSet, Name: "web-abc", Controller: new(true)}}
		}), Forbids, "belongs to ReplicaSet web-abc"},
		{"bare pod that runs to an end", bare(func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }), Forbids, "restartPolicy is Never"},
		{"bare pod, tried again until it succeeds", bare(func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }), Forbids, "restartPolicy is OnFailure"},
		{"bare pod, hostname", bare(func(p *corev1.Pod) { p.Spec.Hostname = "db" }), Forbids, "(db)"},
		{"bare pod, subdomain", bare(func(p *corev1.Pod) { p.Spec.Subdomain = "peers" }), Forbids, "(peers)"},
		{"bare pod, host port", bare(func(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 53}} }), Forbids, "port 53"},
		{"bare pod, RWO claim", with(volume(claim), func(w *World) { w.Claims = claims(corev1.ReadWriteOnce) }), Forbids, "volume claim data"},
		{"bare pod, RWOP claim", with(volume(claim), func(w *World) { w.Claims = claims(corev1.ReadWriteOncePod) }), Forbids, "volume claim data"},
		{"bare pod, RWX claim", with(volume(claim), func(w *World) { w.Claims = claims(corev1.ReadWriteMany) }), "", ""},
		{"bare pod, emptyDir", volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), Warns, "volume data is lost"},
		{"bare pod, hostPath", volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}}), Forbids, "path /srv of its node"},
		{"bare pod, no probe", bare(func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = nil }), Warns, "readiness probe"},
		{"bare pod, another of the same name", with(testWorld(KindPod), func(w *World) { w.Restart.Spec.PodUID = "former" }), Forbids, "is gone already"},

		{"Job, allowed", testWorld(KindJob), Warns, "is done again"},
		{"Job", job(func(j *batchv1.Job) { j.Annotations = nil }), Forbids, "left alone"},
		{"Job, allowed, no policy", job(func(j *batchv1.Job) { j.Spec.PodFailurePolicy = nil }), Forbids, "DisruptionTarget"},
		{"Job, allowed, another rule first", job(func(j *batchv1.Job) {
			rules(j, onExit(batchv1.PodFailurePolicyOnExitCodesOpNotIn, 42), ignoreDisruption())
		}), Forbids, "before other rules"},
		{"Job, allowed, a rule that cannot match first", job(func(j *batchv1.Job) {
			rules(j, onExit(batchv1.PodFailurePolicyOnExitCodesOpIn, 42), ignoreDisruption())
		}), Warns, "is done again"},
		{"Job, allowed, SIGTERM counts first", job(func(j *batchv1.Job) {
			rules(j, onExit(batchv1.PodFailurePolicyOnExitCodesOpIn, 143), ignoreDisruption())
		}), Forbids, "before other rules"},
		{"Job, ended", job(func(j *batchv1.Job) {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
		}), Forbids, "nothing left"},
		{"Job, suspended", job(func(j *batchv1.Job) { j.Spec.Suspend = new(true) }), Forbids, "nothing left"},

		{"excluded namespace", with(testWorld(KindDeployment), func(w *World) { w.Fence = "Nothing is restarted: namespace shop is excluded." }), Forbids, "excluded"},
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

func partitioned(s *appsv1.StatefulSet, at int32) {
	s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &at}
}

func claims(mode corev1.PersistentVolumeAccessMode) map[string]corev1.PersistentVolumeClaim {
	return map[string]corev1.PersistentVolumeClaim{"data": {
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec:       corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{mode}},
	}}
}

func rules(j *batchv1.Job, all ...batchv1.PodFailurePolicyRule) { j.Spec.PodFailurePolicy.Rules = all }

func onExit(op batchv1.PodFailurePolicyOnExitCodesOperator, codes ...int32) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{
		Action:      batchv1.PodFailurePolicyActionFailJob,
		OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: op, Values: codes},
	}
}
