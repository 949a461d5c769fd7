package notify

import "github.com/prometheus/client_golang/prometheus"

// Metric describes one metric, for the code that makes it and the docs alike.
type Metric struct {
	Name, Type, Help string
	Labels           []string
}

// MetricTable lists all of this package's metrics.
func MetricTable() []Metric {
	return []Metric{
		{"nodeagent_notifications_total", "counter", "Messages to a receiver of the Config's notify, by result: delivered or failed. A failed one is tried again.", []string{"receiver", "result"}},
	}
}

const (
	delivered = "delivered"
	failed    = "failed"
)

// newCounter registers the counter, every series of it at zero.
func newCounter(reg prometheus.Registerer, receivers []string) *prometheus.CounterVec {
	m := MetricTable()[0]
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help}, m.Labels)
	reg.MustRegister(c)
	for _, name := range receivers {
		c.WithLabelValues(name, delivered)
		c.WithLabelValues(name, failed)
	}
	return c
}
