package binlaunch

import (
	"net"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/lifecycle"
)

// Metric describes one metric, for the code that makes it and the docs alike.
type Metric struct {
	Name   string
	Type   string // counter or gauge
	Help   string
	Labels []string
	value  func(i Instance, s Stats) *float64 // nil where there are other labels than binary
}

// MetricTable lists all of this package's metrics. Those that the kernel
// counts are left out where nothing runs or it does not count them.
func MetricTable() []Metric {
	one := []string{"binary"}
	return []Metric{
		{"nodeagent_binary_up", "gauge", "1 while the task is Healthy, else 0.", one, func(i Instance, _ Stats) *float64 {
			return number(lifecycle.Up(i.Status.State))
		}},
		{"nodeagent_binary_restarts_total", "counter", "How often the task was started again after it had ended.", one, func(i Instance, _ Stats) *float64 {
			return count(int64(i.Status.Restarts))
		}},
		{"nodeagent_binary_oom_kills_total", "counter", "How often the task was killed for using more memory than it may.", one, func(i Instance, _ Stats) *float64 {
			return count(int64(i.OOMKills))
		}},
		{"nodeagent_binary_failed_fetches", "gauge", "Fetches in a row that failed, for the task or for the update of it: 0 after one that succeeded.", one, func(i Instance, _ Stats) *float64 {
			return count(int64(i.Misses))
		}},
		{"nodeagent_binary_cpu_seconds_total", "counter", "CPU time that the running task has used.", one, func(_ Instance, s Stats) *float64 { return seconds(s.CPU) }},
		{"nodeagent_binary_cpu_throttled_seconds_total", "counter", "Time that the running task was held back by its CPU limit.", one, func(_ Instance, s Stats) *float64 { return seconds(s.Throttled) }},
		{"nodeagent_binary_memory_bytes", "gauge", "Memory that the running task uses, page cache included.", one, func(_ Instance, s Stats) *float64 { return bytes64(s.Memory) }},
		{"nodeagent_binary_pids", "gauge", "Processes and threads of the running task.", one, func(_ Instance, s Stats) *float64 { return bytes64(s.Pids) }},
		{"nodeagent_binary_read_bytes_total", "counter", "Bytes that the running task has read from disks.", one, func(_ Instance, s Stats) *float64 { return bytes64(s.ReadBytes) }},
		{"nodeagent_binary_written_bytes_total", "counter", "Bytes that the running task has written to disks.", one, func(_ Instance, s Stats) *float64 { return bytes64(s.WriteBytes) }},
		{"nodeagent_binary_state", "gauge", "1 for the state that the task is in; docs/launch/lifecycle.md has them.", []string{"binary", "state"}, nil},
		{"nodeagent_binary_launch_seconds", "gauge", "How long each phase of the last launch took.", []string{"binary", "phase"}, nil},
		{"nodeagent_binary_pressure_seconds_total", "counter", "Time in which some of the running task's threads waited for cpu, memory or io, as the kernel's pressure says.", []string{"binary", "resource"}, nil},
	}
}

// The metrics with more labels, by their place from the table's end.
const (
	stateMetric = iota + 1
	launchMetric
	pressureMetric
	moreMetrics = 3
)

// Collector tells the metrics of all Binaries as they stand when it is asked.
// Series of one that is gone are gone with it. It costs the reading of some
// files of each task's cgroup.
type Collector struct {
	s     *Supervisor
	table []Metric
	descs []*prometheus.Desc
}

// NewCollector makes it; the caller registers it.
func NewCollector(s *Supervisor) *Collector {
	c := &Collector{s: s, table: MetricTable()}
	for _, m := range c.table {
		c.descs = append(c.descs, prometheus.NewDesc(m.Name, m.Help, m.Labels, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, i := range c.s.Instances() {
		stats, _ := i.Stats()
		c.tell(ch, i, stats)
	}
}

// tell is what one Binary's metrics say.
func (c *Collector) tell(ch chan<- prometheus.Metric, i Instance, stats Stats) {
	last := len(c.table) - moreMetrics - 1
	send := func(at int, v float64, labels ...string) {
		kind := prometheus.GaugeValue
		if c.table[at].Type == "counter" {
			kind = prometheus.CounterValue
		}
		ch <- prometheus.MustNewConstMetric(c.descs[at], kind, v, labels...)
	}
	for at, m := range c.table {
		if m.value == nil {
			continue
		}
		if v := m.value(i, stats); v != nil {
			send(at, *v, i.Name)
		}
	}
	send(last+stateMetric, 1, i.Name, string(i.Status.State))
	for phase, d := range i.Status.Phases {
		send(last+launchMetric, d.Seconds(), i.Name, phase)
	}
	for resource, d := range map[string]*time.Duration{"cpu": stats.CPUStall, "memory": stats.MemoryStall, "io": stats.IOStall} {
		if d != nil {
			send(last+pressureMetric, d.Seconds(), i.Name, resource)
		}
	}
}

func number(b bool) *float64 {
	v := 0.0
	if b {
		v = 1
	}
	return &v
}

func count(n int64) *float64 { v := float64(n); return &v }

func seconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	v := d.Seconds()
	return &v
}

func bytes64(n *int64) *float64 {
	if n == nil {
		return nil
	}
	return count(*n)
}

// Target is one port of one task, for Prometheus' HTTP service discovery.
type Target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// Targets returns every TCP port of the tasks whose process runs, those that
// fail their check included: Prometheus is to see them down.
func (s *Supervisor) Targets() []Target {
	all := []Target{} // an empty list, not null
	for _, i := range s.Instances() {
		if !lifecycle.Running(i.Status.State) || i.Status.State == v1alpha1.StateStopping {
			continue
		}
		for _, p := range i.Status.Ports {
			if p.Protocol == v1alpha1.ProtocolTCP {
				all = append(all, s.target(i, p))
			}
		}
	}
	return all
}

func (s *Supervisor) target(i Instance, p v1alpha1.PortStatus) Target {
	port := strconv.Itoa(int(p.Port))
	return Target{
		Targets: []string{net.JoinHostPort(s.o.Host, port)},
		Labels: map[string]string{
			"__meta_nodeagent_node": s.o.Node, "__meta_nodeagent_binary": i.Name, "__meta_nodeagent_source": i.Source,
			"__meta_nodeagent_port_name": p.Name, "__meta_nodeagent_port_number": port, "__meta_nodeagent_state": string(i.Status.State),
		},
	}
}
