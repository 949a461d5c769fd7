package e2e

import (
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// A StatefulSet that leaves the moment to people: its pods go one by one, the
// highest first, each next one Ready before the following goes. The Service
// never sends to fewer than its PodDisruptionBudget wants.
func TestStatefulSetOnDelete(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	db := cluster.StatefulSet(s.namespace, "db", 2)
	db.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
	s.create(db)
	asked := s.askAll("db", 2)
	s.budget("db", 1)
	old := s.untilReady("db", 2)
	r := s.succeeded(s.leak(&old[1]), old)
	asked.clean(2000, 1)
	s.replaced(old, s.untilReady("db", 2), "db-0", "db-1")
	if r.Status.Method != v1alpha1.MethodEvict {
		t.Errorf("the pods were replaced by %s", r.Status.Method)
	}
}

// A StatefulSet in the middle of a canary keeps it: below the partition pods
// come back at their old revision.
func TestStatefulSetPartition(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	db := cluster.StatefulSet(s.namespace, "db", 2)
	db.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(1))}
	s.create(db)
	asked := s.askAll("db", 2)
	old := s.untilReady("db", 2)
	s.succeeded(s.leak(&old[0]), old)
	asked.clean(2000, 1)
	for i, p := range s.untilReady("db", 2) {
		if rev := p.Labels[appsv1.StatefulSetRevisionLabel]; p.UID == old[i].UID || rev != old[i].Labels[appsv1.StatefulSetRevisionLabel] {
			t.Errorf("%s came back at revision %s, was at %s", p.Name, rev, old[i].Labels[appsv1.StatefulSetRevisionLabel])
		}
	}
}

// A StatefulSet stuck on a broken pod is not restarted into the same hole.
func TestStatefulSetStuck(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	db := cluster.StatefulSet(s.namespace, "db", 1)
	s.create(db)
	old := s.untilReady("db", 1)
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(db), db))
	before := db.DeepCopy()
	db.Spec.Replicas = new(int32(3))
	db.Spec.Template.Spec.Containers[0].Image = "nodeagent.dev/not-there:dev"
	s.must(s.Patch(s.ctx, db, client.MergeFrom(before)))
	s.untilPods("db", 2)

	seen := s.leak(&old[0])
	r := s.refused(seen)
	t.Logf("%s: %s", r.Name, r.Status.Message)
	s.replaced(old, s.podsOf("db")[:1])
}

// The whole of a DaemonSet is restarted when a person asks for it, with surge
// where it has one, node by node where it leaves the moment to people.
func TestDaemonSetWhole(t *testing.T) {
	surge := intstr.FromInt32(1)
	none := intstr.FromInt32(0)
	for _, c := range []struct {
		name     string
		strategy appsv1.DaemonSetUpdateStrategy
		method   v1alpha1.Method
		requests int64
		fewest   int
	}{
		{"surge", appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &surge, MaxUnavailable: &none}}, v1alpha1.MethodTemplate, manyRequests, 2},
		{"ondelete", appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}, v1alpha1.MethodEvict, 2000, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStory(t)
			set := cluster.DaemonSet(s.namespace, "logs")
			set.Spec.UpdateStrategy = c.strategy
			if c.requests == manyRequests {
				s.meetsMany(&set.Spec.Template.Spec, "logs", 2)
			} else {
				slowToEnd(&set.Spec.Template.Spec)
			}
			s.create(set)
			asked := s.askAll("logs", 2)
			old := s.untilReady("logs", 2)
			r := s.ended(s.person(set, "apps/v1", "DaemonSet", nil), v1alpha1.PhaseSucceeded)
			asked.clean(c.requests, c.fewest)
			s.replaced(old, s.untilReady("logs", 2), names(old)...)
			if r.Status.Method != c.method {
				t.Errorf("replaced by %s, want %s", r.Status.Method, c.method)
			}
		})
	}
}

// Controllers without an owner have no rollout of their own: pod by pod is
// released and replaced, and the Service never has fewer than before.
func TestControllersWithoutOwner(t *testing.T) {
	for kind, make := range map[string]func(s *story) client.Object{
		"ReplicaSet": func(s *story) client.Object {
			set := cluster.ReplicaSet(s.namespace, "web", 2)
			s.meetsMany(&set.Spec.Template.Spec, "web", 2)
			return set
		},
		"ReplicationController": func(s *story) client.Object {
			rc := cluster.ReplicationController(s.namespace, "web", 2)
			s.meetsMany(&rc.Spec.Template.Spec, "web", 2)
			return rc
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newStory(t)
			s.create(make(s))
			asked := s.askAll("web", 2)
			old := s.untilReady("web", 2)
			s.succeeded(s.leak(&old[0]), old)
			asked.clean(manyRequests, 2)
			s.replaced(old, s.untilReady("web", 2), names(old)...)
		})
	}
}

// A pod that nobody owns is copied, and goes when its copy serves. What it reads
// from a ConfigMap its copy reads too.
func TestPodWithoutOwner(t *testing.T) {
	s := newStory(t)
	s.create(&corev1.ConfigMap{ObjectMeta: cluster.Meta(s.namespace, "settings"), Data: map[string]string{"level": "debug"}})
	pod := cluster.Pod(s.namespace, "web")
	pod.Spec.Volumes = []corev1.Volume{{Name: "settings", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}},
	}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "settings", MountPath: "/etc/settings"}}
	pod.Labels["team"] = "shop"
	pod.Annotations = map[string]string{"owner": "shop@example.com"}
	s.meetsMany(&pod.Spec, "web", 1)
	s.create(pod)
	asked := s.askAll("web", 1)
	old := s.untilReady("web", 1)

	r := s.succeeded(s.leak(&old[0]), old)
	asked.clean(manyRequests, 1)
	now := s.untilReady("web", 1)
	s.replaced(old, now, "web")
	if next := now[0]; next.Labels["team"] != "shop" || next.Annotations["owner"] != "shop@example.com" {
		t.Errorf("the copy lost labels or annotations: %v %v", next.Labels, next.Annotations)
	}
	// The kubelet has it on its node's disk, for that pod alone.
	read, err := s.Lab(s.ctx, "exec", now[0].Spec.NodeName, "--", "cat", fmt.Sprintf("/var/lib/kubelet/pods/%s/volumes/kubernetes.io~configmap/settings/level", now[0].UID))
	s.must(err)
	if mounts := now[0].Spec.Containers[0].VolumeMounts; read != "debug" || len(mounts) != 1 || mounts[0].MountPath != "/etc/settings" {
		t.Errorf("the copy reads %q, its mounts are %+v", read, mounts)
	}
	if r.Status.Method != v1alpha1.MethodCopy {
		t.Errorf("replaced by %s", r.Status.Method)
	}
}

// replaced checks that of the old pods exactly those that are named are gone.
func (s *story) replaced(old, now []corev1.Pod, gone ...string) {
	s.t.Helper()
	for _, p := range old {
		stays := slices.ContainsFunc(now, func(n corev1.Pod) bool { return n.UID == p.UID })
		if want := !slices.Contains(gone, p.Name); stays != want {
			s.t.Errorf("%s stays: %t, want %t", p.Name, stays, want)
		}
	}
}
