package cgroup

import (
	"fmt"
	"strconv"
)

// Limits of one group. Zero means none.
type Limits struct {
	CPU    int64  // thousandths of a core, from 10
	Memory int64  // bytes, swap included
	Pids   int64  // processes and threads
	CPUs   string // "0-3,8": the cores it may use
	Mems   string // NUMA nodes
	IO     []IO
	// Together ends all of the group when memory is out, its own limit or the
	// node's. On v1 the kernel cannot: see Group.OOMEvents.
	Together bool
}

// IO bounds one block device.
type IO struct {
	Device              string // "8:0"
	ReadBPS, WriteBPS   int64  // bytes a second
	ReadIOPS, WriteIOPS int64
}

// write is one value of one control file.
type write struct {
	controller, file, value string
	what                    string // the limit's name, as a person is told
	optional                bool   // a kernel without the file keeps the limit by other means
}

const period = 100_000 // microseconds, the kernel's default

// writes gives the control files of v1 or v2 in the order in which they must be
// written.
func writes(v2 bool, l Limits) []write {
	if v2 {
		return writesV2(l)
	}
	return writesV1(l)
}

func writesV2(l Limits) (all []write) {
	add := func(w write) { all = append(all, w) }
	if l.CPU > 0 {
		add(write{"cpu", "cpu.max", fmt.Sprintf("%d %d", l.CPU*period/1000, period), "cpu", false})
		add(write{"cpu", "cpu.weight", itoa(weight(l.CPU)), "cpu weight", false})
	}
	if l.Memory > 0 {
		add(write{"memory", "memory.max", itoa(l.Memory), "memory", false})
		add(write{"memory", "memory.swap.max", "0", "memory swap", true})
	}
	if l.Together {
		add(write{"memory", "memory.oom.group", "1", "memory oom group", false})
	}
	if l.Pids > 0 {
		add(write{"pids", "pids.max", itoa(l.Pids), "pids", false})
	}
	if l.Mems != "" {
		add(write{"cpuset", "cpuset.mems", l.Mems, "cpuset mems", false})
	}
	if l.CPUs != "" {
		add(write{"cpuset", "cpuset.cpus", l.CPUs, "cpuset cpus", false})
	}
	for _, d := range l.IO {
		value := d.Device
		for _, p := range []struct {
			key string
			n   int64
		}{{"rbps", d.ReadBPS}, {"wbps", d.WriteBPS}, {"riops", d.ReadIOPS}, {"wiops", d.WriteIOPS}} {
			if p.n > 0 {
				value += fmt.Sprintf(" %s=%d", p.key, p.n)
			}
		}
		add(write{"io", "io.max", value, "io " + d.Device, false})
	}
	return all
}

func writesV1(l Limits) (all []write) {
	add := func(w write) { all = append(all, w) }
	if l.CPU > 0 {
		add(write{"cpu", "cpu.cfs_period_us", itoa(period), "cpu", false})
		add(write{"cpu", "cpu.cfs_quota_us", itoa(l.CPU * period / 1000), "cpu", false})
		add(write{"cpu", "cpu.shares", itoa(shares(l.CPU)), "cpu weight", false})
	}
	if l.Memory > 0 {
		add(write{"memory", "memory.limit_in_bytes", itoa(l.Memory), "memory", false})
		add(write{"memory", "memory.memsw.limit_in_bytes", itoa(l.Memory), "memory swap", true})
	}
	if l.Pids > 0 {
		add(write{"pids", "pids.max", itoa(l.Pids), "pids", false})
	}
	// A v1 cpuset takes nobody in before both are set.
	if l.CPUs != "" || l.Mems != "" {
		add(write{"cpuset", "cpuset.cpus", l.CPUs, "cpuset cpus", false})
		add(write{"cpuset", "cpuset.mems", l.Mems, "cpuset mems", false})
	}
	for _, d := range l.IO {
		for _, p := range []struct {
			file string
			n    int64
		}{
			{"read_bps_device", d.ReadBPS},
			{"write_bps_device", d.WriteBPS},
			{"read_iops_device", d.ReadIOPS},
			{"write_iops_device", d.WriteIOPS},
		} {
			if p.n > 0 {
				add(write{"blkio", "blkio.throttle." + p.file, fmt.Sprintf("%s %d", d.Device, p.n), "io " + d.Device, false})
			}
		}
	}
	return all
}

// shares is Kubernetes' conversion of thousandths of a core.
func shares(milli int64) int64 { return min(max(milli*1024/1000, 2), 262144) }

// weight is Kubernetes' conversion of shares (KEP-2254).
func weight(milli int64) int64 { return 1 + (shares(milli)-2)*9999/262142 }

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
