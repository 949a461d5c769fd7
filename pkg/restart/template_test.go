package restart

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestStampPatch(t *testing.T) {
	w := begun(KindDeployment)
	got, err := stampPatch(w.Target, stamp(w.Restart))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"metadata":{"resourceVersion":"7","uid":"target"},"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-03-01T12:00:00Z"}}}}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestHashTemplateLeavesTheStampOut(t *testing.T) {
	bare, stamped, annotated := podTemplate(), podTemplate(), podTemplate()
	stamped.Annotations = map[string]string{restartedAt: "x"}
	annotated.Annotations = map[string]string{restartedAt: "x", "other": "y"}
	if hashTemplate(bare) != hashTemplate(stamped) {
		t.Error("the stamp changes the hash")
	}
	if hashTemplate(bare) == hashTemplate(annotated) {
		t.Error("another annotation does not change the hash")
	}
	if stamped.Annotations[restartedAt] != "x" {
		t.Error("hashing changed the template")
	}
}

func TestStallReason(t *testing.T) {
	waiting := func(reason, message string) corev1.Pod {
		p := testPod("web-new-0", "new-0", false)
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name:  "web",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
		}}
		return p
	}
	crashing := waiting("CrashLoopBackOff", "back-off 10s")
	crashing.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 3}
	unschedulable := testPod("web-new-0", "new-0", false)
	unschedulable.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/2 nodes are available"}}
	unprobed := testPod("web-new-0", "new-0", false)
	unprobed.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "web", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	again := testPod("web-new-0", "new-0", false)
	again.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "web", RestartCount: 2, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}},
	}}
	ended := testPod("web-new-0", "new-0", false)
	ended.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "web", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}},
	}}
	tests := []struct {
		name string
		pod  corev1.Pod
		want string
	}{
		{"between two crashes", again, "Container web of pod web-new-0 ended with exit code 3 (restart count 2)."},
		{"image", waiting("ImagePullBackOff", "not found"), "Container web of pod web-new-0 waits in ImagePullBackOff (not found)."},
		{"crash loop", crashing, "Container web of pod web-new-0 waits in CrashLoopBackOff (back-off 10s), last exit code 3."},
		{"ended", ended, "Container web of pod web-new-0 ended with exit code 3 (restart count 0)."},
		{"unschedulable", unschedulable, "Pod web-new-0 cannot be scheduled: 0/2 nodes are available."},
		{"probe", unprobed, "Container web of pod web-new-0 runs but its readiness probe fails."},
		{"something else", testPod("web-new-0", "new-0", false), "Pod web-new-0 is Running and not Ready."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := stampedWorld(KindDeployment, v1alpha1.PhaseRunning)
			w.Pods = append(w.Pods, test.pod)
			if got := stallReason(w); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
