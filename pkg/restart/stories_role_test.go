package restart

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// storyRoleTaint: the taint comes and goes with the label, by the agent's own
// token. A person's taint and others' stay, and the API server lets the token do
// nothing else to them.
func storyRoleTaint(t *testing.T, s *stage, _ string) {
	s.cluster.Kubectl("taint", "node", s.nodeA, "example.com/gpu=yes:PreferNoSchedule")
	agent := s.clientAs(t, s.asAgent(t, s.nodeA))
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	metrics := NewMetrics(prometheus.NewRegistry())
	now := time.Now()
	clock := func() time.Time { now = now.Add(time.Second); return now }
	keeper := func(enabled bool) *RoleTaint {
		events := NewEvents(agent, s.nodeA, clock, log)
		events.patience = patience
		return NewRoleTaint(agent, Options{Node: s.nodeA, Now: clock}, enabled, events, metrics, log)
	}
	node := func() *corev1.Node {
		var n corev1.Node
		if err := s.cluster.Admin.Get(t.Context(), client.ObjectKey{Name: s.nodeA}, &n); err != nil {
			t.Fatal(err)
		}
		return &n
	}
	look := func(r *RoleTaint, when string, want bool) {
		t.Helper()
		r.Look(t.Context(), node())
		taints := node().Spec.Taints
		if got := slices.ContainsFunc(taints, oursPublic); got != want || !slices.ContainsFunc(taints, func(t corev1.Taint) bool { return t.Key == "example.com/gpu" }) {
			t.Errorf("%s: taints %v, want ours: %v", when, taints, want)
		}
		if failed := testutil.ToFloat64(metrics.errors.WithLabelValues("RoleTaint")); failed != 0 {
			t.Errorf("%s: %v looks failed", when, failed)
		}
	}
	label := func(text string) { s.cluster.Kubectl("label", "--overwrite", "node", s.nodeA, v1alpha1.LabelRole+text) }
	refused := func(when, words string) {
		t.Helper()
		const without = `{"spec":{"taints":[{"key":"example.com/gpu","value":"yes","effect":"PreferNoSchedule"}]}}`
		if err := agent.Patch(t.Context(), node(), client.RawPatch(types.MergePatchType, []byte(without))); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want it refused: %q", when, err, words)
		}
	}

	r := keeper(true)
	look(r, "without a label", false)
	label("=public")
	look(keeper(false), "not wanted", false)
	look(r, "public", true)
	before := node().ResourceVersion
	look(r, "still", true)
	if node().ResourceVersion != before {
		t.Error("at rest the node is written")
	}
	refused("the taint off a public node", "only to what the node's label says")
	label("=gpu")
	look(keeper(false), "another role, and not wanted any more", false)
	label("=public")
	look(r, "public again", true)
	label("-")
	look(r, "without the label", false)

	s.cluster.Kubectl("taint", "node", s.nodeA, "nodeagent.dev/role=public:NoSchedule")
	look(r, "a person's taint", false)
	label("=public")
	look(r, "a person's taint and the label", false)
	label("-")
	look(r, "a person's taint without the label", false)
	if taints := node().Spec.Taints; !slices.ContainsFunc(taints, keepsPublic) {
		t.Errorf("taints %v: a person's is gone", taints)
	}
	refused("a person's taint off", "changes no taint but")
	want := []string{EventNotPublic, EventNotPublic, EventPublic, EventPublic}
	if got := s.events(t, metav1.NamespaceDefault, "Node", s.nodeA); !slices.Equal(got, want) {
		t.Errorf("events on the node: %v, want %v", got, want)
	}
}
