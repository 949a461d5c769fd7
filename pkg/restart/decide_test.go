package restart

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestDecide(t *testing.T) {
	record := func(phase v1alpha1.Phase, node string, ago time.Duration) v1alpha1.RestartRecord {
		return v1alpha1.RestartRecord{Phase: phase, Node: node, Finished: new(metav1.NewTime(noon().Add(-ago)))}
	}
	existing := func(generation, observed int64, phase v1alpha1.Phase, history ...v1alpha1.RestartRecord) *v1alpha1.Restart {
		return &v1alpha1.Restart{
			ObjectMeta: metav1.ObjectMeta{Generation: generation},
			Spec:       v1alpha1.RestartSpec{Node: nodeB, RequestedAt: metav1.NewMicroTime(noon())},
			Status:     v1alpha1.RestartStatus{ObservedGeneration: observed, Phase: phase, History: history},
		}
	}
	disk := v1alpha1.RestartSpec{Node: nodeA, Reason: v1alpha1.ReasonDiskFill, Scope: v1alpha1.ScopeWorkload}
	manual, pod := disk, disk
	manual.Reason, pod.Scope = v1alpha1.ReasonManual, v1alpha1.ScopePod
	const succeeded, refused = v1alpha1.PhaseSucceeded, v1alpha1.PhaseRefused
	tests := []struct {
		name     string
		existing *v1alpha1.Restart
		want     v1alpha1.RestartSpec
		outcome  OutcomeKind
		until    time.Duration // from noon
	}{
		{"none yet", nil, disk, Created, 0},
		{"asked for, not taken up", existing(1, 0, ""), disk, Joined, 0},
		{"taken up", existing(1, 1, v1alpha1.PhasePending), disk, Joined, 0},
		{"running, a person asks", existing(1, 1, v1alpha1.PhaseRunning), manual, Joined, 0},
		{"renewed, not taken up", existing(2, 1, succeeded, record(succeeded, nodeA, 2*time.Hour)), disk, Joined, 0},
		{"just ended", existing(1, 1, succeeded, record(succeeded, nodeB, 59*time.Minute)), disk, CoolingDown, time.Minute},
		{"just ended, a person asks", existing(1, 1, succeeded, record(succeeded, nodeB, time.Minute)), manual, Renewed, 0},
		{"ended an hour ago", existing(1, 1, succeeded, record(succeeded, nodeA, time.Hour)), disk, Renewed, 0},
		{"refused just now", existing(1, 1, refused, record(refused, nodeA, 4*time.Minute)), disk, CoolingDown, 6 * time.Minute},
		{"refused a while ago", existing(1, 1, refused, record(refused, nodeA, 10*time.Minute)), disk, Renewed, 0},
		{"one that was refused does not end the cooldown of the one before", existing(2, 2, refused, record(refused, nodeA, 11*time.Minute), record(succeeded, nodeA, 12*time.Minute)), disk, CoolingDown, 48 * time.Minute},
		{"one pod, on another node just now", existing(1, 1, succeeded, record(succeeded, nodeB, time.Minute)), pod, Renewed, 0},
		{"one pod, on this node before", existing(2, 2, succeeded, record(succeeded, nodeB, time.Minute), record(succeeded, nodeA, 2*time.Minute)), pod, CoolingDown, 58 * time.Minute},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := decide(test.existing, test.want, Options{}.withDefaults(), noon())
			until := time.Time{}
			if test.until != 0 {
				until = noon().Add(test.until)
			}
			if got.Kind != test.outcome || !got.Until.Equal(until) {
				t.Errorf("got %s until %s, want %s until %s", got.Kind, got.Until, test.outcome, until)
			}
		})
	}
}

func TestName(t *testing.T) {
	long := strings.Repeat("a", 200) + strings.Repeat(".b", 26)
	other := long[:len(long)-1] + "c"
	if got := Name("Deployment", "checkout"); got != "deployment-checkout" {
		t.Error(got)
	}
	for _, name := range []string{Name("StatefulSet", long), Name("StatefulSet", other)} {
		if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
	if Name("StatefulSet", long) == Name("StatefulSet", other) {
		t.Error("two long names have one lock")
	}
}

func TestOwner(t *testing.T) {
	controlledBy := func(apiVersion, kind string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: "web-0", UID: "self", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Other", Name: "other"},
			{APIVersion: apiVersion, Kind: kind, Name: "web", UID: "owner", Controller: new(true)},
		}}
	}
	mirror := controlledBy("v1", "Node")
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	tests := []struct {
		name string
		pod  metav1.ObjectMeta
		want string // restart name
		uid  string
	}{
		{"StatefulSet", controlledBy("apps/v1", "StatefulSet"), "statefulset-web", "owner"},
		{"DaemonSet", controlledBy("apps/v1", "DaemonSet"), "daemonset-web", "owner"},
		{"Job", controlledBy("batch/v1", "Job"), "job-web", "owner"},
		{"ReplicaSet", controlledBy("apps/v1", "ReplicaSet"), "replicaset-web", "owner"},
		{"none", metav1.ObjectMeta{Name: "web-0", UID: "self"}, "pod-web-0", "self"},
		{"static pod", mirror, "pod-web-0", "self"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := directOwner(&corev1.Pod{ObjectMeta: test.pod})
			if name := Name(got.target.Kind, got.target.Name); name != test.want || got.uid != test.uid {
				t.Errorf("got %s of %s", name, got.uid)
			}
		})
	}
	set := &appsv1.ReplicaSet{ObjectMeta: controlledBy("apps/v1", "Deployment")}
	if got := ownerOfSet(owner{}, set); got.target.Kind != KindDeployment || got.scope() != v1alpha1.ScopeWorkload {
		t.Errorf("a ReplicaSet's owner is %+v", got)
	}
	if got := directOwner(&corev1.Pod{ObjectMeta: controlledBy("apps/v1", "DaemonSet")}).scope(); got != v1alpha1.ScopePod {
		t.Errorf("a DaemonSet's scope is %s", got)
	}
}

// A Restart that nobody takes up does not keep the workload from being
// restarted for ever.
func TestAbandoned(t *testing.T) {
	deployment := v1alpha1.TargetReference{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: KindDeployment, Name: "web"}
	asked := func(node string, ago time.Duration) *v1alpha1.Restart {
		return &v1alpha1.Restart{
			ObjectMeta: metav1.ObjectMeta{Generation: 1, CreationTimestamp: metav1.NewTime(noon().Add(-48 * time.Hour))},
			Spec: v1alpha1.RestartSpec{
				Target: deployment, Node: node, Reason: v1alpha1.ReasonDiskFill, RequestedAt: metav1.NewMicroTime(noon().Add(-ago)),
			},
		}
	}
	cooling := asked("", defaultDeadline)
	cooling.Generation, cooling.Status.ObservedGeneration = 2, 1
	cooling.Status.Phase = v1alpha1.PhaseSucceeded
	cooling.Status.History = []v1alpha1.RestartRecord{{Phase: v1alpha1.PhaseSucceeded, Finished: new(metav1.NewTime(noon()))}}
	running := asked(nodeB, 48*time.Hour)
	running.Status = v1alpha1.RestartStatus{ObservedGeneration: 1, Phase: v1alpha1.PhaseRunning, Holder: nodeB}
	for _, tt := range []struct {
		name     string
		existing *v1alpha1.Restart
		want     OutcomeKind
	}{
		{"just asked for by another node", asked(nodeB, time.Minute), Joined},
		{"another node's, which may be gone", asked(nodeB, defaultDeadline), Renewed},
		{"a person's, just now: the leader takes it", asked("", 0), Joined},
		{"a person's, which no leader took", asked("", defaultDeadline), Renewed},
		{"a person's, which no leader took, in the cooldown", cooling, CoolingDown},
		{"taken up by another node", running, Joined},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := v1alpha1.RestartSpec{Target: deployment, Node: nodeA, Reason: v1alpha1.ReasonDiskFill}
			if o := decide(tt.existing, want, Options{}.withDefaults(), noon()); o.Kind != tt.want {
				t.Errorf("outcome %s, want %s", o.Kind, tt.want)
			}
		})
	}
}
