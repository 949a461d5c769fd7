package restart

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestNext(t *testing.T) {
	const (
		pending, running, verifying = v1alpha1.PhasePending, v1alpha1.PhaseRunning, v1alpha1.PhaseVerifying
		succeeded, stalled          = v1alpha1.PhaseSucceeded, v1alpha1.PhaseStalled
		failed, refused             = v1alpha1.PhaseFailed, v1alpha1.PhaseRefused
	)
	tests := []struct {
		name  string
		world World
		but   func(*World)
		want  Action
		phase v1alpha1.Phase
		says  string
	}{
		{"new is taken up", testWorld(KindDeployment), nil, Begin, pending, "Taken up by node-a"},
		{"another node's is left", testWorld(KindDeployment), func(w *World) { w.Restart.Spec.Node = nodeB }, Rest, "", ""},
		{"being deleted is left", testWorld(KindDeployment), func(w *World) { w.Restart.DeletionTimestamp = new(metav1.Now()) }, Rest, "", ""},
		{"of no target", testWorld(KindDeployment), func(w *World) { w.Target = nil }, End, failed, "There is no deployment/web"},
		{"of a target on its way out", testWorld(KindDeployment), func(w *World) { w.Target.Deployment.DeletionTimestamp = new(metav1.Now()) }, End, failed, "is being deleted"},
		{"of a paused target", testWorld(KindDeployment), func(w *World) { w.Target.Deployment.Spec.Paused = true }, End, refused, "paused"},
		{"of a target whose controller lags", testWorld(KindDeployment), func(w *World) {
			w.Target.Deployment.Generation++
			w.Restart.Spec.RequestedAt = metav1.NewMicroTime(w.Now.Add(time.Second - unseenFor))
		}, Wait, "", "has not seen its last change"},
		{"of a target whose controller is away", testWorld(KindDeployment), func(w *World) {
			w.Target.Deployment.Generation++
			w.Restart.Spec.RequestedAt = metav1.NewMicroTime(w.Now.Add(-unseenFor))
		}, End, refused, "rollout is in progress"},
		{"of an unknown kind", testWorld("CloneSet"), nil, End, refused, "is not known"},

		{"begun is stamped", begun(KindDeployment), nil, Stamp, "", ""},
		{"begun, a StatefulSet", begun(KindStatefulSet), nil, Stamp, "", ""},
		{"begun by another node", begun(KindDeployment), func(w *World) { w.Restart.Status.Holder = nodeB }, Rest, "", ""},
		{"begun, then paused", begun(KindDeployment), func(w *World) { w.Target.Deployment.Spec.Paused = true }, End, refused, "paused"},
		{"begun, then the target is gone", begun(KindDeployment), func(w *World) { w.Target = nil }, End, failed, "deleted meanwhile"},
		{"begun, then the target is on its way out", begun(KindDeployment), func(w *World) { w.Target.Deployment.DeletionTimestamp = new(metav1.Now()) }, End, failed, "is being deleted"},
		{"begun, then made anew", begun(KindDeployment), func(w *World) { w.Target.Deployment.UID = "other" }, End, failed, "made anew"},
		{"begun, then changed by somebody", begun(KindDeployment), func(w *World) {
			w.Target.Deployment.Spec.Template.Spec.Containers[0].Image = "web:2"
		}, End, refused, "before the restart began"},
		{"begun, then restarted by somebody", begun(KindDeployment), func(w *World) { setStamp(w, "2026-03-01T12:00:09Z") }, End, refused, "before the restart began"},
		{"begun, then nobody for long", begun(KindDeployment), late, End, stalled, "Not complete after 10m0s"},
		{"stamped by one that died", stampedWorld(KindDeployment, pending), nil, Report, running, "0 of 2|2 of 2"},
		{"stamped by one that died, then reverted", begun(KindDeployment), func(w *World) {
			set := appsv1.ReplicaSet{}
			set.Spec.Template.Annotations = map[string]string{restartedAt: stamp(w.Restart)}
			w.ReplicaSets = []appsv1.ReplicaSet{set}
		}, End, failed, "took the restart's annotation out"},

		{"stamped by one that died, then changed by somebody", begun(KindDeployment), func(w *World) {
			w.Pods = append(w.Pods, testPod("web-new-0", "new-0", true))
			w.Pods[2].Annotations = map[string]string{restartedAt: stamp(w.Restart)}
			w.Target.Deployment.Spec.Template.Spec.Containers[0].Image = "web:2"
		}, End, failed, "Somebody else changed"},

		{"rolling", stampedWorld(KindDeployment, running), nil, Wait, "", ""},
		{"rolling, time to renew", stampedWorld(KindDeployment, running), func(w *World) { w.Now = noon().Add(10 * time.Second) }, Report, running, ""},
		{"rolling past the deadline", stampedWorld(KindDeployment, running), late, End, stalled, "keep serving"},
		{"rolled out", stampedWorld(KindDeployment, running), rolledOut, Report, verifying, ""},
		{"rolled out past the deadline", stampedWorld(KindDeployment, running), func(w *World) { late(w); rolledOut(w) }, Report, verifying, ""},
		{"rolling, changed by somebody", stampedWorld(KindDeployment, running), func(w *World) {
			w.Target.Deployment.Spec.Template.Spec.Containers[0].Image = "web:2"
		}, End, failed, "Somebody else changed"},
		{"rolling, restarted by somebody", stampedWorld(KindDeployment, running), func(w *World) { setStamp(w, "2026-03-01T12:03:00Z") }, End, failed, "Somebody else changed"},
		{"rolling, reverted", stampedWorld(KindDeployment, running), func(w *World) { w.Target.Deployment.Spec.Template.Annotations = nil }, End, failed, "GitOps"},
		{"a StatefulSet rolled out", stampedWorld(KindStatefulSet, running), rolledOut, Report, verifying, ""},

		{"rolling, paused by somebody, past the deadline", stampedWorld(KindDeployment, running), func(w *World) {
			late(w)
			w.Target.Deployment.Spec.Paused = true
		}, End, stalled, "The Deployment was paused meanwhile."},
		{"rolling, no pod can be made, past the deadline", stampedWorld(KindDeployment, running), func(w *World) {
			late(w)
			w.Target.Deployment.Status.Conditions = []appsv1.DeploymentCondition{{
				Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota: small",
			}}
		}, End, stalled, "New pods cannot be made: exceeded quota: small."},

		{"old pods terminating", stampedWorld(KindDeployment, verifying), func(w *World) {
			rolledOut(w)
			w.Pods = append(w.Pods, going(oldPods()[0]))
		}, Wait, "", "1 old ones are still terminating"},
		{"old pods terminating past the deadline", stampedWorld(KindDeployment, verifying), func(w *World) {
			late(w)
			rolledOut(w)
			w.Pods = append(w.Pods, going(oldPods()[0]))
		}, End, stalled, "web-old-0 is still terminating"},
		{"a new pod fell over", stampedWorld(KindDeployment, verifying), func(w *World) {
			rolledOut(w)
			w.Target.Deployment.Status.AvailableReplicas = 1
		}, Wait, "", "1 are available"},
		{"old pods terminating, then changed by somebody", stampedWorld(KindDeployment, verifying), func(w *World) {
			rolledOut(w)
			w.Pods = append(w.Pods, going(oldPods()[0]))
			w.Target.Deployment.Spec.Template.Spec.Containers[0].Image = "web:2"
		}, End, failed, "Somebody else changed"},
		{"all gone, for the third time in a day", stampedWorld(KindDeployment, verifying), func(w *World) {
			rolledOut(w)
			past := v1alpha1.RestartRecord{Reason: v1alpha1.ReasonDiskFill, Phase: succeeded, Finished: new(metav1.NewTime(noon().Add(-time.Hour)))}
			w.Restart.Status.History = []v1alpha1.RestartRecord{past, past}
		}, End, v1alpha1.PhaseIneffective, "It was the third within 24 hours. No more automatic restarts"},
		{"all gone, and nothing was freed", stampedWorld(KindDeployment, verifying), func(w *World) {
			rolledOut(w)
			replaced(w)
			w.Written = map[string]Written{"old-0": {Bytes: 4096, Held: true}, "old-1": {Bytes: 4096, Held: true}}
			w.Now = noon().Add(releaseWait)
		}, End, v1alpha1.PhaseIneffective, "It freed nothing."},
		{"all gone and free", stampedWorld(KindDeployment, verifying), rolledOut, End, succeeded, "2 pods replaced in 0s."},
		{"gone, space held", stampedWorld(KindDeployment, verifying), func(w *World) { rolledOut(w); held(w) }, Report, verifying, "space is on its way"},
		{"gone and told so, space held", stampedWorld(KindDeployment, verifying), func(w *World) { rolledOut(w); held(w); replaced(w) }, Wait, "", "is still held"},
		{"gone and told so, space held past the deadline", stampedWorld(KindDeployment, verifying), func(w *World) {
			late(w)
			rolledOut(w)
			held(w)
			replaced(w)
		}, End, succeeded, "was not seen to go"},
		{"gone and told so, space held for too long", stampedWorld(KindDeployment, verifying), func(w *World) {
			rolledOut(w)
			held(w)
			replaced(w)
			w.Now = noon().Add(releaseWait)
		}, End, succeeded, "the space of 1 pod was not seen to go"},
		{"gone and told so, then changed by somebody", stampedWorld(KindDeployment, verifying), func(w *World) {
			rolledOut(w)
			replaced(w)
			w.Target.Deployment.Spec.Template.Spec.Containers[0].Image = "web:2"
		}, End, succeeded, ""},

		{"a DaemonSet's pod is evicted", begun(KindDaemonSet), nil, Evict, "", ""},
		{"evicted by one that died", begun(KindDaemonSet), func(w *World) { w.Pods[0] = going(w.Pods[0]) }, Report, running, ""},
		{"evicted and gone", begun(KindDaemonSet), func(w *World) { w.Pods = nil }, Report, running, ""},
		{"eviction refused for too long", begun(KindDaemonSet), func(w *World) { late(w); w.Trouble = "budget" }, End, stalled, "budget"},
		{"its next is not there", stampedWorld(KindDaemonSet, running), func(w *World) { w.Pods = nil }, Wait, "", "not there yet"},
		{"its next is not Ready", stampedWorld(KindDaemonSet, running), func(w *World) {
			w.Pods = []corev1.Pod{testPod("web-new-0", "new-0", false)}
		}, Wait, "", "not Ready yet"},
		{"its next is Ready", stampedWorld(KindDaemonSet, running), func(w *World) { w.Pods = newPods()[:1] }, Report, verifying, ""},
		{"its next is Ready, all gone", stampedWorld(KindDaemonSet, verifying), func(w *World) { w.Pods = newPods()[:1] }, End, succeeded, "1 pod replaced"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := test.world
			if test.but != nil {
				test.but(&w)
			}
			got := Next(w)
			if got.Action != test.want || got.Phase != test.phase {
				t.Fatalf("got %s to phase %q (%s), want %s to %q", got.Action, got.Phase, got.Message, test.want, test.phase)
			}
			if says := strings.Split(test.says, "|"); !containsAny(got.Message, says) {
				t.Errorf("message %q, want %q", got.Message, test.says)
			}
			if got.Action == Begin || got.Action == Report || got.Action == End {
				if _, err := nextStatus(w, got); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func containsAny(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// held says that an old pod's layers are still on the disk.
func held(w *World) { w.Written = map[string]Written{"old-0": {Bytes: 4096, Held: true}} }

// replaced says that the end of the old pods was told at noon.
func replaced(w *World) {
	w.Restart.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionReplaced, Status: metav1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon()),
	}}
}

// The transitions that may happen are exactly these.
func TestTransitions(t *testing.T) {
	all := []v1alpha1.Phase{
		"", v1alpha1.PhaseApproval, v1alpha1.PhasePending, v1alpha1.PhaseRunning, v1alpha1.PhaseVerifying, v1alpha1.PhaseRollingBack,
		v1alpha1.PhaseSucceeded, v1alpha1.PhaseIneffective, v1alpha1.PhaseStalled, v1alpha1.PhaseFailed, v1alpha1.PhaseRefused, v1alpha1.PhaseObserved,
	}
	want := `
 → Approval Pending Failed Refused Observed
Approval → Approval Pending Failed Refused Observed
Pending → Approval Pending Running Stalled Failed Refused Observed
Running → Running Verifying RollingBack Stalled Failed
Verifying → Verifying Succeeded Ineffective Stalled Failed
RollingBack → RollingBack Stalled Failed
Succeeded →
Ineffective →
Stalled →
Failed →
Refused →
Observed →
`
	var got strings.Builder
	got.WriteString("\n")
	for _, from := range all {
		got.WriteString(string(from) + " →")
		for _, to := range all {
			if mayFollow(from, to) {
				got.WriteString(" " + string(to))
			}
		}
		got.WriteString("\n")
	}
	if got.String() != want {
		t.Errorf("transitions:%s", got.String())
	}
}

// A phase that a later version wrote is left to that version: to find it due
// and rest again would ask the API server without a pause.
func TestUnknownPhaseIsNotDue(t *testing.T) {
	r := begun(KindDeployment).Restart
	r.Status.Phase = "Later"
	if mine(r, nodeA) {
		t.Error("it is due")
	}
	if o := decide(r, r.Spec, Options{}.withDefaults(), noon()); o.Kind != Joined {
		t.Errorf("outcome %s, want %s: it is on its way", o.Kind, Joined)
	}
}
