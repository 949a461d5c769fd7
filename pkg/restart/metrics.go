package restart

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Metric describes one metric, for the code that makes it and the docs alike.
type Metric struct {
	Name   string
	Type   string // counter, gauge or histogram
	Help   string
	Labels []string
}

// MetricTable lists all of this package's metrics. A metric's place in it is
// its index below.
func MetricTable() []Metric {
	return []Metric{
		restartsTotal:  {"nodeagent_restarts_total", "counter", "Restarts this agent ended, by the workload's kind, the reason and the result.", []string{"kind", "reason", "result"}},
		durationSecs:   {"nodeagent_restart_duration_seconds", "histogram", "Time from when a Restart was taken up to its end.", []string{"kind", "result"}},
		freedBytes:     {"nodeagent_restart_freed_bytes_total", "counter", "Bytes that replaced pods had written on this node and that went with them.", nil},
		activeRestarts: {"nodeagent_restart_active", "gauge", "Restarts this agent is carrying out at this moment.", nil},
		leading:        {"nodeagent_restart_leader", "gauge", "1 while this agent leads: it takes the Restarts that have no holder.", nil},
		takenOver:      {"nodeagent_restart_taken_over_total", "counter", "Restarts this agent took over, as leader, from a holder that gave no sign any more.", nil},
		apiErrors:      {"nodeagent_restart_errors_total", "counter", "Steps of a Restart that failed and were tried again, by step.", []string{"step"}},
		nodeTainted:    {"nodeagent_restart_node_tainted", "gauge", "1 while this node has the agent's taint, which keeps new pods off it because its disk fills.", nil},
	}
}

const (
	restartsTotal = iota
	durationSecs
	freedBytes
	activeRestarts
	leading
	takenOver
	apiErrors
	nodeTainted
)

// Metrics counts what this agent's restarts came to.
type Metrics struct {
	ended    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	freed    prometheus.Counter
	active   prometheus.Gauge
	errors   *prometheus.CounterVec

	leads     prometheus.Gauge
	takenOver prometheus.Counter
	tainted   prometheus.Gauge
}

// NewMetrics makes the metrics of MetricTable and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	t := MetricTable()
	counter := func(m Metric) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: m.Name, Help: m.Help}
	}
	m := &Metrics{
		ended: prometheus.NewCounterVec(counter(t[restartsTotal]), t[restartsTotal].Labels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: t[durationSecs].Name, Help: t[durationSecs].Help,
			// A deadline is ten minutes by default; few rollouts take under a second.
			Buckets: []float64{1, 2, 5, 10, 20, 45, 90, 180, 300, 600, 1200},
		}, t[durationSecs].Labels),
		freed:  prometheus.NewCounter(counter(t[freedBytes])),
		active: prometheus.NewGauge(prometheus.GaugeOpts{Name: t[activeRestarts].Name, Help: t[activeRestarts].Help}),
		errors: prometheus.NewCounterVec(counter(t[apiErrors]), t[apiErrors].Labels),
	}
	m.leads = prometheus.NewGauge(prometheus.GaugeOpts{Name: t[leading].Name, Help: t[leading].Help})
	m.takenOver = prometheus.NewCounter(counter(t[takenOver]))
	m.tainted = prometheus.NewGauge(prometheus.GaugeOpts{Name: t[nodeTainted].Name, Help: t[nodeTainted].Help})
	reg.MustRegister(m.ended, m.duration, m.freed, m.active, m.errors, m.leads, m.takenOver, m.tainted)
	return m
}

// end counts a Restart that this agent has just ended.
func (m *Metrics) end(r *v1alpha1.Restart) {
	kind, result := kindLabel(r.Spec.Target), string(r.Status.Phase)
	m.ended.WithLabelValues(kind, string(r.Spec.Reason), result).Inc()
	m.freed.Add(float64(r.Status.FreedBytes))
	if r.Status.Started != nil && r.Status.Finished != nil {
		m.duration.WithLabelValues(kind, result).Observe(r.Status.Finished.Sub(r.Status.Started.Time).Seconds())
	}
}

// kindLabel keeps the label's values few, whatever owners a cluster has.
func kindLabel(t v1alpha1.TargetReference) string {
	switch t.Kind {
	case KindDeployment, KindStatefulSet, KindDaemonSet, KindReplicaSet, KindReplicationController, KindPod, KindJob:
		return t.Kind
	}
	return "Other"
}
