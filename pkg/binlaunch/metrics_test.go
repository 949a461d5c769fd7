package binlaunch

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the golden files")

// told is a collector of Binaries that stand still.
type told struct {
	*Collector
	all []counted
}

type counted struct {
	instance Instance
	stats    Stats
}

func (c told) Collect(ch chan<- prometheus.Metric) {
	for _, x := range c.all {
		c.tell(ch, x.instance, x.stats)
	}
}

// TestMetricsGolden holds the whole exposition text of three Binaries: one that
// runs and of which the kernel counts all, one of which it counts little, and one
// that does not run. promtool reads the same text.
func TestMetricsGolden(t *testing.T) {
	span := func(d time.Duration) *time.Duration { return &d }
	number := func(n int64) *int64 { return &n }
	all := told{Collector: NewCollector(nil), all: []counted{
		{
			Instance{Name: "node-exporter", OOMKills: 2, Status: v1alpha1.BinaryInstanceStatus{
				State: v1alpha1.StateHealthy, Restarts: 3,
				Phases: map[string]metav1.Duration{"fetch": {Duration: 150 * time.Millisecond}, "launch": {Duration: 4 * time.Millisecond}},
			}},
			Stats{
				CPU: span(90 * time.Second), Throttled: span(1500 * time.Millisecond), Memory: number(64 << 20), Pids: number(9), ReadBytes: number(4096), WriteBytes: number(1 << 30),
				CPUStall: span(time.Second), MemoryStall: span(0), IOStall: span(20 * time.Millisecond),
			},
		},
		{Instance{Name: "script", Status: v1alpha1.BinaryInstanceStatus{State: v1alpha1.StateUnhealthy}, Misses: 4}, Stats{Memory: number(1 << 20)}},
		{Instance{Name: "waits", Status: v1alpha1.BinaryInstanceStatus{State: v1alpha1.StateWaiting}}, Stats{}},
	}}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(all)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	if len(families) != len(MetricTable()) {
		t.Errorf("%d metrics are told, the table has %d", len(families), len(MetricTable()))
	}
	golden := filepath.Join("testdata", "metrics.txt")
	if *update {
		if err := os.WriteFile(golden, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text.Bytes(), want) {
		t.Errorf("the exposition differs from %s (-update writes it):\n%s", golden, text.String())
	}
	if testing.Short() {
		return
	}
	tool := os.Getenv("NODEAGENT_TEST_PROMTOOL")
	if tool == "" {
		t.Fatal("NODEAGENT_TEST_PROMTOOL is not set: it is the path of promtool. Run `make test`, which fetches it, or `go test -short` for the unit tests alone")
	}
	check := exec.Command(tool, "check", "metrics")
	check.Stdin = &text
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
