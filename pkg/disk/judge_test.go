package disk

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

const gib = 1 << 30

var app = runtime.Container{
	ID: "4f3c", Namespace: "k8s.io", Name: "app",
	Pod: runtime.Pod{Namespace: "shop", Name: "checkout-7c9f", UID: "u-1"},
}

// steady is growth that is sure, in MiB/s.
func steady(rate float64) Trend {
	return Trend{
		Rate:   Rate{Low: 0.9 * rate * mib, Expected: rate * mib, High: 1.1 * rate * mib},
		Rising: 10 * time.Second, Looks: 6,
	}
}

// leaking is a container that grows at 20 MiB/s, with 20 GiB of room above the
// reserve: 17 minutes.
func leaking() Facts {
	return Facts{
		Container: app, At: epoch,
		Parts: []Holding{{
			Part:       PartLayer,
			Usage:      Usage{Bytes: gib, Inodes: 100},
			Trends:     Trends{Bytes: steady(20)},
			Mount:      "/var/lib/containerd",
			Filesystem: FilesystemUsage{Size: 100 * gib, Used: 65 * gib, Avail: 35 * gib, Inodes: 1e6, InodesUsed: 1e5, InodesFree: 9e5},
			Evidence: []Growth{{
				Path: "/app/logs/debug.log", Bytes: 4 * gib, Grew: 1200 * mib, Over: time.Minute, Rate: 20 * mib,
			}},
		}},
	}
}

func TestJudgeEnters(t *testing.T) {
	type change func(f *Facts, p *Policy)
	for _, c := range []struct {
		name     string
		change   change
		offender bool
		bound    Bound
		resource Resource
		message  string
	}{
		{
			name: "leak", change: func(*Facts, *Policy) {}, offender: true, bound: BoundFilesystem,
			message: "/app/logs/debug.log in checkout-7c9f/app grew 1.2 GiB in 60 s (20 MiB/s) to 4.0 GiB; the file system of /var/lib/containerd is full in 17 min",
		},
		{
			name:   "not growing",
			change: func(f *Facts, _ *Policy) { f.Parts[0].Trends = Trends{} }, bound: BoundFilesystem,
		},
		{
			name:   "not for long enough",
			change: func(f *Facts, _ *Policy) { f.Parts[0].Trends.Bytes.Rising = 4 * time.Second }, bound: BoundFilesystem,
		},
		{
			name:   "seen in too few looks",
			change: func(f *Facts, _ *Policy) { f.Parts[0].Trends.Bytes.Looks = 3 }, bound: BoundFilesystem,
		},
		{
			name:   "beyond the horizon at its lowest",
			change: func(f *Facts, _ *Policy) { f.Parts[0].Trends.Bytes.Rate.Low = 10 * mib }, bound: BoundFilesystem,
		},
		{
			name:   "room enough",
			change: func(f *Facts, _ *Policy) { f.Parts[0].Filesystem.Avail = 90 * gib }, bound: BoundFilesystem,
		},
		{
			name: "a larger reserve leaves less room",
			change: func(f *Facts, p *Policy) {
				f.Parts[0].Filesystem.Avail = 90 * gib
				p.Reserve = Reserve{Amount: 80 * gib}
			}, bound: BoundFilesystem,
			offender: true,
		},
		{
			name: "others fill most of it",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Trends.OtherBytes = steady(200)
			},
			bound: BoundFilesystem,
		},
		{
			name: "others fill it as well, but it has a good part",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Trends.OtherBytes = steady(20)
			},
			bound: BoundFilesystem, offender: true,
			message: "/app/logs/debug.log in checkout-7c9f/app grew 1.2 GiB in 60 s (20 MiB/s) to 4.0 GiB; the file system of /var/lib/containerd is full in 9 min",
		},
		{
			name:   "holds too little to be worth a restart",
			change: func(f *Facts, _ *Policy) { f.Parts[0].Usage.Bytes = 10 * mib }, bound: BoundFilesystem,
		},
		{
			name: "too slow to matter on a full disk",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Filesystem.Avail, f.Parts[0].Trends.Bytes = gib, steady(0.01)
			},
			bound: BoundFilesystem,
		},
		{
			name: "disk below its reserve already",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Filesystem.Avail = gib
			},
			bound: BoundFilesystem, offender: true,
			message: "/app/logs/debug.log in checkout-7c9f/app grew 1.2 GiB in 60 s (20 MiB/s) to 4.0 GiB; the file system of /var/lib/containerd is below its reserve already",
		},
		{
			name: "own limit first",
			change: func(f *Facts, _ *Policy) {
				f.Limits = Limits{Pod: 8 * gib, Containers: map[string]int64{"app": 2 * gib}}
			},
			bound: BoundContainer, offender: true,
			message: "/app/logs/debug.log in checkout-7c9f/app grew 1.2 GiB in 60 s (20 MiB/s) to 4.0 GiB; its ephemeral-storage limit of 2.0 GiB is reached in 51 s",
		},
		{
			name: "a small limit needs no least amount",
			change: func(f *Facts, _ *Policy) {
				f.Limits = Limits{Containers: map[string]int64{"app": 20 * mib}}
				f.Parts[0].Usage.Bytes, f.Parts[0].Trends.Bytes = 5*mib, steady(0.1)
			},
			bound: BoundContainer, offender: true,
		},
		{
			name: "own limit exceeded, whatever the growth",
			change: func(f *Facts, _ *Policy) {
				f.Limits = Limits{Containers: map[string]int64{"app": gib / 2}}
				f.Parts[0].Trends, f.Parts[0].Evidence = Trends{}, nil
			},
			bound: BoundContainer, offender: true,
			message: "checkout-7c9f/app holds 1.0 GiB on disk and grows by 0 B/s; its ephemeral-storage limit of 512 MiB is reached already",
		},
		{
			name: "the pod's limit, with a sibling's part",
			change: func(f *Facts, _ *Policy) {
				f.Limits = Limits{Pod: 3 * gib}
				f.Siblings = Siblings{Usage: Usage{Bytes: gib}, Rate: steady(10).Rate}
			},
			bound: BoundPod, offender: true,
			message: "/app/logs/debug.log in checkout-7c9f/app grew 1.2 GiB in 60 s (20 MiB/s) to 4.0 GiB; its pod's ephemeral-storage limit of 3.0 GiB is reached in 34 s",
		},
		{
			name: "the pod's limit, but a sibling's fault",
			change: func(f *Facts, _ *Policy) {
				f.Limits = Limits{Pod: 3 * gib}
				f.Parts[0].Trends.Bytes = steady(1)
				f.Siblings = Siblings{Usage: Usage{Bytes: gib}, Rate: steady(10).Rate}
			},
			bound: BoundPod,
		},
		{
			name: "growing back to where it was",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Trends.Bytes.Peak = 5 * gib
			},
			bound: BoundFilesystem,
		},
		{
			name: "growing back where there is no room for it any more",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Trends.Bytes.Peak, f.Parts[0].Filesystem.Avail = 5*gib, 17*gib
			},
			bound: BoundFilesystem, offender: true,
		},
		{
			name: "somewhat above where it was, with time to act",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Usage.Bytes, f.Parts[0].Trends.Bytes.Peak = 5*gib, 4*gib
			},
			bound: BoundFilesystem,
		},
		{
			name: "somewhat above where it was, without",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Usage.Bytes, f.Parts[0].Trends.Bytes.Peak, f.Parts[0].Filesystem.Avail = 5*gib, 4*gib, 23*gib
			},
			bound: BoundFilesystem, offender: true,
		},
		{
			name: "twice as high as it was",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Usage.Bytes, f.Parts[0].Trends.Bytes.Peak = 8*gib, 4*gib
			},
			bound: BoundFilesystem, offender: true,
		},
		{
			name: "never seen quiet",
			change: func(f *Facts, _ *Policy) {
				f.Watched, f.Parts[0].Trends.Bytes.Began = epoch.Add(-10*time.Second), epoch.Add(-10*time.Second)
			},
			bound: BoundFilesystem,
		},
		{
			name: "seen quiet",
			change: func(f *Facts, _ *Policy) {
				f.Watched, f.Parts[0].Trends.Bytes.Began = epoch.Add(-12*time.Second), epoch.Add(-10*time.Second)
			},
			bound: BoundFilesystem, offender: true,
		},
		{
			name: "never seen quiet, for a minute",
			change: func(f *Facts, _ *Policy) {
				f.Watched, f.Parts[0].Trends.Bytes.Began = epoch.Add(-time.Minute), epoch.Add(-time.Minute)
				f.Parts[0].Trends.Bytes.Rising = time.Minute
			},
			bound: BoundFilesystem, offender: true,
		},
		{
			name: "never seen quiet, and a tenth of the time is gone",
			change: func(f *Facts, _ *Policy) {
				f.Watched, f.Parts[0].Trends.Bytes.Began = epoch.Add(-10*time.Second), epoch.Add(-10*time.Second)
				f.Parts[0].Filesystem.Avail = 16*gib + 700*mib
			},
			bound: BoundFilesystem, offender: true,
		},
		{
			name: "inodes",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Trends.Bytes = steady(0.1)
				f.Parts[0].Usage.Inodes = 200_000
				f.Parts[0].Trends.Inodes = Trend{Rate: Rate{Low: 900, Expected: 1000, High: 1100}, Rising: 10 * time.Second, Looks: 6}
				f.Parts[0].Evidence = []Growth{{Path: "/tmp/sessions", Files: 150_000, Bytes: 600 * mib, Grew: 1, Over: time.Second, FileRate: 990}}
			},
			bound: BoundFilesystem, resource: Inodes, offender: true,
			message: "/tmp/sessions in checkout-7c9f/app holds 150000 files (600 MiB) and gets 990 more a second; the file system of /var/lib/containerd is out of inodes in 14 min",
		},
		{
			name: "a file system without a table of inodes",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Trends.Bytes = Trend{}
				f.Parts[0].Filesystem.Inodes, f.Parts[0].Filesystem.InodesFree = 0, 0
				f.Parts[0].Usage.Inodes = 200_000
				f.Parts[0].Trends.Inodes = steady(1)
			},
			bound: BoundFilesystem,
		},
		{
			name:   "a sandbox",
			change: func(f *Facts, _ *Policy) { f.Container.Sandbox = true }, bound: BoundFilesystem,
		},
		{
			name: "a hostile name",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Evidence[0].Path = "/x\n\x1b[2Jall is well\u202e\xff"
			},
			bound: BoundFilesystem, offender: true,
			message: `"/x\n\x1b[2Jall is well\u202e\xff" in checkout-7c9f/app grew 1.2 GiB in 60 s (20 MiB/s) to 4.0 GiB; the file system of /var/lib/containerd is full in 17 min`,
		},
		{
			name: "a folder, outside Kubernetes",
			change: func(f *Facts, _ *Policy) {
				f.Container = runtime.Container{ID: "4f3c", Namespace: "moby"}
				f.Parts[0].Evidence[0].Path, f.Parts[0].Evidence[0].Files = "/spool", 9000
			},
			bound: BoundFilesystem, offender: true,
			message: "/spool (9000 files) in moby/4f3c grew 1.2 GiB in 60 s (20 MiB/s) to 4.0 GiB; the file system of /var/lib/containerd is full in 17 min",
		},
		{
			name: "two more that grow, and no third",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Evidence = append(f.Parts[0].Evidence,
					Growth{Path: "/spool", Files: 9000, Bytes: 1200 * mib, Grew: 180 * mib, Over: time.Minute, Rate: 3 * mib, FileRate: 8},
					Growth{Path: "/no more than before", Files: 5, Over: time.Minute, Rate: 2.5 * mib, FileRate: 2},
					Growth{Path: "/b", Bytes: 90 * mib, Grew: 60 * mib, Over: time.Minute, Rate: mib},
					Growth{Path: "/c", Bytes: 9 * mib, Grew: 6 * mib, Over: time.Minute, Rate: mib / 10})
			},
			bound: BoundFilesystem, offender: true,
			message: "/app/logs/debug.log in checkout-7c9f/app grew 1.2 GiB in 60 s (20 MiB/s) to 4.0 GiB; also /spool (9000 files, 1.2 GiB, 3.0 MiB/s) and /b (90 MiB, 1.0 MiB/s); the file system of /var/lib/containerd is full in 17 min",
		},
		{
			name: "two more that get files",
			change: func(f *Facts, _ *Policy) {
				f.Parts[0].Trends.Bytes = steady(0.1)
				f.Parts[0].Usage.Inodes = 200_000
				f.Parts[0].Trends.Inodes = Trend{Rate: Rate{Low: 900, Expected: 1000, High: 1100}, Rising: 10 * time.Second, Looks: 6}
				f.Parts[0].Evidence = []Growth{
					{Path: "/log", Bytes: mib, Grew: mib, Over: time.Second, Rate: mib},
					{Path: "/tmp/sessions", Files: 150_000, Bytes: 600 * mib, Grew: 1, Over: time.Second, FileRate: 700},
					{Path: "/tmp/locks", Files: 50_000, Over: time.Second, FileRate: 290},
				}
			},
			bound: BoundFilesystem, resource: Inodes, offender: true,
			message: "/tmp/sessions in checkout-7c9f/app holds 150000 files (600 MiB) and gets 700 more a second; also /tmp/locks (50000 files, 290 more a second); the file system of /var/lib/containerd is out of inodes in 14 min",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, p := leaking(), DefaultPolicy()
			c.change(&f, &p)
			v, state := Judge(f, p, State{})
			if v.Offender != c.offender || state.Offender != c.offender {
				t.Errorf("offender %v, state %+v; want %v", v.Offender, state, c.offender)
			}
			if v.Bound != c.bound {
				t.Errorf("bound %s, want %s", v.Bound, c.bound)
			}
			if c.resource != "" && v.Resource != c.resource {
				t.Errorf("resource %s, want %s", v.Resource, c.resource)
			}
			if c.message != "" && v.Message != c.message {
				t.Errorf("message\n%s\nwant\n%s", v.Message, c.message)
			}
			if (v.Message != "") != c.offender || v.Since.IsZero() == c.offender {
				t.Errorf("message %q and since %v do not go with offender %v", v.Message, v.Since, c.offender)
			}
		})
	}
}

// TestJudgeHysteresis: what it takes to stay an offender and to be none again.
func TestJudgeHysteresis(t *testing.T) {
	was := State{Offender: true, Since: epoch.Add(-time.Minute), Bound: BoundFilesystem, Resource: Bytes, Filesystem: "/var/lib/containerd"}
	calm := was
	calm.Calm = epoch.Add(-59 * time.Second)
	for _, c := range []struct {
		name   string
		state  State
		change func(*Facts)
		want   State
	}{
		{"goes on", was, func(*Facts) {}, was},
		{"unsure for a moment", was, func(f *Facts) { f.Parts[0].Trends.Bytes.Rising, f.Parts[0].Trends.Bytes.Rate.Low = 0, 0 }, was},
		{"slower, within twice the horizon", was, func(f *Facts) { f.Parts[0].Trends.Bytes = steady(6) }, was},
		{"slower than that", was, func(f *Facts) { f.Parts[0].Trends.Bytes = steady(5) }, with(was, epoch)},
		{"stopped", was, func(f *Facts) { f.Parts[0].Trends = Trends{} }, with(was, epoch)},
		{"calm, not for long enough", calm, func(f *Facts) { f.Parts[0].Trends = Trends{} }, calm},
		{"calm no more", calm, func(*Facts) {}, was},
		{"calm for long enough", with(was, epoch.Add(-time.Minute)), func(f *Facts) { f.Parts[0].Trends = Trends{} }, State{}},
		{"share between half and whole", was, func(f *Facts) { f.Parts[0].Trends.OtherBytes = steady(120) }, was},
		{"share below half", was, func(f *Facts) { f.Parts[0].Trends.OtherBytes = steady(300) }, with(was, epoch)},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := leaking()
			c.change(&f)
			if _, got := Judge(f, DefaultPolicy(), c.state); got != c.want {
				t.Errorf("state %+v, want %+v", got, c.want)
			}
		})
	}
}

func with(s State, calm time.Time) State {
	s.Calm = calm
	return s
}

// play judges a container whose layer grows as f says, in MiB by second,
// looked at every 2 s from phase on, and tells when it became an offender.
func play(phase, to float64, f func(s float64) float64, room float64) (at float64, ok bool) {
	var series Series
	state := State{}
	for s := phase; s <= to; s += 2 {
		when := epoch.Add(time.Duration(s * float64(time.Second)))
		used := int64(f(s) * mib)
		series = series.Add(Sample{At: when, Usage: Usage{Bytes: used}, Filesystem: Usage{Bytes: 50*gib + used}})
		_, state = Judge(Facts{
			Container: app, At: when, Parts: []Holding{{
				Part: PartLayer, Usage: Usage{Bytes: used}, Trends: series.Trends(),
				Filesystem: FilesystemUsage{Size: 100 * gib, Avail: int64(room*mib) - used + 15*gib},
			}},
		}, DefaultPolicy(), state)
		if state.Offender {
			return s, true
		}
	}
	return 0, false
}

// TestLeakIsSeenWithinTenSeconds: 20 MB/s from 120 s on, whatever the phase of
// the looks, on a disk that it fills in 17 minutes.
func TestLeakIsSeenWithinTenSeconds(t *testing.T) {
	for _, phase := range []float64{0.01, 0.5, 1, 1.5, 1.99} {
		at, ok := play(phase, 140, func(s float64) float64 { return 5 + 20*max(0, s-120) }, 20*1024)
		if !ok || at-120 > 10 {
			t.Errorf("phase %.2f: seen %v, %.2f s after it began", phase, ok, at-120)
		}
	}
}

// TestStartupFillIsNoOffence: 300 MB in 3 s, then nothing, on the same disk.
func TestStartupFillIsNoOffence(t *testing.T) {
	for phase := 0.0; phase < 2; phase += 0.1 {
		at, ok := play(phase, 60, func(s float64) float64 { return min(300, 100*max(0, s-11)) }, 20*1024)
		if ok {
			t.Errorf("phase %.1f: an offender at %.1f s", phase, at)
		}
	}
}

// TestRotationEndsTheOffence: logs that grow by 1 MiB/s to 500 MiB and are cut
// to 400, under a limit of 600 that is never reached. The first tooth looks like
// a leak; from the second on it is known that there is room for it.
func TestRotationEndsTheOffence(t *testing.T) {
	limits := Limits{Containers: map[string]int64{"app": 600 * mib}}
	var series Series
	state := State{}
	for s := 0; s < 3000; s += 2 {
		mb := 400 + s%100
		when := epoch.Add(time.Duration(s) * time.Second)
		series = series.Add(Sample{At: when, Usage: Usage{Bytes: int64(mb) * mib}})
		_, state = Judge(Facts{
			Container: app, At: when, Limits: limits, Parts: []Holding{{
				Part: PartLayer, Usage: Usage{Bytes: int64(mb) * mib}, Trends: series.Trends(),
				Filesystem: FilesystemUsage{Size: 100 * gib, Avail: 80 * gib},
			}},
		}, DefaultPolicy(), state)
		if s >= 170 && state.Offender {
			t.Fatalf("an offender at %d s", s)
		}
	}
}

func TestQuoteIsBounded(t *testing.T) {
	for _, s := range []string{
		"/" + strings.Repeat("n", 5000), "/" + strings.Repeat("ü", 5000), "/" + strings.Repeat("\xbf", 5000),
	} {
		if got := quote(s); len(got) > 5*maxQuoted {
			t.Errorf("%d bytes became %d", len(s), len(got))
		}
	}
}

// TestMessageLeavesRoom: further files are named as long as an Event takes what
// is done about it, too.
func TestMessageLeavesRoom(t *testing.T) {
	for _, c := range []struct {
		name  string
		path  string
		named int
	}{
		{"plain", "/var/log/" + strings.Repeat("a", 140), 3},
		{"written out", "/" + strings.Repeat("\u202e", 50), 2},
	} {
		f := leaking()
		f.Parts[0].Evidence = nil
		for i := range 4 {
			f.Parts[0].Evidence = append(f.Parts[0].Evidence, Growth{Path: c.path + strconv.Itoa(i), Bytes: gib, Grew: mib, Over: time.Second, Rate: float64(9-i) * mib})
		}
		v, _ := Judge(f, DefaultPolicy(), State{})
		named := 0
		for i := range 4 {
			if strings.Contains(v.Message, strings.Trim(quote(c.path+strconv.Itoa(i)), `"`)) {
				named++
			}
		}
		if named != c.named || len(v.Message) > maxMessage || !strings.HasSuffix(v.Message, "is full in 17 min") {
			t.Errorf("%s: %d bytes name %d files, want %d: %s", c.name, len(v.Message), named, c.named, v.Message)
		}
	}
}

func TestSizeAndSpan(t *testing.T) {
	for in, want := range map[float64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1.25 * gib: "1.2 GiB", 20 * mib: "20 MiB", 1023.9 * mib: "1.0 GiB",
	} {
		if got := size(in); got != want {
			t.Errorf("size(%v) is %s, want %s", in, got, want)
		}
	}
	for in, want := range map[time.Duration]string{
		0: "0 s", 89 * time.Second: "89 s", 22 * time.Minute: "22 min", 3 * time.Hour: "3 h", 72 * time.Hour: "3 d",
	} {
		if got := span(in); got != want {
			t.Errorf("span(%v) is %s, want %s", in, got, want)
		}
	}
}
