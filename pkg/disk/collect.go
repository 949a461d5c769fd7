package disk

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// collector reads the watcher's state when it is scraped, so that the series
// of a gone container are gone.
type collector struct {
	watcher *Watcher
	descs   map[string]*prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	w := c.watcher
	put := func(name string, value float64, labels ...*dto.LabelPair) {
		ch <- &gauge{desc: c.descs[name], labels: labels, value: value}
	}
	s := w.snapshot(time.Now())
	for k, x := range s.containers {
		collectContainer(put, k, x, w.methods())
	}
	for mount, x := range s.filesystems {
		collectFilesystem(put, mount, x)
	}
	put("nodeagent_disk_measures_stuck", float64(s.stuck))
	for name, n := range s.unsupported {
		put("nodeagent_disk_unsupported_layers", float64(n), label("snapshotter", name))
	}
}

// gauge is a series. All those of a container share their labels, each of which
// prometheus.NewConstMetric would make anew, by three allocations.
type gauge struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair // by name
	value  float64
}

// Desc implements prometheus.Metric.
func (g *gauge) Desc() *prometheus.Desc { return g.desc }

// Write implements prometheus.Metric.
func (g *gauge) Write(m *dto.Metric) error {
	m.Label, m.Gauge = g.labels, &dto.Gauge{Value: &g.value}
	return nil
}

func label(name, value string) *dto.LabelPair {
	value = strings.ToValidUTF8(value, "\uFFFD") // a mount point may be any bytes
	return &dto.LabelPair{Name: &name, Value: &value}
}

// putter takes the labels in the order of their names.
type putter = func(name string, value float64, labels ...*dto.LabelPair)

func collectContainer(put putter, k seriesKey, x *containerSeries, methods [2]string) {
	l := []*dto.LabelPair{label("container", k.container), label("namespace", k.namespace), label("pod", k.pod), label("uid", k.uid)}
	with := func(more ...*dto.LabelPair) []*dto.LabelPair {
		all := slices.Concat(l, more)
		slices.SortFunc(all, func(a, b *dto.LabelPair) int { return strings.Compare(*a.Name, *b.Name) })
		return all
	}
	for part, p := range x.parts {
		m := cmp.Or(p.method, methods[0])
		if part == PartDeleted {
			m = methods[1]
		}
		which := label("part", string(part))
		of := with(which)
		put("nodeagent_container_disk_bytes", float64(p.usage.Bytes), of...)
		put("nodeagent_container_disk_inodes", float64(p.usage.Inodes), of...)
		put("nodeagent_disk_measure_age_seconds", p.age.Seconds(), with(which, label("method", m))...)
	}
	if x.sandbox {
		return
	}
	put("nodeagent_container_disk_growth_bytes_per_second", x.growth.bytes, l...)
	// Most containers of a node do not grow: four series for each of them
	// would be a third of all. An offender that stopped has those of its bound.
	if x.growth.inodes > 0 {
		put("nodeagent_container_disk_growth_inodes_per_second", x.growth.inodes, l...)
	}
	growing := func(name string, until time.Duration) {
		if until != Never || x.offender {
			put(name, seconds(until), with(label("bound", string(x.bound)), label("resource", string(x.resource)))...)
		}
	}
	growing("nodeagent_container_disk_full_seconds", x.until.Expected)
	growing("nodeagent_container_disk_full_soonest_seconds", x.until.Soonest)
	growing("nodeagent_container_disk_full_latest_seconds", x.until.Latest)
	offender := 0.0
	if x.offender {
		offender = 1
	}
	put("nodeagent_container_offender", offender, l...)
}

func collectFilesystem(put putter, mount string, x filesystemSeries) {
	of := label("filesystem", mount)
	bytes, inodes := label("resource", string(Bytes)), label("resource", string(Inodes))
	put("nodeagent_filesystem_size_bytes", float64(x.usage.Size), of)
	put("nodeagent_filesystem_used_bytes", float64(x.usage.Used), of)
	put("nodeagent_filesystem_available_bytes", float64(x.usage.Avail), of)
	put("nodeagent_filesystem_reserve_bytes", float64(x.reserve), of)
	put("nodeagent_filesystem_unattributed_bytes", float64(max(0, x.usage.Used-x.attributed)), of)
	if x.kept {
		put("nodeagent_filesystem_images_bytes", float64(x.images), of)
		put("nodeagent_filesystem_orphaned_bytes", float64(x.orphaned), of)
	}
	put("nodeagent_filesystem_full_seconds", seconds(x.full), of, bytes)
	if x.usage.Inodes > 0 {
		put("nodeagent_filesystem_size_inodes", float64(x.usage.Inodes), of)
		put("nodeagent_filesystem_used_inodes", float64(x.usage.InodesUsed), of)
		put("nodeagent_filesystem_available_inodes", float64(x.usage.InodesFree), of)
		put("nodeagent_filesystem_reserve_inodes", float64(x.inodeReserve), of)
		put("nodeagent_filesystem_full_seconds", seconds(x.inodesFull), of, inodes)
	}
}

// seconds is a time until full as a metric has it.
func seconds(d time.Duration) float64 {
	if d == Never {
		return math.Inf(1)
	}
	return d.Seconds()
}
