package promql

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

const root = "../.."

// TestAlerts: what the operator gets is what a plain Prometheus gets, in the
// operator's own types, and every expression can be asked.
func TestAlerts(t *testing.T) {
	var object monitoringv1.PrometheusRule
	strictly(t, "manifests/alerts/prometheusrule.yaml", &object)
	var plain monitoringv1.PrometheusRuleSpec // a rules file has the same shape
	strictly(t, "manifests/alerts/nodeagent.rules.yaml", &plain)
	strictly(t, "manifests/alerts/podmonitor.yaml", &monitoringv1.PodMonitor{})

	a, b := asJSON(t, object.Spec), asJSON(t, plain)
	if a != b {
		t.Errorf("the PrometheusRule says\n%s\nthe rules file\n%s", a, b)
	}
	known := metrics(t)
	for _, g := range plain.Groups {
		for _, r := range g.Rules {
			known.check(t, r.Alert, r.Expr.String())
		}
	}
}

// TestDashboard asks every query of every panel and variable.
func TestDashboard(t *testing.T) {
	var board struct {
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
		Panels []struct {
			Type, Title string
			GridPos     struct{ X, W int }
			Targets     []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(read(t, "manifests/dashboard/nodeagent.json"), &board); err != nil {
		t.Fatal(err)
	}
	known := metrics(t)
	variables := []string{"$__rate_interval", "5m"}
	for _, v := range board.Templating.List {
		variables = append(variables, "$"+v.Name, ".*")
		if m := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Query); m != nil {
			known.check(t, v.Name, "count by ("+m[2]+") ("+m[1]+")")
		} else if v.Type == "query" {
			t.Errorf("variable %s asks %s", v.Name, v.Query)
		}
	}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s asks nothing", p.Title)
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s is out of the grid", p.Title)
		}
		for _, q := range p.Targets {
			expr := strings.NewReplacer(variables...).Replace(q.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s names a variable that is not there: %s", p.Title, expr)
			}
			known.check(t, p.Title, expr)
			for _, m := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(q.LegendFormat, -1) {
				if !regexp.MustCompile(`\b`+m[1]+`\b`).MatchString(q.Expr) && !known.onSeries(t, expr, m[1]) {
					t.Errorf("%s: the legend's {{%s}} is no label of %s", p.Title, m[1], expr)
				}
			}
		}
	}
}

// TestCheckFinds: the check is worth nothing if it finds nothing.
func TestCheckFinds(t *testing.T) {
	known := metrics(t)
	for _, expr := range []string{
		`nodeagent_no_such_metric > 0`,
		`sum by (part) (nodeagent_container_offender) > 0`,
		`nodeagent_container_offender{owner="x"}`,
		`sum without (part) (nodeagent_container_offender)`,
		`up == 0 and on (namespaces) nodeagent_container_offender`,
		`rate(nodeagent_container_disk_bytes`,
		`rate(nodeagent_container_disk_bytes[5m])`,
		`{job="nodeagent"}`,
		`nodeagent_container_disk_full_seconds and nodeagent_container_offender == 1`,
	} {
		if problems := known.problems(expr); len(problems) == 0 {
			t.Errorf("nothing is wrong with %s", expr)
		}
	}
}

// TestRuleTests: the alerts' tests play series as agents expose them, with all
// of their labels. Else they would go on passing for what never comes.
func TestRuleTests(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(root, "manifests/alerts/tests/*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no tests of alerts: %v", err)
	}
	known := metrics(t)
	for _, path := range paths {
		var tests struct {
			Tests []struct {
				Name   string
				Series []struct{ Series string } `json:"input_series"`
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, &tests); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, c := range tests.Tests {
			if len(c.Series) == 0 {
				t.Errorf("%s, %s: no series is played", path, c.Name)
			}
			for _, s := range c.Series {
				for _, p := range known.played(s.Series) {
					t.Errorf("%s, %s: %s: %s", filepath.Base(path), c.Name, p, s.Series)
				}
			}
		}
	}
}

// TestPlayedFinds: likewise.
func TestPlayedFinds(t *testing.T) {
	const pod, target = `namespace="shop",pod="web-0",container="app",uid="u-1"`, `,job="nodeagent",instance="10.0.0.7:9456"`
	known := metrics(t)
	for _, series := range []string{
		`nodeagent_no_such_metric{job="nodeagent",instance="10.0.0.7:9456"}`,
		`nodeagent_disk_measure_age_seconds{` + pod + `,method="walk"` + target + `}`,
		`nodeagent_disk_measure_age_seconds{` + pod + `,part="layer",method="walk",owner="web"` + target + `}`,
		`nodeagent_container_offender{` + pod + `}`,
		`nodeagent_container_offender{container="app"` + target + `}`,
		`nodeagent_container_offender{namespace="shop",container="moby/4f3c"` + target + `}`,
		`nodeagent_container_offender`,
		`nodeagent_container_offender{`,
	} {
		if problems := known.played(series); len(problems) == 0 {
			t.Errorf("nothing is wrong with %s", series)
		}
	}
	for _, series := range []string{
		`nodeagent_disk_measure_age_seconds{` + pod + `,part="layer",method="walk"` + target + `,node="node-3"}`,
		`nodeagent_container_offender{container="moby/4f3c"` + target + `}`,
	} {
		if problems := known.played(series); len(problems) != 0 {
			t.Errorf("%s: %v", series, problems)
		}
	}
}

// metric is a row of docs/metrics.md.
type metric struct {
	kind   string
	labels map[string]bool
}

type table map[string]metric

// metrics are those of docs/metrics.md, which is generated from the code, and
// the few of every Go process and of Prometheus itself.
func metrics(t *testing.T) table {
	t.Helper()
	known := table{
		"up":                            {kind: "gauge"},
		"process_resident_memory_bytes": {kind: "gauge"},
		"process_start_time_seconds":    {kind: "gauge"},
		"process_cpu_seconds_total":     {kind: "counter"},
	}
	rows := regexp.MustCompile("(?m)^\\| `(nodeagent_\\w+)` \\| (\\w+) \\| (.*?) \\|")
	for _, m := range rows.FindAllStringSubmatch(string(read(t, "docs/metrics.md")), -1) {
		labels := map[string]bool{}
		for _, l := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(m[3], -1) {
			labels[l[1]] = true
		}
		if m[2] != "histogram" {
			known[m[1]] = metric{m[2], labels}
			continue
		}
		known[m[1]+"_sum"], known[m[1]+"_count"] = metric{"counter", labels}, metric{"counter", labels}
		buckets := map[string]bool{"le": true}
		for l := range labels {
			buckets[l] = true
		}
		known[m[1]+"_bucket"] = metric{"counter", buckets}
	}
	if len(known) < 20 {
		t.Fatalf("docs/metrics.md has %d metrics", len(known))
	}
	return known
}

func (k table) check(t *testing.T, name, expr string) {
	t.Helper()
	for _, p := range k.problems(expr) {
		t.Errorf("%s: %s in\n%s", name, p, expr)
	}
}

// problems tells what an expression has that is not there: metrics, labels of
// a metric, rates of what is no counter.
func (k table) problems(expr string) []string {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			found = append(found, k.selector(n)...)
		case *parser.Call:
			if n.Func.Name == "rate" || n.Func.Name == "increase" {
				found = append(found, k.rated(n)...)
			}
		case *parser.AggregateExpr:
			found = append(found, k.names(n.Grouping, n.Expr)...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil && n.VectorMatching.On {
				found = append(found, k.names(n.VectorMatching.MatchingLabels, n.LHS)...)
				found = append(found, k.names(n.VectorMatching.MatchingLabels, n.RHS)...)
			} else if n.VectorMatching != nil && len(n.VectorMatching.MatchingLabels) == 0 {
				found = append(found, k.unmatched(n)...)
			}
		}
		return nil
	})
	return found
}

// played tells what a series of a test has that no agent exposes, and what it
// lacks. Outside Kubernetes the labels of the pod are empty, which is to have
// none, and the container's name has a slash.
func (k table) played(series string) []string {
	have, err := parser.NewParser(parser.Options{}).ParseMetric(series)
	if err != nil {
		return []string{err.Error()}
	}
	m, ok := k[have.Get("__name__")]
	if !ok {
		return []string{"no metric " + have.Get("__name__")}
	}
	want := map[string]bool{"job": true, "instance": true}
	maps.Copy(want, m.labels)
	if strings.Contains(have.Get("container"), "/") {
		for _, l := range []string{"namespace", "pod", "uid"} {
			delete(want, l)
		}
	}
	var found []string
	for l, value := range have.Map() {
		if l != "__name__" && l != "node" && !want[l] {
			found = append(found, "it has no label "+l)
		}
		if value != "" {
			delete(want, l)
		}
	}
	for l := range want {
		found = append(found, "it lacks the label "+l)
	}
	return found
}

func (k table) selector(n *parser.VectorSelector) []string {
	m, ok := k[n.Name]
	if !ok {
		return []string{"no metric " + n.Name}
	}
	var found []string
	for _, l := range n.LabelMatchers {
		if l.Name != "__name__" && !m.has(l.Name) {
			found = append(found, n.Name+" has no label "+l.Name)
		}
	}
	return found
}

func (k table) rated(n *parser.Call) []string {
	var found []string
	for _, name := range selected(n) {
		if m, ok := k[name]; ok && m.kind != "counter" {
			found = append(found, name+" is no counter")
		}
	}
	return found
}

// unmatched tells whether two sides that have to have the same labels have not:
// then nothing ever comes of them. Only sides of one metric are looked at.
func (k table) unmatched(n *parser.BinaryExpr) []string {
	left, ok1 := k.labels(n.LHS)
	right, ok2 := k.labels(n.RHS)
	if !ok1 || !ok2 || maps.Equal(left, right) {
		return nil
	}
	return []string{fmt.Sprintf("the sides of %s have the labels %v and %v", n.Op, left, right)}
}

// labels are those of the series that come of an expression, where that is told
// by one metric.
func (k table) labels(n parser.Node) (map[string]bool, bool) {
	switch n := n.(type) {
	case *parser.VectorSelector:
		return k[n.Name].labels, k[n.Name].labels != nil
	case *parser.ParenExpr:
		return k.labels(n.Expr)
	case *parser.BinaryExpr:
		if n.VectorMatching == nil { // with a number
			return k.labels(n.LHS)
		}
	case *parser.AggregateExpr:
		below, ok := k.labels(n.Expr)
		if !ok || !n.Without {
			return nil, false
		}
		rest := maps.Clone(below)
		for _, l := range n.Grouping {
			delete(rest, l)
		}
		return rest, true
	}
	return nil, false
}

// names tells which of the labels no metric below has.
func (k table) names(labels []string, below parser.Node) []string {
	var found []string
	for _, l := range labels {
		known := false
		for _, name := range selected(below) {
			known = known || k[name].has(l)
		}
		if !known {
			found = append(found, "no label "+l)
		}
	}
	return found
}

func (k table) onSeries(t *testing.T, expr, label string) bool {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return false
	}
	if _, aggregated := parsed.(*parser.AggregateExpr); aggregated {
		return parsed.(*parser.AggregateExpr).Op == parser.TOPK && len(k.names([]string{label}, parsed)) == 0
	}
	return len(k.names([]string{label}, parsed)) == 0
}

func selected(below parser.Node) []string {
	var names []string
	parser.Inspect(below, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			names = append(names, s.Name)
		}
		return nil
	})
	return names
}

// has knows the labels that Prometheus gives each series of a target, too.
func (m metric) has(label string) bool {
	return m.labels[label] || label == "job" || label == "instance" || label == "node"
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func strictly(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(read(t, path), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
