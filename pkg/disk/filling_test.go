package disk

import (
	"testing"
	"time"
)

func TestFilling(t *testing.T) {
	const size = 100 << 30
	policy := DefaultPolicy() // 15% and 5% have to stay free; the horizon is 30 min
	offender := func(b Bound, left time.Duration, message string) Verdict {
		return Verdict{Offender: true, Bound: b, Until: Until{Expected: left}, Message: message}
	}
	free := func(avail int64, rate float64) filesystem {
		return filesystem{usage: FilesystemUsage{Size: size, Avail: avail}, trends: Trends{Bytes: Trend{Rate: Rate{Expected: rate}}}}
	}
	inodes := func(left int64, rate float64) filesystem {
		fs := free(size/2, 0)
		fs.usage.Inodes, fs.usage.InodesFree = 1000, left
		fs.trends.Inodes.Rate.Expected = rate
		return fs
	}
	const hour = 3600.0
	reserve := policy.Reserve.Of(size)
	for _, test := range []struct {
		name        string
		verdicts    []Verdict
		filesystems []filesystem
		want        Filling
	}{
		{"nothing is known", nil, nil, Filling{}},
		{"half of it is free", nil, []filesystem{free(size/2, 0)}, Filling{}},
		{"a container fills it", []Verdict{offender(BoundFilesystem, time.Minute, "a")}, []filesystem{free(size/2, 0)}, Filling{Sure: true, Message: "a"}},
		{"the first to fill it is told", []Verdict{
			offender(BoundFilesystem, time.Hour, "slow"), offender(BoundFilesystem, time.Minute, "fast"), offender(BoundFilesystem, 2*time.Minute, "b"),
		}, nil, Filling{Sure: true, Message: "fast"}},
		{"one that shrinks since is one all the same", []Verdict{offender(BoundFilesystem, Never, "a")}, nil, Filling{Sure: true, Message: "a"}},
		{"a limit is no disk", []Verdict{offender(BoundContainer, 0, "a"), offender(BoundPod, 0, "b")}, nil, Filling{}},
		{"who is no offender", []Verdict{{Bound: BoundFilesystem, Until: Until{Expected: time.Minute}}}, nil, Filling{}},
		{"full within an hour", nil, []filesystem{free(size/2, 0), free(reserve+hour, 1)}, Filling{Near: true}},
		{"full a little later", nil, []filesystem{free(reserve+hour+1, 1)}, Filling{}},
		{"past the reserve, at rest", nil, []filesystem{free(reserve-1, 0)}, Filling{Near: true}},
		{"at the reserve, at rest", nil, []filesystem{free(reserve, 0)}, Filling{}},
		{"inodes full within an hour", nil, []filesystem{inodes(50+360, 0.1)}, Filling{Near: true}},
		{"inodes full later", nil, []filesystem{inodes(50+361, 0.1)}, Filling{}},
		{"past the reserve of inodes", nil, []filesystem{inodes(49, 0)}, Filling{Near: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := fillingOf(test.verdicts, test.filesystems, policy); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}
