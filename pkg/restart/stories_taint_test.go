package restart

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// filler is a node whose disk stands as the story says, by the story's clock.
// Its taint is looked after with the token of the node's agent.
type filler struct {
	*stage
	client client.WithWatch
	taint  *NodeTaint
	told   Filling
	known  bool
	now    time.Time
}

func fills() Filling {
	return Filling{Sure: true, Near: true, Message: "/app/debug.log in web grows."}
}
func nearly() Filling { return Filling{Near: true} }
func rests() Filling  { return Filling{} }

func (f *filler) Filling() (Filling, bool) { return f.told, f.known }

func (s *stage) filler(t *testing.T) *filler {
	t.Helper()
	s.cluster.Kubectl("taint", "node", s.nodeA, "example.com/gpu=yes:PreferNoSchedule")
	c, err := NewClient(s.asAgent(t, s.nodeA), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	f := &filler{stage: s, client: c, known: true, now: time.Now()}
	f.begin(t, true)
	return f
}

// begin is the agent's start: it knows nothing of before.
func (f *filler) begin(t *testing.T, enabled bool) {
	t.Helper()
	f.taint = f.newTaint(f.client, enabled, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

// newTaint is a keeper that reaches the API through c.
func (f *filler) newTaint(c client.WithWatch, enabled bool, log *slog.Logger) *NodeTaint {
	now := func() time.Time { return f.now }
	events := NewEvents(f.client, f.nodeA, now, log)
	taint := NewNodeTaint(c, Options{Node: f.nodeA, Now: now}, enabled, f, events, NewMetrics(prometheus.NewRegistry()), log)
	events.patience, taint.patience = patience, patience // the machine may be busy
	return taint
}

// look has the disk stand like this after a while.
func (f *filler) look(t *testing.T, later time.Duration, told Filling) {
	t.Helper()
	f.now, f.told = f.now.Add(later), told
	f.taint.Look(t.Context())
}

func (f *filler) node(t *testing.T) *corev1.Node {
	t.Helper()
	var node corev1.Node
	if err := f.cluster.Admin.Get(t.Context(), client.ObjectKey{Name: f.nodeA}, &node); err != nil {
		t.Fatal(err)
	}
	return &node
}

// want holds the node to its taint, and to what others wrote on it.
func (f *filler) want(t *testing.T, on bool, when string) {
	t.Helper()
	node := f.node(t)
	if tainted(node) != on {
		t.Errorf("%s: taints %v, want ours: %v", when, node.Spec.Taints, on)
	}
	theirs := slices.DeleteFunc(slices.Clone(node.Spec.Taints), ours)
	if len(theirs) != 1 || theirs[0].Key != "example.com/gpu" || node.Labels["story"] == "" {
		t.Errorf("%s: what others wrote is %v, labels %v", when, theirs, node.Labels)
	}
	if told := testutil.ToFloat64(f.taint.metrics.tainted) == 1; told != on {
		t.Errorf("%s: the metric tells of a taint: %v", when, told)
	}
}

// unwritten fails where the node is written meanwhile.
func (f *filler) unwritten(t *testing.T, when string, do func()) {
	t.Helper()
	before := f.node(t).ResourceVersion
	do()
	if f.node(t).ResourceVersion != before {
		t.Errorf("%s: the node was written", when)
	}
}

// storyNodeTaint: the taint comes when the disk is sure to be full soon, and
// goes when nothing has been near for a while and no restart for the disk runs.
func storyNodeTaint(t *testing.T, s *stage, ns string) {
	f := s.filler(t)
	f.unwritten(t, "nothing is sure", func() {
		f.known = false
		f.look(t, 0, fills())
		f.known = true
		f.look(t, 0, nearly())
	})
	f.look(t, 0, fills())
	f.want(t, true, "sure")
	taints := f.node(t).Spec.Taints
	if at := taints[slices.IndexFunc(taints, ours)].TimeAdded; at == nil || at.Unix() != f.now.Unix() {
		t.Errorf("added at %v, want %v", at, f.now)
	}
	// As docs/restart.md has it.
	since := s.cluster.Kubectl("get", "nodes", s.nodeA, "-o", `custom-columns=NODE:.metadata.name,SINCE:.spec.taints[?(@.key=="nodeagent.dev/disk-filling")].timeAdded`)
	if !strings.Contains(since, f.now.UTC().Format(time.RFC3339)) {
		t.Errorf("kubectl does not show since when:\n%s", since)
	}
	f.unwritten(t, "it is not over", func() {
		f.look(t, time.Hour, fills())
		f.look(t, time.Hour, nearly())
		f.look(t, time.Hour, rests())
		f.look(t, taintCalm-time.Second, rests())
		f.look(t, 0, nearly())
		f.look(t, 0, rests())
		f.look(t, taintCalm-time.Second, rests())
	})
	r := s.diskRestart(t, ns)
	f.unwritten(t, "a restart for it runs", func() { f.look(t, time.Second, rests()) })
	s.endByHand(t, ns, r.Name)
	f.look(t, 0, rests())
	f.want(t, false, "over")
	f.unwritten(t, "off", func() { f.look(t, time.Hour, rests()) })
	if got := s.events(t, metav1.NamespaceDefault, "Node", s.nodeA); !slices.Equal(got, []string{EventFilling, EventNotFilling}) {
		t.Errorf("events on the node: %v", got)
	}
	if described := s.cluster.Kubectl("describe", "node", s.nodeA); !strings.Contains(described, "/app/debug.log in web grows. New pods are kept off this node") {
		t.Errorf("kubectl describe node does not say why:\n%s", described)
	}
}

// diskRestart is one that the leader took over from this node's agent.
func (s *stage) diskRestart(t *testing.T, ns string) *v1alpha1.Restart {
	t.Helper()
	r := &v1alpha1.Restart{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "deployment-web"},
		Spec: v1alpha1.RestartSpec{
			Target: v1alpha1.TargetReference{APIVersion: "apps/v1", Kind: KindDeployment, Name: "web"},
			Node:   s.nodeA, Reason: v1alpha1.ReasonDiskFill,
		},
	}
	s.cluster.Create(t, r)
	r.Status = v1alpha1.RestartStatus{ObservedGeneration: r.Generation, Phase: v1alpha1.PhaseRunning, Holder: s.nodeB, Started: new(metav1.Now())}
	if err := s.cluster.Admin.Status().Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// storyTaintLeft: an agent that is started finds the taint that the one before
// it left, keeps it while it is needed, and takes it off in the end. Who takes
// it off by hand is not fought, and who does not want it is rid of it.
func storyTaintLeft(t *testing.T, s *stage, _ string) {
	f := s.filler(t)
	f.look(t, 0, fills())
	f.begin(t, true)
	f.unwritten(t, "after the agent's start", func() {
		f.look(t, 0, rests())
		f.look(t, 0, fills())
	})
	f.want(t, true, "after the agent's start")
	f.begin(t, true)
	f.look(t, 0, rests())
	f.look(t, taintCalm, rests())
	f.want(t, false, "well again")

	f.look(t, 0, fills())
	s.cluster.Kubectl("taint", "node", s.nodeA, v1alpha1.TaintDiskFilling+"-")
	f.unwritten(t, "after a person took it off", func() {
		f.look(t, time.Minute, fills())
		f.look(t, 0, rests())
		f.look(t, taintCalm, rests())
	})

	f.look(t, 0, fills())
	f.want(t, true, "once more")
	f.begin(t, false)
	f.known = false
	f.look(t, 0, fills())
	f.want(t, false, "not wanted any more")
	f.unwritten(t, "not wanted", func() { f.look(t, time.Hour, fills()) })
}

// storyTaintConflict: others write the node at the same moment, its taints
// too, and nothing of theirs is lost.
func storyTaintConflict(t *testing.T, s *stage, _ string) {
	f := s.filler(t)
	raced := 0
	f.client = interceptor.NewClient(f.client, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, options ...client.PatchOption) error {
			if (&client.PatchOptions{}).ApplyOptions(options).DryRun != nil {
				return c.Patch(ctx, o, patch, options...)
			}
			if raced++; raced%2 == 1 {
				s.label(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.nodeA}}, raced)
			}
			return c.Patch(ctx, o, patch, options...)
		},
	})
	f.begin(t, true)
	f.look(t, 0, fills())
	f.want(t, true, "sure")
	f.look(t, 0, rests())
	f.look(t, taintCalm, rests())
	f.want(t, false, "over")
	if got := f.node(t).Labels["noise"]; raced != 4 || got != "3" {
		t.Errorf("%d writes, the last label that others wrote is %q, want 4 and 3", raced, got)
	}
}

// storyNotFenced: no taint where the fence only warns, is bound to nothing, or
// where the agent may not write its node at all, and a taint once it is there.
func storyNotFenced(t *testing.T, s *stage, _ string) {
	const binding = "validatingadmissionpolicybinding/" + fenceNodesName
	f := s.filler(t)
	var log strings.Builder
	written := slog.New(slog.NewTextHandler(&log, nil))
	began := func(c client.WithWatch) {
		f.taint = f.newTaint(c, true, written)
	}
	mend := func() { s.cluster.Kubectl("apply", "-f", "../../manifests/base/fences.yaml") }
	t.Cleanup(mend)
	told := 0
	for how, undo := range map[string]func(){
		"it only warns": func() {
			s.cluster.Kubectl("patch", binding, "--type=merge", `-p={"spec":{"validationActions":["Warn"]}}`)
		},
		"it is unbound": func() { s.cluster.Kubectl("delete", binding) },
	} {
		undo()
		f.untilFenced(t, false)
		log.Reset()
		began(f.client)
		f.unwritten(t, how, func() {
			f.look(t, time.Minute, fills())
			f.look(t, fenceAgain-time.Second, fills())
			f.look(t, time.Second, fills())
		})
		f.want(t, false, how)
		if got := testutil.ToFloat64(f.taint.metrics.errors.WithLabelValues("Taint")); got != 2 {
			t.Errorf("%s: asked %v times, want 2", how, got)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "kubectl apply -f manifests/base/fences.yaml") {
			t.Errorf("%s: the log has\n%s", how, log.String())
		}
		told++
		events := s.events(t, metav1.NamespaceDefault, "Node", s.nodeA)
		if n := len(slices.DeleteFunc(events, func(reason string) bool { return reason != EventNotFenced })); n != told {
			t.Errorf("%s: told %d times on the node, want %d", how, n, told)
		}
		mend()
		f.untilFenced(t, true)
		f.unwritten(t, "the fence came, and is looked for later", func() { f.look(t, fenceAgain-time.Second, fills()) })
		f.want(t, false, how)
		f.look(t, time.Second, fills())
		f.want(t, true, "fenced at last")
		f.look(t, 0, rests())
		f.look(t, taintCalm, rests())
	}

	nobody := rest.CopyConfig(s.cluster.Config)
	nobody.Impersonate.UserName = "nobody"
	s.cluster.Kubectl("create", "clusterrole", "reads-"+s.name, "--verb=get", "--resource=nodes")
	s.cluster.Kubectl("create", "clusterrolebinding", "reads-"+s.name, "--clusterrole=reads-"+s.name, "--user=nobody")
	log.Reset()
	began(s.clientAs(t, nobody))
	f.look(t, 0, fills())
	f.look(t, 0, fills())
	f.want(t, false, "not allowed")
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "is forbidden") {
		t.Errorf("not allowed: the log has\n%s", log.String())
	}
}

// untilFenced waits until the API server has taken notice of what became of the
// fence.
func (f *filler) untilFenced(t *testing.T, want bool) {
	t.Helper()
	apiserver.Eventually(t, 60*time.Second, "the fence is as it shall be", func() bool {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.nodeA}}
		err := f.client.Patch(context.Background(), node, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`)), client.DryRunAll)
		return (err != nil) == want
	})
}

// storyTaintAway: while the API server is not reached the taint is what is
// tried again, and nothing waits for it for long.
func storyTaintAway(t *testing.T, s *stage, _ string) {
	f := s.filler(t)
	away, reachable := false, f.client
	f.client = interceptor.NewClient(reachable, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			if away {
				<-ctx.Done()
				return ctx.Err()
			}
			return c.Get(ctx, key, o, options...)
		},
	})
	f.begin(t, true)
	f.look(t, 0, rests())
	away, f.taint.patience = true, taintPatience
	f.look(t, 0, fills())
	f.want(t, false, "away")
	if got := testutil.ToFloat64(f.taint.metrics.errors.WithLabelValues("Taint")); got != 1 {
		t.Errorf("%v failures counted, want 1", got)
	}
	away, f.taint.patience = false, patience
	f.look(t, 0, fills())
	f.want(t, true, "there again")
}

// storyFencedNode: an agent's token tries more of a node than the one taint.
// The fence can afford to look at a node on which others wrote all they may.
func storyFencedNode(t *testing.T, s *stage, _ string) {
	s.cluster.Kubectl("taint", "node", s.nodeA, "example.com/gpu=yes:NoSchedule")
	s.crowd(t, s.nodeA)
	agent := s.clientAs(t, s.asAgent(t, s.nodeA))
	node := func(name string) *corev1.Node { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	patch := func(name, text string) func() error {
		return func() error {
			return agent.Patch(t.Context(), node(name), client.RawPatch(types.MergePatchType, []byte(text)))
		}
	}
	const (
		gpu  = `{"key":"example.com/gpu","value":"yes","effect":"NoSchedule"}`
		soft = `{"key":"nodeagent.dev/disk-filling","effect":"PreferNoSchedule"}`

		public = `{"key":"nodeagent.dev/role","value":"public","effect":"NoSchedule","timeAdded":"2026-03-01T12:00:00Z"}`
		byHand = `{"key":"nodeagent.dev/role","value":"public","effect":"NoSchedule"}`
	)
	taints := func(list string) string { return `{"spec":{"taints":[` + list + `]}}` }
	const forbidden = "is forbidden"
	for _, test := range []struct {
		name  string
		try   func() error
		words string // empty: it may
	}{
		{"the taint", patch(s.nodeA, taints(gpu+","+soft)), ""},
		{"the taint off", patch(s.nodeA, taints(gpu)), ""},
		{"the taint before others", patch(s.nodeA, taints(soft+","+gpu)), ""},
		{"another node", patch(s.nodeB, taints(soft)), "its own node alone"},
		{"another node's label", patch(s.nodeB, `{"metadata":{"labels":{"x":"y"}}}`), "its own node alone"},
		{"the end of another's taint", patch(s.nodeA, taints(soft)), "changes no taint but"},
		{"the end of all taints", patch(s.nodeA, `{"spec":{"taints":null}}`), "changes no taint but"},
		{"another taint", patch(s.nodeA, taints(gpu+`,{"key":"nodeagent.dev/role","value":"public","effect":"PreferNoSchedule"}`)), "changes no taint but"},
		{"an effect that keeps pods off", patch(s.nodeA, taints(gpu+`,{"key":"nodeagent.dev/disk-filling","effect":"NoSchedule"}`)), "changes no taint but"},
		{"an effect that evicts", patch(s.nodeA, taints(gpu+`,{"key":"nodeagent.dev/disk-filling","effect":"NoExecute"}`)), "changes no taint but"},
		{"another's taint, changed", patch(s.nodeA, taints(strings.Replace(gpu, "yes", "no", 1))), "changes no taint but"},
		{"the taint of a public node, which it is not", patch(s.nodeA, taints(gpu+","+public)), "only to what the node's label says"},
		{"the taint of a public node as a person sets it", patch(s.nodeA, taints(gpu+","+byHand)), "changes no taint but"},
		{"unschedulable", patch(s.nodeA, `{"spec":{"unschedulable":true}}`), "changes nothing of a node but"},
		{"the provider's id", patch(s.nodeA, `{"spec":{"providerID":"x"}}`), "changes nothing of a node but"},
		{"a label", patch(s.nodeA, `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`), "changes no metadata"},
		{"an annotation", patch(s.nodeA, `{"metadata":{"annotations":{"x":"y"}}}`), "changes no metadata"},
		{"a finalizer", patch(s.nodeA, `{"metadata":{"finalizers":["x.y/z"]}}`), "changes no metadata"},
		{"its status", func() error {
			return agent.Status().Patch(t.Context(), node(s.nodeA), client.RawPatch(types.MergePatchType, []byte(`{"status":{"conditions":null}}`)))
		}, forbidden},
		{"its end", func() error { return agent.Delete(t.Context(), node(s.nodeA)) }, forbidden},
		{"a node of its own", func() error { return agent.Create(t.Context(), node(s.nodeA+"-2")) }, forbidden},
	} {
		err := test.try()
		if test.words == "" && err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if test.words != "" && (err == nil || !strings.Contains(err.Error(), test.words)) {
			t.Errorf("%s: %v, want it refused: %q", test.name, err, test.words)
		}
	}
}

// crowd gives a node many labels, and annotations of the 256 KiB that the API
// server takes of an object.
func (s *stage) crowd(t *testing.T, node string) {
	t.Helper()
	var n corev1.Node
	if err := s.cluster.Admin.Get(t.Context(), client.ObjectKey{Name: node}, &n); err != nil {
		t.Fatal(err)
	}
	n.Annotations = map[string]string{}
	for i := range 500 {
		key := "example.com/of-others-" + strconv.Itoa(i)
		n.Labels[key], n.Annotations[key] = strings.Repeat("x", 63), strings.Repeat("x", 450)
	}
	if err := s.cluster.Admin.Update(t.Context(), &n); err != nil {
		t.Fatal(err)
	}
}
