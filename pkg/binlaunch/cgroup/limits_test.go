package cgroup

import (
	"reflect"
	"testing"
)

func TestWrites(t *testing.T) {
	all := Limits{CPU: 250, Memory: 64 << 20, Pids: 64, CPUs: "0-1", Mems: "0", Together: true, IO: []IO{{Device: "8:0", ReadBPS: 1000, WriteIOPS: 5}}}
	for _, c := range []struct {
		name string
		v2   bool
		l    Limits
		want []string
	}{
		{"nothing on v2", true, Limits{}, nil},
		{"nothing on v1", false, Limits{}, nil},
		{"all on v2", true, all, []string{
			"cpu.max=25000 100000", "cpu.weight=10", "memory.max=67108864", "memory.swap.max=0", "memory.oom.group=1",
			"pids.max=64", "cpuset.mems=0", "cpuset.cpus=0-1", "io.max=8:0 rbps=1000 wiops=5",
		}},
		{"all on v1", false, all, []string{
			"cpu.cfs_period_us=100000", "cpu.cfs_quota_us=25000", "cpu.shares=256", "memory.limit_in_bytes=67108864",
			"memory.memsw.limit_in_bytes=67108864", "pids.max=64", "cpuset.cpus=0-1", "cpuset.mems=0",
			"blkio.throttle.read_bps_device=8:0 1000", "blkio.throttle.write_iops_device=8:0 5",
		}},
		{"a core, by the conversion of Kubernetes", true, Limits{CPU: 1000}, []string{"cpu.max=100000 100000", "cpu.weight=39"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, w := range writes(c.v2, c.l) {
				got = append(got, w.file+"="+w.value)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}
