package restart

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// The table is what the docs are made of, so it must be what is exposed.
func TestMetricTable(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m := NewMetrics(registry)
	r := testRestart("CloneSet")
	r.Status = v1alpha1.RestartStatus{
		Phase: v1alpha1.PhaseSucceeded, FreedBytes: 4096,
		Started: new(metav1.NewTime(noon())), Finished: new(metav1.NewTime(noon().Add(3e9))),
	}
	m.end(r)
	m.errors.WithLabelValues(string(Stamp)).Inc()
	gathered, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exposed := map[string]string{}
	for _, family := range gathered {
		exposed[family.GetName()] = family.GetHelp()
	}
	for _, metric := range MetricTable() {
		if exposed[metric.Name] != metric.Help {
			t.Errorf("%s is exposed as %q, the table says %q", metric.Name, exposed[metric.Name], metric.Help)
		}
		delete(exposed, metric.Name)
	}
	if len(exposed) != 0 {
		t.Errorf("not in the table: %v", exposed)
	}
	if got := testutil.ToFloat64(m.ended.WithLabelValues("Other", "DiskFill", "Succeeded")); got != 1 {
		t.Errorf("restarts of an unknown kind: %v, want 1 under Other", got)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}
