package runtime

import "github.com/prometheus/client_golang/prometheus"

// metrics is what this package tells of itself.
type metrics struct {
	containers *prometheus.GaugeVec
	connected  prometheus.Gauge
	confirmed  prometheus.Gauge
	relists    prometheus.Counter
	events     prometheus.Counter
	failures   *prometheus.CounterVec
}

// The calls that nodeagent_runtime_failures_total tells apart.
const (
	callConnect   = "connect"   // containerd does not answer on its socket
	callEvents    = "events"    // the stream of events broke
	callList      = "list"      // the containers of a namespace could not be listed
	callGet       = "get"       // a container could not be looked up
	callSpec      = "spec"      // a container's OCI spec could not be read
	callSnapshot  = "snapshot"  // the snapshotter did not tell a layer's mounts
	callSnapshots = "snapshots" // the snapshotter did not tell what it keeps
	callTask      = "task"      // a container's task (its shim) did not answer
)

func calls() []string {
	return []string{callConnect, callEvents, callList, callGet, callSpec, callSnapshot, callSnapshots, callTask}
}

// newMetrics makes the metrics and registers them.
func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		containers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nodeagent_runtime_containers",
			Help: "Containers known on this node, pods' sandboxes among them, by containerd namespace. Absent until containerd was listed once.",
		}, []string{"namespace"}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nodeagent_runtime_connected",
			Help: "Whether containerd answers and its events are followed: 1 or 0. At 0 the containers known are those of the last list.",
		}),
		confirmed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nodeagent_runtime_confirmed_timestamp_seconds",
			Help: "When containerd last listed all containers, in seconds since 1970; 0 if it never did.",
		}),
		relists: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nodeagent_runtime_relists_total",
			Help: "Full lists of all containers that succeeded.",
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nodeagent_runtime_events_total",
			Help: "Events received from containerd.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nodeagent_runtime_failures_total",
			Help: "Questions to containerd that failed, by call: connect, events, list, get, spec, snapshot, snapshots, task. What was known before is kept.",
		}, []string{"call"}),
	}
	for _, call := range calls() {
		m.failures.WithLabelValues(call) // present from the start, so that an increase is seen
	}
	registerer.MustRegister(m.containers, m.connected, m.confirmed, m.relists, m.events, m.failures)
	return m
}

func (m *metrics) failed(call string) { m.failures.WithLabelValues(call).Inc() }

// posted follows the Snapshot that is handed out.
func (m *metrics) posted(s Snapshot, namespaces []string) {
	m.connected.Set(0)
	if s.Connected {
		m.connected.Set(1)
	}
	if s.Confirmed.IsZero() {
		return
	}
	m.confirmed.Set(float64(s.Confirmed.UnixMilli()) / 1000)
	count := make(map[string]int, len(namespaces))
	for _, c := range s.Containers {
		count[c.Namespace]++
	}
	for _, ns := range namespaces {
		m.containers.WithLabelValues(ns).Set(float64(count[ns]))
	}
}
