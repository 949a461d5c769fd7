package disk

import (
	"strings"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const second = time.Second
	for _, c := range []struct {
		name  string
		costs []time.Duration
		want  []time.Duration
	}{
		{"none", nil, nil},
		{"unknown cost", []time.Duration{0}, []time.Duration{2 * second}},
		{"small ones have their way", []time.Duration{time.Millisecond, 50 * time.Microsecond}, []time.Duration{2 * second, 2 * second}},
		{"one giant takes the whole share", []time.Duration{3 * second}, []time.Duration{60 * second}},
		{
			"a giant does not starve the small", []time.Duration{3 * second, 2 * time.Millisecond, 2 * time.Millisecond},
			[]time.Duration{62500 * time.Millisecond, 2 * second, 2 * second},
		},
		{
			"equals share alike", []time.Duration{second, second},
			[]time.Duration{40 * second, 40 * second},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := pace(c.costs, 2*second, 0.05)
			total := 0.0
			for i, interval := range got {
				if (interval - c.want[i]).Abs() > time.Millisecond {
					t.Errorf("interval %d is %v, want %v", i, interval, c.want[i])
				}
				total += c.costs[i].Seconds() / interval.Seconds()
			}
			if total > 0.05+1e-9 {
				t.Errorf("together they take %.3f of a core", total)
			}
		})
	}
}

func TestPolicyValidate(t *testing.T) {
	if err := DefaultPolicy().Validate(); err != nil {
		t.Errorf("the default policy: %v", err)
	}
	for name, change := range map[string]func(*Policy){
		"horizon":     func(p *Policy) { p.Horizon = 0 },
		"sustain":     func(p *Policy) { p.Sustain = time.Hour },
		"calm":        func(p *Policy) { p.Calm = -1 },
		"share":       func(p *Policy) { p.MinShare = 2 },
		"rate":        func(p *Policy) { p.MinRate = -1 },
		"reserve":     func(p *Policy) { p.Reserve.Percent = 100 },
		"least":       func(p *Policy) { p.MinInodes = -1 },
		"the reserve": func(p *Policy) { p.InodeReserve.Amount = -1 },
	} {
		p := DefaultPolicy()
		change(&p)
		if err := p.Validate(); err == nil {
			t.Errorf("%s: no error for %+v", name, p)
		}
	}
}

const mountinfo = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /sys rw - sysfs sysfs rw
40 22 8:16 / /var/lib/containerd rw - xfs /dev/sdb rw
41 22 8:16 /sub /mnt/a\040b rw - xfs /dev/sdb rw
42 40 0:50 / /var/lib/containerd/tmp rw - tmpfs tmpfs rw
`

func TestMounts(t *testing.T) {
	all, err := parseMounts(strings.NewReader(mountinfo))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/":                           "/",
		"/var/lib/containerd":         "/var/lib/containerd",
		"/var/lib/containerd/x/fs":    "/var/lib/containerd",
		"/var/lib/containerdX":        "/",
		"/var/lib/containerd/tmp/1":   "/var/lib/containerd/tmp",
		"/mnt/a b/c":                  "/mnt/a b",
		"/var/lib/kubelet/pods/1/etc": "/",
	} {
		if got := all.of(path).point; got != want {
			t.Errorf("%s is on %s, want %s", path, got, want)
		}
	}
	if got := all.at("/srv/link/fs", mkdev(8, 16)).point; got != "/mnt/a b" {
		t.Errorf("by its device the path is on %s, want the shortest of that device", got)
	}
	if got := all.at("/var/lib/containerd/x", mkdev(0, 99)).point; got != "/var/lib/containerd" {
		t.Errorf("a subvolume is on %s, want its path's mount", got)
	}
	for _, bad := range []string{"1 2 3\n", "1 2 x:y / / rw\n", "1 2 8 / / rw\n"} {
		if _, err := parseMounts(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
