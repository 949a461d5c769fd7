package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// Stats is what the kernel has counted in a group. A figure that it does not
// give here is nil, never 0.
type Stats struct {
	CPU           *time.Duration // used since the start
	Throttled     *time.Duration // it had work and was not let
	Memory        *int64         // bytes now
	MemoryPeak    *int64
	Pids          *int64
	PidsRefused   *int64 // forks that the limit refused
	ReadBytes     *int64
	WriteBytes    *int64
	OOMKills      *int64
	CPUPressure   *time.Duration // some of it waited
	MemPressure   *time.Duration
	IOPressure    *time.Duration
	MemoryRefused *int64 // how often memory was at its limit
}

// Stats reads the group's counters, which takes about ten small files.
func (g *Group) Stats() Stats {
	if g.tree.v2 {
		return g.statsV2()
	}
	return g.statsV1()
}

// CPUUsage opens the file in which the kernel counts the CPU time of the group,
// to be read again and again; nil where it counts none. The caller closes it.
func (g *Group) CPUUsage() (*os.File, error) {
	controller, file := "cpuacct", "cpuacct.usage"
	if g.tree.v2 {
		controller, file = "cpu", "cpu.stat"
	}
	f, err := os.Open(g.path(controller, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot watch the cgroup's CPU time: %w", err)
	}
	return f, nil
}

// OOMKills is how many processes of the group the kernel has killed for want of
// memory; nil if it does not tell.
func (g *Group) OOMKills() *int64 {
	if g.tree.v2 {
		return number(g.keyed("memory", "memory.events"), "oom_kill")
	}
	return number(g.keyed("memory", "memory.oom_control"), "oom_kill")
}

func (g *Group) statsV2() Stats {
	cpu, events := g.keyed("cpu", "cpu.stat"), g.keyed("memory", "memory.events")
	s := Stats{
		CPU: span(cpu, "usage_usec", time.Microsecond), Throttled: span(cpu, "throttled_usec", time.Microsecond),
		Memory: g.number("memory", "memory.current"), MemoryPeak: g.number("memory", "memory.peak"),
		OOMKills: number(events, "oom_kill"), MemoryRefused: number(events, "max"),
		Pids: g.number("pids", "pids.current"), PidsRefused: number(g.keyed("pids", "pids.events"), "max"),
		CPUPressure: g.pressure("cpu.pressure"), MemPressure: g.pressure("memory.pressure"), IOPressure: g.pressure("io.pressure"),
	}
	if raw, ok := g.read("io", "io.stat"); ok {
		s.ReadBytes, s.WriteBytes = sumIO(raw, "rbytes="), sumIO(raw, "wbytes=")
	}
	return s
}

func (g *Group) statsV1() Stats {
	s := Stats{
		Throttled: span(g.keyed("cpu", "cpu.stat"), "throttled_time", time.Nanosecond),
		Memory:    g.number("memory", "memory.usage_in_bytes"), MemoryPeak: g.number("memory", "memory.max_usage_in_bytes"),
		MemoryRefused: g.number("memory", "memory.failcnt"), OOMKills: number(g.keyed("memory", "memory.oom_control"), "oom_kill"),
		Pids: g.number("pids", "pids.current"), PidsRefused: number(g.keyed("pids", "pids.events"), "max"),
	}
	if n := g.number("cpuacct", "cpuacct.usage"); n != nil {
		s.CPU = new(time.Duration(*n))
	}
	if raw, ok := g.read("blkio", "blkio.throttle.io_service_bytes"); ok {
		s.ReadBytes, s.WriteBytes = sumIO(raw, "Read "), sumIO(raw, "Write ")
	}
	return s
}

func (g *Group) read(controller, file string) (string, bool) {
	raw, err := os.ReadFile(g.path(controller, file))
	return string(raw), err == nil
}

func (g *Group) number(controller, file string) *int64 {
	raw, ok := g.read(controller, file)
	if !ok {
		return nil
	}
	return parse(strings.TrimSpace(raw))
}

func (g *Group) keyed(controller, file string) map[string]string {
	raw, _ := g.read(controller, file)
	all := map[string]string{}
	for line := range strings.Lines(raw) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			all[k] = v
		}
	}
	return all
}

func number(from map[string]string, key string) *int64 { return parse(from[key]) }

func parse(s string) *int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

func span(from map[string]string, key string, unit time.Duration) *time.Duration {
	n := number(from, key)
	if n == nil {
		return nil
	}
	return new(time.Duration(*n) * unit)
}

// sumIO adds what follows key on each line, over all devices.
func sumIO(raw, key string) *int64 {
	sum := int64(0)
	for line := range strings.Lines(raw) {
		_, after, ok := strings.Cut(line, key)
		if !ok {
			continue
		}
		if n := parse(strings.Fields(after + " x")[0]); n != nil {
			sum += *n
		}
	}
	return &sum
}

// pressure is the total of "some" in a PSI file.
func (g *Group) pressure(file string) *time.Duration {
	raw, ok := g.read("", file)
	if !ok {
		return nil
	}
	some, _, _ := strings.Cut(raw, "\n")
	_, total, ok := strings.Cut(some, "total=")
	if n := parse(total); ok && n != nil {
		return new(time.Duration(*n) * time.Microsecond)
	}
	return nil
}
