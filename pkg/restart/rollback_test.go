package restart

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// late is after the deadline of a restart that was begun at noon.
func late(w *World) { w.Now = noon().Add(11 * time.Minute) }

func onStall(choice v1alpha1.OnStall) func(*World) {
	return func(w *World) {
		late(w)
		w.OnStall, w.OnStallSaid = choice, "the annotation nodeagent.dev/on-stall of deployment/web is "+string(choice)
	}
}

// brokenWorld is in its middle, past the deadline, with a new pod that is not
// Ready beside the old ones.
func brokenWorld(kind string) World {
	w := stampedWorld(kind, v1alpha1.PhaseRunning)
	if kind == KindDaemonSet {
		w.Restart.Spec.Scope, w.Restart.Status.Method = v1alpha1.ScopeWorkload, v1alpha1.MethodTemplate
		w.Restart.Status.Template = recordTemplate(podTemplate())
	}
	w.Pods = append(oldPods(), testPod("web-new-0", "new-0", false))
	onStall(v1alpha1.OnStallRollback)(&w)
	return w
}

// rollingBack is what follows on brokenWorld.
func rollingBack(kind string) World {
	w := beginning(brokenWorld(kind))
	w.OnStall, w.OnStallSaid = "", ""
	return w
}

// backWorld is rollingBack with the template written back.
func backWorld(kind string) World {
	w := rollingBack(kind)
	setStamp(&w, "")
	return w
}

func TestRollBack(t *testing.T) {
	const stalled, back = v1alpha1.PhaseStalled, v1alpha1.PhaseRollingBack
	stuck := func(w *World) { w.Now = w.Now.Add(defaultDeadline) }
	whole := func(w *World) { rolledOut(w); w.Pods = oldPods() }
	another := func(w *World) { w.Target.Deployment.Spec.Template.Spec.Containers[0].Image = "web:2" }
	for _, test := range []struct {
		name  string
		world World
		but   func(*World)
		want  Action
		phase v1alpha1.Phase
		says  string
	}{
		{"by choice", brokenWorld(KindDeployment), nil, Report, back, "Pod web-new-0 is Running and not Ready. It is rolled back: the annotation nodeagent.dev/on-stall of deployment/web is rollback."},
		{"by choice, a StatefulSet", brokenWorld(KindStatefulSet), nil, Report, back, "It is rolled back"},
		{"by choice, a DaemonSet", brokenWorld(KindDaemonSet), nil, Report, back, "It is rolled back"},
		{"before the deadline", brokenWorld(KindDeployment), func(w *World) { w.Now = noon() }, Wait, "", ""},
		{"left by choice", brokenWorld(KindDeployment), onStall(v1alpha1.OnStallLeave), End, stalled, "not Ready. Nothing more is done; old pods"},
		{"nobody chose", brokenWorld(KindDeployment), onStall(""), End, stalled, "not Ready. Nothing more is done; old pods"},
		{"chosen in words that nobody knows", brokenWorld(KindDeployment), onStall("rollBack"), End, stalled, "deployment/web is rollBack, which is neither leave nor rollback. Nothing more"},
		{"no old pod is left", brokenWorld(KindDeployment), func(w *World) { w.Pods = w.Pods[2:] }, End, stalled, "It is not rolled back, for no old pod is left. Nothing more"},
		{"the old pods are going", brokenWorld(KindDeployment), func(w *World) {
			w.Pods = []corev1.Pod{going(w.Pods[0]), going(w.Pods[1]), w.Pods[2]}
		}, End, stalled, "for no old pod is left"},
		{"it is only slow", brokenWorld(KindDeployment), func(w *World) { w.Pods = append(oldPods()[:1], newPods()...) }, End, stalled, "for more pods are new and Ready than old. Nothing more"},
		{"changed by somebody before", brokenWorld(KindDeployment), another, End, v1alpha1.PhaseFailed, "Somebody else changed"},
		{"stalled before it was stamped", begun(KindDeployment), onStall(v1alpha1.OnStallRollback), End, stalled, "Nothing more is done"},
		{"stalled after it was rolled out", stampedWorld(KindDeployment, v1alpha1.PhaseVerifying), func(w *World) {
			onStall(v1alpha1.OnStallRollback)(w)
			w.Target.Deployment.Status.AvailableReplicas = 1
		}, End, stalled, "Nothing more is done"},
		{"pod by pod it is undone anyway", stampedWorld(KindDaemonSet, v1alpha1.PhaseRunning), func(w *World) {
			onStall(v1alpha1.OnStallRollback)(w)
			w.Trouble = "a budget says no"
		}, End, stalled, "a budget says no. Nothing more is done"},

		{"the template is written", rollingBack(KindDeployment), nil, RollBack, "", ""},
		{"meanwhile no old pod is left", rollingBack(KindDeployment), func(w *World) { w.Pods = newPods() }, End, stalled, "meanwhile no old pod is left"},
		{"another node's is left", rollingBack(KindDeployment), func(w *World) { w.Restart.Status.Holder = nodeB }, Rest, "", ""},
		{"it cannot be written, and is tried again", rollingBack(KindDeployment), func(w *World) { w.Trouble = "a webhook says no" }, RollBack, "", ""},
		{"it cannot be written, time to renew", rollingBack(KindDeployment), func(w *World) {
			w.Now, w.Trouble = w.Now.Add(renewEvery), "a webhook says no"
		}, Report, back, "not Ready. Rolling it back is tried again: a webhook says no."},
		{"it cannot be written for long", rollingBack(KindDeployment), func(w *World) { stuck(w); w.Trouble = "a webhook says no" }, End, stalled, "not Ready. It could not be rolled back: a webhook says no."},
		{"taken up after long, it is tried", rollingBack(KindDeployment), stuck, RollBack, "", ""},
		{"changed by somebody", rollingBack(KindDeployment), another, End, stalled, "somebody else changed the pod template of deployment/web"},
		{"restarted by somebody", rollingBack(KindDeployment), func(w *World) { setStamp(w, "2026-03-01T12:05:00Z") }, End, stalled, "somebody else changed"},
		{"deleted", rollingBack(KindDeployment), func(w *World) { w.Target = nil }, End, v1alpha1.PhaseFailed, "deleted meanwhile"},

		{"written, and not seen", backWorld(KindDeployment), nil, Wait, "", "It is rolled back: 0 of 2 pods have the earlier template, 2 are available. Pod web-new-0"},
		{"written, time to renew", backWorld(KindDeployment), func(w *World) { w.Now = w.Now.Add(renewEvery) }, Report, back, "Not complete after 10m0s. Pod web-new-0"},
		{"written, then changed by somebody", backWorld(KindDeployment), another, End, stalled, "somebody else changed"},
		{"written, then stamped again by somebody", backWorld(KindDeployment), func(w *World) { setStamp(w, "2026-03-01T12:15:00Z") }, End, stalled, "somebody else changed"},
		{"whole again", backWorld(KindDeployment), whole, End, stalled, "not Ready. It was rolled back and is whole again: 2 pods available, 2 of them from before the restart."},
		{"whole again, with one pod made anew", backWorld(KindDeployment), func(w *World) { whole(w); w.Pods = append(newPods()[:1], oldPods()[0]) }, End, stalled, "2 pods available, 1 of them from before"},
		{"whole again past all time", backWorld(KindDeployment), func(w *World) { whole(w); stuck(w) }, End, stalled, "is whole again"},
		{"a DaemonSet whole again", backWorld(KindDaemonSet), func(w *World) {
			whole(w)
			w.Target.DaemonSet.Status.NumberAvailable = 3
		}, End, stalled, "3 pods available, 1 of them from before"},
		{"not whole for long", backWorld(KindDeployment), stuck, End, stalled, "It was rolled back, and is not whole again after 10m0s: 0 of 2 pods have the earlier template, 2 are available. Pod web-new-0 is Running and not Ready."},
		{"a StatefulSet hangs on a broken pod", backWorld(KindStatefulSet), stuck, End, stalled, "deleted by hand (kubernetes #67250)"},
		{"why it stalled was taken out", backWorld(KindDeployment), func(w *World) { whole(w); w.Restart.Status.Conditions = nil }, End, stalled, "Not complete after 10m0s. It was rolled back and is whole again"},
		{"the third in a day", backWorld(KindDeployment), func(w *World) {
			whole(w)
			w.Restart.Status.History = []v1alpha1.RestartRecord{stalledRecord(time.Hour), stalledRecord(2 * time.Hour)}
		}, End, stalled, "It was the third within 24 hours. No more automatic restarts of it until somebody clears that: kubectl delete restart -n shop deployment-web"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := test.world
			if test.but != nil {
				test.but(&w)
			}
			got := Next(w)
			if got.Action != test.want || got.Phase != test.phase || !strings.Contains(got.Message, test.says) {
				t.Fatalf("got %s to phase %q (%s), want %s to %q (%s)", got.Action, got.Phase, got.Message, test.want, test.phase, test.says)
			}
			if got.Action == Report || got.Action == End {
				if _, err := nextStatus(w, got); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func stalledRecord(ago time.Duration) v1alpha1.RestartRecord {
	return v1alpha1.RestartRecord{
		Reason: v1alpha1.ReasonDiskFill, Phase: v1alpha1.PhaseStalled, Node: nodeA, Finished: new(metav1.NewTime(noon().Add(-ago))),
	}
}

// A stall that is rolled back can be repeated: not without end.
func TestStallsAreCounted(t *testing.T) {
	manual, refused, succeeded := stalledRecord(3*time.Hour), stalledRecord(time.Minute), stalledRecord(3*time.Hour)
	manual.Reason, refused.Phase, succeeded.Phase = v1alpha1.ReasonManual, v1alpha1.PhaseRefused, v1alpha1.PhaseSucceeded
	one, two, three := stalledRecord(time.Hour), stalledRecord(2*time.Hour), stalledRecord(4*time.Hour)
	old := stalledRecord(26 * time.Hour)
	elsewhere := stalledRecord(90 * time.Minute)
	elsewhere.Node = nodeB
	want := v1alpha1.RestartSpec{Scope: v1alpha1.ScopeWorkload, Reason: v1alpha1.ReasonDiskFill, Node: nodeA}
	pod := want
	pod.Scope = v1alpha1.ScopePod
	for _, test := range []struct {
		name    string
		want    v1alpha1.RestartSpec
		history []v1alpha1.RestartRecord
		too     bool
	}{
		{"two", want, []v1alpha1.RestartRecord{one, two}, false},
		{"three", want, []v1alpha1.RestartRecord{one, two, three}, true},
		{"three, and one was refused since", want, []v1alpha1.RestartRecord{refused, one, two, three}, true},
		{"two and a good one", want, []v1alpha1.RestartRecord{one, two, succeeded}, true},
		{"two since a person's", want, []v1alpha1.RestartRecord{one, two, manual, three}, false},
		{"the third is too old", want, []v1alpha1.RestartRecord{one, two, old}, false},
		{"one of another node's pod", pod, []v1alpha1.RestartRecord{one, elsewhere, two}, false},
		{"three of this node's pod", pod, []v1alpha1.RestartRecord{one, elsewhere, two, three}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			existing := &v1alpha1.Restart{Status: v1alpha1.RestartStatus{Phase: v1alpha1.PhaseStalled, History: test.history}}
			got := decide(existing, test.want, Options{Cooldown: time.Second}.withDefaults(), noon()).Kind
			if want := map[bool]OutcomeKind{true: Ineffective, false: Renewed}[test.too]; got != want {
				t.Errorf("outcome %s, want %s", got, want)
			}
		})
	}
}

func TestOnStall(t *testing.T) {
	note := func(value string) map[string]string { return map[string]string{v1alpha1.AnnotationOnStall: value} }
	for _, test := range []struct {
		name                    string
		asked                   v1alpha1.OnStall
		ofNamespace, ofWorkload map[string]string
		want                    v1alpha1.OnStall
		says                    string
	}{
		{"configured", "", nil, map[string]string{"x": "y"}, v1alpha1.OnStallLeave, "restart.onStall is leave"},
		{"by the namespace", "", note("rollback"), nil, v1alpha1.OnStallRollback, "the annotation nodeagent.dev/on-stall of namespace shop is rollback"},
		{"by the workload", "", note("rollback"), note("leave"), v1alpha1.OnStallLeave, "of deployment/web is leave"},
		{"by the person who asks", v1alpha1.OnStallRollback, nil, note("leave"), v1alpha1.OnStallRollback, "the Restart's onStall is rollback"},
		{"in words that nobody knows", "", note("rollback"), note("yes"), "yes", "of deployment/web is yes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := notes{namespace: "namespace shop", workload: "deployment/web", ofNamespace: test.ofNamespace, ofWorkload: test.ofWorkload}
			got, said := onStallOf(test.asked, v1alpha1.OnStallLeave, n)
			if got != test.want || !strings.HasSuffix(said, test.says) {
				t.Errorf("%s (%s), want %s (%s)", got, said, test.want, test.says)
			}
		})
	}
}

// What nobody knows is told before anything is begun, too.
func TestOnStallIsToldBefore(t *testing.T) {
	w := testWorld(KindDeployment)
	w.OnStall, w.OnStallSaid = "revert", "the annotation nodeagent.dev/on-stall of deployment/web is revert"
	if s := Next(w); s.Action != Begin || !strings.Contains(s.Message, "deployment/web is revert, which is neither leave nor rollback") {
		t.Errorf("%+v", s)
	}
	w.OnStall = v1alpha1.OnStallRollback
	if s := Next(w); s.Action != Begin || strings.Contains(s.Message, "olled back") {
		t.Errorf("%+v", s)
	}
}

// A kind that makes new pods of an earlier template is not rolled back, and says
// so before anything is begun.
func TestOneWay(t *testing.T) {
	const text = `
spec:
  replicas: 2
  selector: {app: web}
  triggers: [{type: ConfigChange}]` + otherTemplate + `
status: {observedGeneration: 3, replicas: 2, updatedReplicas: 2, availableReplicas: 2}
`
	const says = "A stall is not rolled back: of the template from before a DeploymentConfig makes new pods too"
	w := other(t, "apps.openshift.io/v1", "DeploymentConfig", text)
	w.OnStall = v1alpha1.OnStallLeave
	if s := Next(w); s.Action != Begin || strings.Contains(s.Message, "olled back") {
		t.Errorf("left: %+v", s)
	}
	w.OnStall = v1alpha1.OnStallRollback
	if s := Next(w); s.Action != Begin || !strings.Contains(s.Message, says) {
		t.Errorf("before: %+v", s)
	}
	w = beginning(w)
	w.Restart.Status.Phase = v1alpha1.PhaseRunning
	if err := unstructured.SetNestedField(w.Target.Other.object.Object, stamp(w.Restart), "spec", "template", "metadata", "annotations", restartedAt); err != nil {
		t.Fatal(err)
	}
	w.Pods = append(oldPods(), testPod("web-new-0", "new-0", false))
	onStall(v1alpha1.OnStallRollback)(&w)
	if err := unstructured.SetNestedField(w.Target.Other.object.Object, int64(0), "status", "updatedReplicas"); err != nil {
		t.Fatal(err)
	}
	if s := Next(w); s.Action != End || s.Phase != v1alpha1.PhaseStalled || !strings.Contains(s.Message, says) || !strings.Contains(s.Message, "oc rollout cancel dc/web") {
		t.Errorf("stalled: %+v", s)
	}
}

func TestRollBackPatch(t *testing.T) {
	for _, test := range []struct {
		name  string
		notes map[string]string
		value string
		want  string
	}{
		{"none before", map[string]string{restartedAt: "x"}, "", `"annotations":null`},
		{"none before, and another annotation", map[string]string{restartedAt: "x", "a": "b"}, "", `"annotations":{"kubectl.kubernetes.io/restartedAt":null}`},
		{"one before", map[string]string{restartedAt: "x"}, "2026-01-01T12:00:00Z", `"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-01-01T12:00:00Z"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := begun(KindDeployment)
			w.Target.Deployment.Spec.Template.Annotations = test.notes
			got, err := stampPatch(w.Target, test.value)
			if err != nil {
				t.Fatal(err)
			}
			if want := `{"metadata":{"resourceVersion":"7","uid":"target"},"spec":{"template":{"metadata":{` + test.want + `}}}}`; string(got) != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}
