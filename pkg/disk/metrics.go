package disk

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric describes one metric. docs/metrics.md is made from Metrics.
type Metric struct {
	Name   string
	Type   string // gauge, counter, histogram
	Unit   string // bytes, seconds, inodes, bytes/s, inodes/s; empty for a count or a flag
	Labels []string
	Help   string
}

// The labels that name a container. One series stands for all containers of
// one name in one pod: those that ended and wait to be removed with the one
// that runs. The uid keeps a pod apart from its predecessor of the same name
// while both are there. Outside Kubernetes namespace, pod and uid are empty
// and container is the containerd namespace and the id, "moby/4f3c…": no name
// of Kubernetes has a slash. A pod's sandbox is called POD.
func containerLabels(more ...string) []string {
	return append([]string{"namespace", "pod", "container", "uid"}, more...)
}

// Metrics is the table of what this package exposes.
func Metrics() []Metric {
	return []Metric{
		{"nodeagent_container_disk_bytes", "gauge", "bytes", containerLabels("part"), "Bytes allocated on disk by what the container wrote, by part; the last good figure."},
		{"nodeagent_container_disk_inodes", "gauge", "inodes", containerLabels("part"), "Inodes held by what the container wrote, by part; the last good figure."},
		{"nodeagent_container_disk_growth_bytes_per_second", "gauge", "bytes/s", containerLabels(), "Growth of the container's disk usage as expected from its samples; 0 when it does not grow."},
		{"nodeagent_container_disk_growth_inodes_per_second", "gauge", "inodes/s", containerLabels(), "The same of its inodes. While they do not grow there is no series."},
		{"nodeagent_container_disk_full_seconds", "gauge", "seconds", containerLabels("bound", "resource"), "Time until the container reaches its first bound, as expected: filesystem (the reserve of one, in bytes or inodes), container or pod (an ephemeral-storage limit). While it does not grow there is no series, or +Inf where it still is an offender."},
		{"nodeagent_container_disk_full_soonest_seconds", "gauge", "seconds", containerLabels("bound", "resource"), "The same at the highest rate that the samples allow."},
		{"nodeagent_container_disk_full_latest_seconds", "gauge", "seconds", containerLabels("bound", "resource"), "The same at the lowest; within the horizon it makes an offender."},
		{"nodeagent_container_offender", "gauge", "", containerLabels(), "1 while the container is judged to fill a disk, else 0."},
		{"nodeagent_filesystem_size_bytes", "gauge", "bytes", []string{"filesystem"}, "Size of a file system that containers write to."},
		{"nodeagent_filesystem_used_bytes", "gauge", "bytes", []string{"filesystem"}, "Bytes used on it by all writers."},
		{"nodeagent_filesystem_available_bytes", "gauge", "bytes", []string{"filesystem"}, "Bytes available on it to those without privileges; the kubelet evicts when they are below the reserve."},
		{"nodeagent_filesystem_reserve_bytes", "gauge", "bytes", []string{"filesystem"}, "Bytes that are to stay available on it: what this node's kubelet evicts at, disk.reserve where that is set, or 15% where neither is known."},
		{"nodeagent_filesystem_size_inodes", "gauge", "inodes", []string{"filesystem"}, "Inodes that a file system has; no series of one that makes them as they are needed."},
		{"nodeagent_filesystem_used_inodes", "gauge", "inodes", []string{"filesystem"}, "Inodes used on it by all writers."},
		{"nodeagent_filesystem_available_inodes", "gauge", "inodes", []string{"filesystem"}, "Inodes free on it; the kubelet evicts when they are below the reserve."},
		{"nodeagent_filesystem_reserve_inodes", "gauge", "inodes", []string{"filesystem"}, "Inodes that are to stay free on it: what this node's kubelet evicts at, or 5% where that is not known."},
		{"nodeagent_filesystem_unattributed_bytes", "gauge", "bytes", []string{"filesystem"}, "Bytes used on it that are neither a container's, an image layer's nor an orphaned snapshot's."},
		{"nodeagent_filesystem_images_bytes", "gauge", "bytes", []string{"filesystem"}, "Bytes on it of unpacked image layers, as containerd noted them."},
		{"nodeagent_filesystem_orphaned_bytes", "gauge", "bytes", []string{"filesystem"}, "Bytes on it of snapshots that can be written to and that no container has used for 10 minutes."},
		{"nodeagent_filesystem_full_seconds", "gauge", "seconds", []string{"filesystem", "resource"}, "Time until its reserve is reached, for bytes and inodes; +Inf when its usage does not grow."},
		{"nodeagent_disk_measure_age_seconds", "gauge", "seconds", containerLabels("part", "method"), "Age of the container's disk figure, by part; of the oldest where there are several."},
		{"nodeagent_disk_measure_duration_seconds", "histogram", "seconds", []string{"method"}, "Time that one look took: at a folder, at the hot files of a walked one (probe), or, for open files, at all processes."},
		{"nodeagent_disk_measure_failures_total", "counter", "", []string{"method"}, "Looks at a folder, or at a container's open files, that could not be taken."},
		{"nodeagent_disk_measure_error_bytes", "histogram", "bytes", []string{"method", "direction"}, "By how much a figure that is followed, or told by a probe (method probe), was wrong, found by walking the folder in full: below what there is, or above it. One that was right counts as below, by 0."},
		{"nodeagent_disk_measure_error_inodes", "histogram", "inodes", []string{"method", "direction"}, "The same in inodes."},
		{"nodeagent_disk_measures_stuck", "gauge", "", nil, "Looks that have been under way for more than a minute, as on a file system that hangs."},
		{"nodeagent_disk_unsupported_layers", "gauge", "", []string{"snapshotter"}, "Layers that cannot be measured, because their snapshotter keeps no plain folder."},
	}
}

// stuckAfter is when a look that is under way counts as stuck.
const stuckAfter = time.Minute

// register makes the collector and hands it to r.
func (w *Watcher) register(r prometheus.Registerer) error {
	c := &collector{watcher: w, descs: make(map[string]*prometheus.Desc)}
	for _, m := range Metrics() {
		switch m.Type {
		case "gauge":
			c.descs[m.Name] = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
		case "counter":
			w.failures = prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help}, m.Labels)
		case "histogram":
			w.histogram(m)
		}
	}
	for _, method := range w.methods() {
		if method != "" {
			w.failures.WithLabelValues(method) // an alert needs the 0 before the first
			w.durations.WithLabelValues(method)
		}
	}
	for _, direction := range [...]string{tooLow, tooHigh} {
		w.errors.WithLabelValues(w.opts.Meter.Method(), direction)
		w.inodeErrors.WithLabelValues(w.opts.Meter.Method(), direction)
	}
	if r == nil {
		return nil
	}
	for _, x := range []prometheus.Collector{c, w.failures, w.durations, w.errors, w.inodeErrors} {
		if err := r.Register(x); err != nil {
			return fmt.Errorf("cannot register metrics: %w", err)
		}
	}
	return nil
}

func (w *Watcher) histogram(m Metric) {
	h := prometheus.HistogramOpts{Name: m.Name, Help: m.Help}
	switch m.Unit {
	case "bytes":
		h.Buckets = []float64{0, 64 << 10, 1 << 20, 16 << 20, 256 << 20, 4 << 30}
		w.errors = prometheus.NewHistogramVec(h, m.Labels)
	case "inodes":
		h.Buckets = []float64{0, 1, 10, 100, 1000, 10_000}
		w.inodeErrors = prometheus.NewHistogramVec(h, m.Labels)
	default:
		h.Buckets = []float64{.0001, .001, .01, .1, 1, 10, 60}
		w.durations = prometheus.NewHistogramVec(h, m.Labels)
	}
}

// methodProbe is the method label of probes.
const methodProbe = "probe"

// The directions in which a figure can be wrong.
const (
	tooLow  = "below" // it told less than there is
	tooHigh = "above"
)

// wrong counts by how much a followed figure was wrong: what there is, less what
// was told.
func wrong(h *prometheus.HistogramVec, method string, by int64) {
	direction := tooLow
	if by < 0 {
		direction, by = tooHigh, -by
	}
	h.WithLabelValues(method, direction).Observe(float64(by))
}

// methods are how folders, and deleted files, are measured; the second is empty
// where those are not.
func (w *Watcher) methods() [2]string {
	m := [2]string{w.opts.Meter.Method()}
	if w.opts.OpenFiles != nil {
		m[1] = w.opts.OpenFiles.Method()
	}
	return m
}
