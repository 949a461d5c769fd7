package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodeagent/nodeagent/pkg/binlaunch"
	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/notify"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/pkg/runtime"
)

const metricsHead = `<!-- Generated from the packages' metrics by make generate; change it there. -->
# Metrics

Served at ` + "`/metrics`, by default on port 9456, as Prometheus text." + `
A figure that could not be taken stays the last good one, with its age; it is never told as 0. The series of a container that is gone are gone with it.

`

const metricsTail = `## The process
| metric | type | labels | |
|---|---|---|---|
| ` + "`nodeagent_build_info` | gauge | `version`" + ` | Always 1; the label tells the version. |

Besides, what Prometheus' Go library tells of every process: ` + "`go_*`, `process_*`, `promhttp_metric_handler_errors_total`" + `.
`

// row is one metric.
type row struct {
	name, kind, help string
	labels           []string
}

func metrics(string) ([]byte, error) {
	seen, err := runtimeRows()
	if err != nil {
		return nil, err
	}
	var disks, restarts, told []row
	for _, m := range notify.MetricTable() {
		told = append(told, row{m.Name, m.Type, m.Help, m.Labels})
	}
	for _, m := range disk.Metrics() {
		disks = append(disks, row{m.Name, m.Type, m.Help, m.Labels})
	}
	for _, m := range restart.MetricTable() {
		restarts = append(restarts, row{m.Name, m.Type, m.Help, m.Labels})
	}
	var launches []row
	for _, m := range binlaunch.MetricTable() {
		launches = append(launches, row{m.Name, m.Type, m.Help, m.Labels})
	}
	out := bytes.NewBufferString(metricsHead)
	table(out, "Containers (pkg/runtime)", seen)
	table(out, "Disks (pkg/disk)", disks)
	out.WriteString("`namespace`, `pod` and `uid` are the pod's; `container` is its name in the pod, `POD` for the sandbox. " +
		"Outside Kubernetes the first three are empty and `container` is the containerd namespace and the id.\n\n" +
		"`part` is `layer` (the writable layer), `logs` (stdout and stderr, rotated and compressed files included), `emptydir` (those on disk), " +
		"`volume` (VOLUMEs of the image) or `deleted` (files that are deleted and still open). " +
		"An emptyDir that several containers of a pod mount stands in the series of each: " +
		"take it once when you add containers up, as nodeagent does for the pod's limit and for the file system.\n\n")
	table(out, "Restarts (pkg/restart); not with --standalone", restarts)
	table(out, "Launched binaries (pkg/binlaunch); with launch.enabled", launches)
	var api []row
	for _, m := range restart.APIMetricTable() {
		api = append(api, row{m.Name, m.Type, m.Help, m.Labels})
	}
	table(out, "The Kubernetes API (pkg/restart); not with --standalone", api)
	table(out, "Telling people (pkg/notify); of the agent that leads", told)
	out.WriteString(metricsTail)
	return out.Bytes(), nil
}

func table(out *bytes.Buffer, title string, rows []row) {
	fmt.Fprintf(out, "## %s\n| metric | type | labels | |\n|---|---|---|---|\n", title)
	for _, r := range rows {
		labels := ""
		if len(r.labels) > 0 {
			labels = "`" + strings.Join(r.labels, "`, `") + "`"
		}
		fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", r.name, r.kind, labels, strings.ReplaceAll(r.help, "|", `\|`))
	}
	out.WriteString("\n")
}

// recorder is a Registerer that writes down what is registered.
type recorder struct {
	prometheus.Registerer
	rows []row
	errs []error
}

// MustRegister implements prometheus.Registerer.
func (r *recorder) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		described, err := describe(c)
		r.rows, r.errs = append(r.rows, described), append(r.errs, err)
	}
}

// runtimeRows registers runtime's metrics to see them.
func runtimeRows() ([]row, error) {
	seen := &recorder{}
	_, err := runtime.NewWatcher(runtime.Config{Socket: "/none", Namespaces: []string{"none"}, Registerer: seen})
	return seen.rows, errors.Join(append(seen.errs, err)...)
}

// describe reads how a Desc tells itself; it has no other way.
func describe(c prometheus.Collector) (row, error) {
	ch := make(chan *prometheus.Desc, 1)
	c.Describe(ch)
	text := (<-ch).String()
	m := regexp.MustCompile(`^Desc\{fqName: "(.*?)", help: "(.*?)"(?:, unit: "[^"]*")?, constLabels: \{.*?\}, variableLabels: \{(.*?)\}\}$`).FindStringSubmatch(text)
	if m == nil {
		return row{}, fmt.Errorf("cannot read %s", text)
	}
	r := row{name: m[1], help: m[2]}
	if m[3] != "" {
		r.labels = strings.Split(m[3], ",")
	}
	switch c.(type) {
	case *prometheus.GaugeVec, prometheus.Gauge:
		r.kind = "gauge"
	case *prometheus.CounterVec, prometheus.Counter: // after Gauge, which has all of a Counter's methods
		r.kind = "counter"
	default:
		return row{}, fmt.Errorf("cannot tell the type of %s", r.name)
	}
	return r, nil
}
