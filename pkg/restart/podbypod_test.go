package restart

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// running is a restart in its middle.
func running(w World) World {
	w = beginning(w)
	w.Restart.Status.Phase = v1alpha1.PhaseRunning
	return w
}

func verifying(w World) World {
	w = beginning(w)
	w.Restart.Status.Phase = v1alpha1.PhaseVerifying
	return w
}

// take does to a pod what Release and Withdraw do.
func take(w *World, uid string, keys ...string) {
	w.Pods = slices.Clone(w.Pods)
	p := w.pod(uid)
	p.Labels, p.Annotations = map[string]string{v1alpha1.LabelRestart: "restart-uid"}, map[string]string{}
	record := `{"pod-template-hash":"abc"}`
	if !slices.Contains(keys, "app") {
		p.Labels["app"] = "web"
	} else {
		record = `{"app":"web","pod-template-hash":"abc"}`
	}
	p.Annotations[v1alpha1.AnnotationLabelsTaken] = record
}

func add(w *World, pods ...corev1.Pod) { w.Pods = append(slices.Clone(w.Pods), pods...) }

// copied puts the copy of a pod without owner into the world.
func copied(w *World, isReady bool) {
	next := copyOf(&w.Pods[0], w.Restart)
	next.UID = "copy"
	next.Status = testPod("", "", isReady).Status
	add(w, *next)
}

func lateInto(w *World) { w.Now = noon().Add(10*time.Minute + 30*time.Second) }

// told says that the stall was written down already.
func told(w *World) { w.Restart.Status.Message = "Not complete after 10m0s. As told." }

func serving(w *World, uids ...string) {
	w.Services, w.Slices = []corev1.Service{webService()}, sends(uids...)
}

func TestNextPodByPod(t *testing.T) {
	newOne := func(isReady bool) corev1.Pod { return testPod("web-new-0", "new-0", isReady) }
	tests := []struct {
		name  string
		world World
		but   func(*World)
		want  Action
		pod   string
		says  string
	}{
		{"release: begins", beginning(onePod(KindDeployment)), nil, Release, "web-old-0", ""},
		{"release: begun and paused", beginning(onePod(KindDeployment)), func(w *World) { w.Target.Deployment.Spec.Paused = true }, Release, "web-old-0", ""},
		{"release: begun, then a rollout", beginning(onePod(KindDeployment)), func(w *World) { w.Target.Deployment.Generation++ }, End, "", "rollout is in progress"},
		{"release: a sibling fell over", beginning(onePod(KindDeployment)), func(w *World) {
			w.Pods[1] = testPod("web-old-1", "old-1", false)
		}, Wait, "", "web-old-1 is not Ready"},
		{"release: done by one that died", beginning(onePod(KindDeployment)), func(w *World) { take(w, "old-0", "pod-template-hash") }, Report, "", "not there yet"},
		{"release: its next is not there", running(onePod(KindDeployment)), func(w *World) { take(w, "old-0", "pod-template-hash") }, Wait, "", "not there yet"},
		{"release: its next is not Ready", running(onePod(KindDeployment)), func(w *World) {
			take(w, "old-0", "pod-template-hash")
			add(w, newOne(false))
		}, Wait, "", "web-new-0 is not Ready yet"},
		{"release: its next is Ready", running(onePod(KindDeployment)), func(w *World) {
			take(w, "old-0", "pod-template-hash")
			add(w, newOne(true))
			serving(w, "old-0", "old-1", "new-0")
		}, Withdraw, "web-old-0", ""},
		{"release: its next is Ready, no Service", running(onePod(KindDeployment)), func(w *World) {
			take(w, "old-0", "pod-template-hash")
			add(w, newOne(true))
		}, Evict, "web-old-0", ""},
		{"release: scaled down meanwhile", running(onePod(KindDeployment)), func(w *World) {
			take(w, "old-0", "pod-template-hash")
			w.Target.Deployment.Spec.Replicas = new(int32(1))
		}, Evict, "web-old-0", ""},
		{"release: still in the endpoints", running(onePod(KindDeployment)), func(w *World) {
			take(w, "old-0", "app")
			add(w, newOne(true))
			serving(w, "old-0", "new-0")
		}, Wait, "", "on its way out of the endpoints"},
		{"release: out of the endpoints", running(onePod(KindDeployment)), func(w *World) {
			take(w, "old-0", "app")
			add(w, newOne(true))
			serving(w, "new-0")
		}, Evict, "web-old-0", ""},
		{"release: terminating", running(onePod(KindDeployment)), func(w *World) {
			take(w, "old-0", "app")
			w.Pods[0] = going(w.Pods[0])
			add(w, newOne(true))
		}, Report, "", "on their way out"},
		{"release: all gone", verifying(onePod(KindDeployment)), func(w *World) {
			w.Pods = []corev1.Pod{testPod("web-old-1", "old-1", true), newOne(true)}
		}, End, "", "1 pod replaced"},
		{"release: late, its next not Ready", running(onePod(KindDeployment)), func(w *World) {
			lateInto(w)
			take(w, "old-0", "pod-template-hash")
			add(w, newOne(false))
		}, Report, "", "Not complete after 10m0s. Pod web-new-0 is Running and not Ready."},
		{"release: late and told so", running(onePod(KindDeployment)), func(w *World) {
			lateInto(w)
			told(w)
			take(w, "old-0", "pod-template-hash")
			add(w, newOne(false))
		}, Restore, "web-old-0", ""},
		{"release: late, told so, given back", running(onePod(KindDeployment)), func(w *World) { lateInto(w); told(w) }, End, "", "Not complete after 10m0s. As told. Nothing more"},
		{"release: late, given back", running(onePod(KindDeployment)), func(w *World) { lateInto(w); add(w, newOne(false)) }, End, "", "web-new-0 is Running and not Ready"},
		{"release: taken up long after the deadline", running(onePod(KindDeployment)), func(w *World) {
			w.Now = noon().Add(time.Hour)
			told(w)
			take(w, "old-0", "pod-template-hash")
		}, Restore, "web-old-0", ""},
		{"release: late, cannot be given back", running(onePod(KindDeployment)), func(w *World) {
			w.Now = noon().Add(10*time.Minute + undoWait)
			w.Trouble = "refused"
			take(w, "old-0", "pod-template-hash")
		}, End, "", "Not complete"},
		{"release: late, budget refuses", running(onePod(KindDeployment)), func(w *World) {
			lateInto(w)
			told(w)
			take(w, "old-0", "app")
			add(w, newOne(true))
			w.Trouble = "budget"
		}, Restore, "web-old-0", ""},
		{"release: the Deployment is gone", running(onePod(KindDeployment)), func(w *World) {
			take(w, "old-0", "pod-template-hash")
			w.Pods, w.Target = w.Pods[:1], nil
		}, Evict, "web-old-0", ""},
		{"release: the Deployment is gone, its pod cannot go", running(onePod(KindDeployment)), func(w *World) {
			take(w, "old-0", "pod-template-hash")
			w.Pods, w.Target, w.Trouble = w.Pods[:1], nil, "budget"
		}, End, "", "web-old-0 is left: budget"},
		{"release: the Deployment is gone and its pod", running(onePod(KindDeployment)), func(w *World) {
			w.Pods, w.Target = nil, nil
		}, End, "", "deleted meanwhile"},
		{"release: somebody rolls out meanwhile", running(onePod(KindDeployment)), func(w *World) {
			take(w, "old-0", "pod-template-hash")
			add(w, newOne(true))
			w.Target.Deployment.Spec.Template.Spec.Containers[0].Image = "web:2"
		}, Evict, "web-old-0", ""},
		{"Recreate, one pod, downtime allowed", func() World {
			w := onePod(KindDeployment)
			w.Restart.Spec.AllowDowntime = true
			w.Target.Deployment.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
			return beginning(w)
		}(), nil, Evict, "web-old-0", ""},

		{"ReplicaSet: the first", beginning(testWorld(KindReplicaSet)), nil, Release, "web-old-0", ""},
		{"ReplicaSet: the second waits", running(testWorld(KindReplicaSet)), func(w *World) { w.Pods = w.Pods[1:] }, Wait, "", "1 of 2 pods replaced"},
		{"ReplicaSet: the second", running(testWorld(KindReplicaSet)), func(w *World) {
			w.Pods = []corev1.Pod{w.Pods[1], newOne(true)}
		}, Release, "web-old-1", ""},
		{"ReplicaSet: late, not begun with the second", running(testWorld(KindReplicaSet)), func(w *World) {
			lateInto(w)
			w.Pods = []corev1.Pod{w.Pods[1], newOne(true)}
		}, End, "", "1 of 2 pods replaced"},
		{"ReplicaSet: all", running(testWorld(KindReplicaSet)), func(w *World) { w.Pods = newPods() }, Report, "", "old ones are on their way"},
		{"ReplicationController: the first", beginning(testWorld(KindReplicationController)), nil, Release, "web-old-0", ""},

		{"StatefulSet, OnDelete: the highest first", beginning(onDelete()), nil, Evict, "web-1", ""},
		{"StatefulSet, OnDelete: waits", running(onDelete()), func(w *World) { w.Pods = []corev1.Pod{testPod("web-0", "old-0", true)} }, Wait, "", "not there yet"},
		{"StatefulSet, OnDelete: its next not Ready", running(onDelete()), func(w *World) {
			w.Pods = []corev1.Pod{testPod("web-0", "old-0", true), testPod("web-1", "new-1", false)}
		}, Wait, "", "web-1 is not Ready"},
		{"StatefulSet, OnDelete: the next ordinal", running(onDelete()), func(w *World) {
			w.Pods = []corev1.Pod{testPod("web-0", "old-0", true), testPod("web-1", "new-1", true)}
		}, Evict, "web-0", ""},
		{"StatefulSet, late on a broken pod", running(onDelete()), func(w *World) {
			lateInto(w)
			w.Pods = []corev1.Pod{testPod("web-0", "old-0", true), testPod("web-1", "new-1", false)}
		}, End, "", "#67250"},
		{"StatefulSet, the partition is lifted meanwhile", running(onDelete()), func(w *World) {
			w.Target.StatefulSet.Spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		}, Evict, "web-1", ""},

		{"Job: its pod", beginning(testWorld(KindJob)), nil, Evict, "web-old-0", ""},
		{"Job: its next is not there", running(testWorld(KindJob)), func(w *World) { w.Pods = nil }, Wait, "", "not there yet"},
		{"Job: it ended meanwhile", running(testWorld(KindJob)), func(w *World) {
			w.Pods, w.Target.Job.Status.Succeeded = nil, 1
		}, Report, "", ""},

		{"copy: begins", beginning(testWorld(KindPod)), nil, Copy, "web-old-0", ""},
		{"copy: made by one that died", beginning(testWorld(KindPod)), func(w *World) { copied(w, false) }, Report, "", "not Ready yet"},
		{"copy: owns the Restart", running(testWorld(KindPod)), func(w *World) {
			copied(w, false)
			w.Restart.OwnerReferences = []metav1.OwnerReference{{UID: "old-0"}}
		}, Bequeath, copyOf(barePod(), running(testWorld(KindPod)).Restart).Name, ""},
		{"copy: not Ready", running(testWorld(KindPod)), func(w *World) { copied(w, false) }, Wait, "", "not Ready yet"},
		{"copy: not in the endpoints", running(testWorld(KindPod)), func(w *World) { copied(w, true); serving(w, "old-0") }, Wait, "", "not in the endpoints yet"},
		{"copy: serves", running(testWorld(KindPod)), func(w *World) { copied(w, true); serving(w, "old-0", "copy") }, Withdraw, "web-old-0", ""},
		{"copy: old one in the endpoints", running(testWorld(KindPod)), func(w *World) {
			copied(w, true)
			take(w, "old-0", "app")
			serving(w, "old-0", "copy")
		}, Wait, "", "out of the endpoints"},
		{"copy: old one drained", running(testWorld(KindPod)), func(w *World) {
			copied(w, true)
			take(w, "old-0", "app")
			serving(w, "copy")
		}, Report, "", "on their way out"},
		{"copy: old one drained, told", verifying(testWorld(KindPod)), func(w *World) {
			copied(w, true)
			take(w, "old-0", "app")
			serving(w, "copy")
		}, Evict, "web-old-0", ""},
		{"copy: serves before it owns the Restart", verifying(testWorld(KindPod)), func(w *World) {
			copied(w, true)
			w.Services, w.Slices = nil, nil
			w.Restart.OwnerReferences = []metav1.OwnerReference{{UID: "old-0"}}
		}, Bequeath, copyOf(barePod(), running(testWorld(KindPod)).Restart).Name, ""},
		{"copy: old one going", verifying(testWorld(KindPod)), func(w *World) { copied(w, true); w.Pods[0] = going(w.Pods[0]) }, Wait, "", "still terminating"},
		{"copy: old one gone", verifying(testWorld(KindPod)), func(w *World) { copied(w, true); w.Pods, w.Target = w.Pods[1:], nil }, End, "", "1 pod replaced"},
		{"copy: old one deleted before the copy serves", running(testWorld(KindPod)), func(w *World) {
			copied(w, false)
			w.Pods, w.Target = w.Pods[1:], nil
		}, Evict, copyOf(barePod(), running(testWorld(KindPod)).Restart).Name, ""},
		{"copy: late", running(testWorld(KindPod)), func(w *World) { lateInto(w); told(w); copied(w, false) }, Evict, copyOf(barePod(), running(testWorld(KindPod)).Restart).Name, ""},
		{"copy: late, drained and refused", verifying(testWorld(KindPod)), func(w *World) {
			lateInto(w)
			told(w)
			copied(w, true)
			take(w, "old-0", "app")
			serving(w, "copy")
			w.Trouble = "budget"
		}, Restore, "web-old-0", ""},
		{"copy: late, never made", running(testWorld(KindPod)), lateInto, End, "", "not there yet"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := test.world
			if test.but != nil {
				test.but(&w)
			}
			got := Next(w)
			if got.Action != test.want || got.Pod.Name != test.pod || !strings.Contains(got.Message, test.says) {
				t.Fatalf("got %s of pod %q (%s), want %s of %q (%s)", got.Action, got.Pod.Name, got.Message, test.want, test.pod, test.says)
			}
			if got.Action == Report || got.Action == End {
				if _, err := nextStatus(w, got); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// onDelete is a StatefulSet of two whose pods people delete by hand.
func onDelete() World {
	w := testWorld(KindStatefulSet)
	w.Target.StatefulSet.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
	w.Pods = []corev1.Pod{testPod("web-0", "old-0", true), testPod("web-1", "old-1", true)}
	w.Restart.Spec.Pod = "web-0"
	return w
}

func TestMethodOf(t *testing.T) {
	tests := []struct {
		name  string
		world World
		want  v1alpha1.Method
	}{
		{"Deployment", testWorld(KindDeployment), v1alpha1.MethodTemplate},
		{"Deployment, one pod", onePod(KindDeployment), v1alpha1.MethodRelease},
		{"StatefulSet", testWorld(KindStatefulSet), v1alpha1.MethodTemplate},
		{"StatefulSet, one pod", onePod(KindStatefulSet), v1alpha1.MethodEvict},
		{"StatefulSet, OnDelete", onDelete(), v1alpha1.MethodEvict},
		{"StatefulSet, partition", func() World {
			w := testWorld(KindStatefulSet)
			w.Target.StatefulSet.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(1))}
			return w
		}(), v1alpha1.MethodEvict},
		{"DaemonSet, one pod", testWorld(KindDaemonSet), v1alpha1.MethodEvict},
		{"DaemonSet", wholeDaemonSet(nil), v1alpha1.MethodTemplate},
		{"DaemonSet, OnDelete", wholeDaemonSet(func(d *appsv1.DaemonSet) { d.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType }), v1alpha1.MethodEvict},
		{"ReplicaSet", testWorld(KindReplicaSet), v1alpha1.MethodRelease},
		{"ReplicationController", testWorld(KindReplicationController), v1alpha1.MethodRelease},
		{"Job", testWorld(KindJob), v1alpha1.MethodEvict},
		{"Pod", testWorld(KindPod), v1alpha1.MethodCopy},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.world.method(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func wholeDaemonSet(change func(*appsv1.DaemonSet)) World {
	w := testWorld(KindDaemonSet)
	w.Restart.Spec.Scope = v1alpha1.ScopeWorkload
	if change != nil {
		change(w.Target.DaemonSet)
	}
	return w
}

func TestLabelPatches(t *testing.T) {
	p := testPod("web-old-0", "old-0", true)
	got, err := takeLabels(&p, "restart-uid", []string{"pod-template-hash"})
	if err != nil {
		t.Fatal(err)
	}
	const release = `{"metadata":{"annotations":{"nodeagent.dev/labels-taken":"{\"pod-template-hash\":\"abc\"}"},"labels":{"nodeagent.dev/restart-uid":"restart-uid","pod-template-hash":null},"resourceVersion":"7","uid":"old-0"}}`
	if string(got) != release {
		t.Errorf("got  %s\nwant %s", got, release)
	}
	delete(p.Labels, "pod-template-hash")
	p.Annotations = map[string]string{v1alpha1.AnnotationLabelsTaken: `{"pod-template-hash":"abc"}`}
	got, err = takeLabels(&p, "restart-uid", []string{"app"})
	if err != nil || !strings.Contains(string(got), `{\"app\":\"web\",\"pod-template-hash\":\"abc\"}`) {
		t.Errorf("the record of both is %s, %v", got, err)
	}
	got, err = giveLabels(&p)
	const back = `{"metadata":{"annotations":{"nodeagent.dev/labels-taken":null},"labels":{"nodeagent.dev/restart-uid":null,"pod-template-hash":"abc"},"resourceVersion":"7","uid":"old-0"}}`
	if err != nil || string(got) != back {
		t.Errorf("got  %s, %v\nwant %s", got, err, back)
	}
}

func TestReleaseKey(t *testing.T) {
	set := func(selector *metav1.LabelSelector) World {
		w := testWorld(KindReplicaSet)
		w.Target.ReplicaSet.Spec.Selector = selector
		w.Services = []corev1.Service{webService()}
		return w
	}
	tests := []struct {
		name  string
		world World
		want  string
		dips  bool
	}{
		{"Deployment", onePod(KindDeployment), "pod-template-hash", false},
		{"only the Service's label", set(selector()), "app", true},
		{"one that no Service selects by", set(&metav1.LabelSelector{MatchLabels: map[string]string{"app": "web", "pod-template-hash": "abc"}}), "pod-template-hash", false},
		{"one that has to exist", set(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "pod-template-hash", Operator: metav1.LabelSelectorOpExists}}}), "pod-template-hash", false},
		{"none", set(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: metav1.LabelSelectorOpDoesNotExist}}}), "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if key, dips := releaseKey(test.world, &test.world.Pods[0]); key != test.want || dips != test.dips {
				t.Errorf("got %q, dips %v, want %q, %v", key, dips, test.want, test.dips)
			}
		})
	}
}

func TestServes(t *testing.T) {
	second := webService()
	second.Name = "admin"
	both := []corev1.Service{webService(), second}
	for _, test := range []struct {
		name     string
		services []corev1.Service
		uid      string
		want     bool
	}{
		{"no Service", nil, "new-0", true}, {"its Service", both[:1], "new-0", true},
		{"another pod", both[:1], "new-1", false}, {"one of two", both, "new-0", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := serves(test.services, sends("old-0", "new-0"), types.UID(test.uid)); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
