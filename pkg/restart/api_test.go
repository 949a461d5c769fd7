package restart

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// stage is what one story is played on: the cluster that all share, a
// namespace and two nodes of its own.
type stage struct {
	cluster      *cluster
	kubelet      *apiserver.Kubelet
	nodeA, nodeB string
	name         string // of the story and of its namespace
}

func newStage(t *testing.T, c *cluster, k *apiserver.Kubelet, name string) *stage {
	t.Helper()
	s := &stage{cluster: c, kubelet: k, nodeA: name + "-a", nodeB: name + "-b", name: name}
	c.Namespace(t, name)
	k.Register(t, name, s.nodeA, s.nodeB)
	return s
}

func TestOnAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("-short runs the pure tests alone")
	}
	c := startCluster(t)
	k := apiserver.StartKubelet(t, c.Cluster)
	t.Run("stories", func(t *testing.T) {
		for name, story := range stories() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				story(t, newStage(t, c, k, name), name)
			})
		}
	})
	c.boundaries.wantAll(t)
	for name, story := range storiesAlone() {
		t.Run(name, func(t *testing.T) { story(t, newStage(t, c, k, name), name) })
	}
}

type story func(t *testing.T, s *stage, namespace string)

// stories are played side by side.
func stories() map[string]story {
	return map[string]story{
		"deployment":            storyDeployment,
		"statefulset":           storyStatefulSet,
		"daemonset":             storyDaemonSet,
		"refused":               storyRefused,
		"race":                  storyRace,
		"killed":                storyKilled,
		"stalled":               storyStalled,
		"target-deleted":        storyTargetDeleted,
		"template-changed":      storyTemplateChanged,
		"annotation-reverts":    storyReverted,
		"conflicts":             storyConflicts,
		"fences":                storyFences,
		"two-agents":            storyTwoAgents,
		"disruption-budget":     storyBudget,
		"one-pod":               storyOnePod,
		"one-pod-stalled":       storyOnePodStalled,
		"one-pod-orphaned":      storyOnePodOrphaned,
		"sets-by-hand":          storySetsByHand,
		"set-pod":               storySetPod,
		"set-stuck":             storySetStuck,
		"daemonset-whole":       storyDaemonSetWhole,
		"replicasets":           storyReplicaSets,
		"bare-pod":              storyBarePod,
		"bare-pod-stalled":      storyBarePodStalled,
		"jobs":                  storyJobs,
		"other-kinds":           storyOtherKinds,
		"never":                 storyNever,
		"killed-pods":           storyKilledPods,
		"killed-stalling":       storyKilledStalling,
		"abandoned":             storyAbandoned,
		"long-names":            storyLongNames,
		"owners":                storyOwners,
		"killed-elsewhere":      storyKilledElsewhere,
		"killed-waiting":        storyKilledWaiting,
		"cut-off":               storyCutOff,
		"bad-api":               storyBadAPI,
		"fenced":                storyFenced,
		"fenced-agent":          storyFencedAgent,
		"approver":              storyApprover,
		"slots":                 storySlots,
		"slot-freed":            storySlotFreed,
		"paused":                storyPaused,
		"approval":              storyApproval,
		"modes":                 storyModes,
		"windows":               storyWindows,
		"ineffective":           storyIneffective,
		"deleted-midway":        storyDeletedMidway,
		"rolled-back":           storyRolledBack,
		"not-rolled-back":       storyNotRolledBack,
		"rolled-back-changed":   storyRolledBackChanged,
		"rolled-back-sets":      storyRolledBackSets,
		"rolled-back-elsewhere": storyRolledBackElsewhere,
		"rollback-denied":       storyRollBackDenied,
		"node-taint":            storyNodeTaint,
		"taint-left":            storyTaintLeft,
		"taint-conflict":        storyTaintConflict,
		"taint-away":            storyTaintAway,
		"fenced-node":           storyFencedNode,
		"role-taint":            storyRoleTaint,
	}
}

// storiesAlone are played after the others: they do things to the API server,
// or to everybody's patience.
func storiesAlone() map[string]story {
	return map[string]story{"rounds": storyRounds, "api-restart": storyAPIRestart, "not-fenced": storyNotFenced}
}

// agent is one node's restart machinery, as cmd/nodeagent wires it.
type agent struct {
	requester  *Requester
	controller *Controller
	registry   *prometheus.Registry
}

func (s *stage) agent(t *testing.T, o Options) *agent {
	t.Helper()
	return s.agentVia(t, s.cluster.Config, o)
}

// agentVia is one that reaches the API by a way of its own.
func (s *stage) agentVia(t *testing.T, config *rest.Config, o Options) *agent {
	t.Helper()
	if o.Namespace == "" {
		o.Namespace = s.name
	}
	if o.Limits == (Limits{}) {
		o.Limits = Limits{1000, 1000, 1000}
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", o.Node)
	c, err := NewClient(config, log)
	if err != nil {
		t.Fatal(err)
	}
	events, registry := NewEvents(c, o.Node, time.Now, log), prometheus.NewRegistry()
	events.patience = patience // the machine may be busy, and what is told is looked at
	a := &agent{registry: registry}
	a.requester = NewRequester(c, o, events, log)
	a.controller = NewController(c, o, s.kubelet, events, NewMetrics(registry), log)
	a.controller.poll = 100 * time.Millisecond
	a.controller.guarded = s.name
	return a
}

// run starts the controller and gives what ends it and waits for it. What it
// does besides writing a Restart's status is done then: Events, metrics, slots.
func (a *agent) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = a.controller.Run(ctx) })
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return stop
}

func (a *agent) request(t *testing.T, pod *corev1.Pod, reason v1alpha1.Reason) Outcome {
	t.Helper()
	outcome, err := a.requester.Request(t.Context(), Request{
		Pod:     Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)},
		Reason:  reason,
		Message: "/app/debug.log in " + pod.Name + " grows.",
	})
	if err != nil {
		t.Fatal(err)
	}
	return outcome
}

func podTemplate() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "web", Image: "web:1",
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}},
		}}},
	}
}

func selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
}

// deployment makes one of three replicas and waits until it is available.
func (s *stage) deployment(t *testing.T, namespace, name string) *appsv1.Deployment {
	t.Helper()
	template := podTemplate()
	template.Labels = map[string]string{"app": name}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(3)), Template: template,
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels},
		},
	}
	s.cluster.Create(t, d)
	s.settle(t, d, func() bool { return rolloutDeployment(d).complete })
	return d
}

// settle reads an object until it is as it should be.
func (s *stage) settle(t *testing.T, o client.Object, so func() bool) {
	t.Helper()
	apiserver.Eventually(t, 60*time.Second, o.GetName()+" settles", func() bool {
		return s.cluster.Admin.Get(t.Context(), client.ObjectKeyFromObject(o), o) == nil && so()
	})
}

func (s *stage) pods(t *testing.T, namespace, app string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := s.cluster.Admin.List(t.Context(), &list, client.InNamespace(namespace), client.MatchingLabels{"app": app}); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// podOn is a pod of an app on a node.
func (s *stage) podOn(t *testing.T, namespace, app, node string) *corev1.Pod {
	t.Helper()
	for _, p := range s.pods(t, namespace, app) {
		if p.Spec.NodeName == node && p.DeletionTimestamp == nil {
			return &p
		}
	}
	t.Fatalf("no pod of %s on %s", app, node)
	return nil
}

func (s *stage) restart(t *testing.T, namespace, name string) *v1alpha1.Restart {
	t.Helper()
	var r v1alpha1.Restart
	if err := s.cluster.Admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// ended waits for the end of a Restart and gives it.
func (s *stage) ended(t *testing.T, namespace, name string) *v1alpha1.Restart {
	t.Helper()
	return s.until(t, namespace, name, func(r *v1alpha1.Restart) bool { return !active(r) })
}

func (s *stage) until(t *testing.T, namespace, name string, so func(*v1alpha1.Restart) bool) *v1alpha1.Restart {
	t.Helper()
	r := &v1alpha1.Restart{}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for {
		err := s.cluster.Admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, r)
		if err == nil && so(r) {
			return r
		}
		select {
		case <-ctx.Done():
			t.Fatalf("Restart %s/%s is still %s (%s), %v", namespace, name, r.Status.Phase, r.Status.Message, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func wantPhase(t *testing.T, r *v1alpha1.Restart, phase v1alpha1.Phase, words ...string) {
	t.Helper()
	if r.Status.Phase != phase {
		t.Fatalf("phase is %s (%s), want %s", r.Status.Phase, r.Status.Message, phase)
	}
	for _, w := range words {
		if !strings.Contains(r.Status.Message, w) {
			t.Errorf("message %q does not say %q", r.Status.Message, w)
		}
	}
}

// wantEvents waits until the Events about an object have these reasons, sorted:
// they are written after what they tell of.
func (s *stage) wantEvents(t *testing.T, namespace, kind, name string, want ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if got = s.events(t, namespace, kind, name); slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("events on %s %s: %v, want %v", kind, name, got, want)
			return
		}
	}
}

// events are the reasons of the Events about an object, as kubectl has them.
func (s *stage) events(t *testing.T, namespace, kind, name string) []string {
	t.Helper()
	out := s.cluster.Kubectl("get", "events", "-n", namespace, "-o", "jsonpath={.items[*].reason}",
		"--field-selector", "involvedObject.kind="+kind+",involvedObject.name="+name+",source=nodeagent")
	reasons := strings.Fields(out)
	slices.Sort(reasons)
	return reasons
}

// replicaSets counts those of a Deployment: one more for each rollout.
func (s *stage) replicaSets(t *testing.T, namespace, app string) int {
	t.Helper()
	var list appsv1.ReplicaSetList
	if err := s.cluster.Admin.List(t.Context(), &list, client.InNamespace(namespace), client.MatchingLabels{"app": app}); err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

// wantOneRollout fails unless the template was changed exactly once.
func (s *stage) wantOneRollout(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	before := d.Generation
	s.settle(t, d, func() bool { return true })
	if d.Generation != before+1 {
		t.Errorf("generation went from %d to %d, want one change", before, d.Generation)
	}
	if n := s.replicaSets(t, d.Namespace, d.Name); n != 2 {
		t.Errorf("%d ReplicaSets, want 2", n)
	}
}
