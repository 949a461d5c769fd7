//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// stage is a node of a test: who runs, and what their layers hold.
type stage struct {
	mu         sync.Mutex
	containers []runtime.Container
	looks      map[string]func(since time.Duration) (Look, error) // by upper folder
	measured   map[string]int
	busy       map[string]int
	begun      time.Time
	disk       func(s float64) float64 // MiB that all layers hold together; nil: each is alone
	cost       map[string]time.Duration
}

func newStage() *stage {
	return &stage{
		looks:    make(map[string]func(time.Duration) (Look, error)),
		measured: make(map[string]int), busy: make(map[string]int),
		cost: make(map[string]time.Duration), begun: time.Now(),
	}
}

func (s *stage) list() []runtime.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]runtime.Container(nil), s.containers...)
}

func (s *stage) add(c runtime.Container, look func(since time.Duration) (Look, error)) runtime.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Layer.Upper == "" {
		c.Layer = runtime.Layer{Snapshotter: "overlayfs", Key: c.ID, Upper: "/layers/" + c.Namespace + "/" + c.ID}
	}
	s.containers = append(s.containers, c)
	s.looks[c.Layer.Upper] = look
	return c
}

func (s *stage) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest []runtime.Container
	for _, c := range s.containers {
		if c.ID != id {
			rest = append(rest, c)
		}
	}
	s.containers = rest
}

func (*stage) Method() string { return "stage" }

func (s *stage) Measure(ctx context.Context, t Target) (Look, error) {
	s.mu.Lock()
	upper := t.Layer.Upper
	s.measured[upper]++
	s.busy[upper]++
	if s.busy[upper] > 1 {
		panic("two measures of one layer at once")
	}
	look, cost := s.looks[upper], s.cost[upper]
	s.mu.Unlock()
	begun := time.Now()
	if cost > 0 {
		select {
		case <-time.After(cost):
		case <-ctx.Done():
		}
	}
	l, err := look(time.Since(s.begun))
	s.mu.Lock()
	if s.disk != nil {
		used := int64(s.disk(time.Since(s.begun).Seconds()) * mib)
		l.Filesystem.Used, l.Filesystem.Avail = 65*gib+used, 35*gib-used
	}
	s.busy[upper]--
	s.mu.Unlock()
	l.Started, l.Took = begun, time.Since(begun)
	return l, err
}

func (s *stage) count(c runtime.Container) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.measured[c.Layer.Upper]
}

// holds is a layer of so many MiB by time, on a disk of 100 GiB with 35 free.
func holds(mb func(s float64) float64) func(time.Duration) (Look, error) {
	return func(since time.Duration) (Look, error) {
		used := int64(mb(since.Seconds()) * mib)
		return Look{
			Usage:      Usage{Bytes: used, Inodes: 10},
			Filesystem: FilesystemUsage{Size: 100 * gib, Used: 65*gib + used, Avail: 35*gib - used, Inodes: 1e6, InodesUsed: 1e5, InodesFree: 9e5},
			Files:      []Item{{Path: "/app/logs/debug.log", Bytes: used}},
		}, nil
	}
}

func still(mb float64) func(time.Duration) (Look, error) {
	return holds(func(float64) float64 { return mb })
}

func (s *stage) options(t testing.TB) Options {
	return Options{
		Containers: s.list, Meter: s, Policy: DefaultPolicy(),
		Proc: procWith(t, mountinfoOfTest), Registerer: prometheus.NewRegistry(),
	}
}

const mountinfoOfTest = `22 1 254:0 / / rw - ext4 /dev/vda rw
40 22 8:16 / /layers rw - xfs /dev/sdb rw
41 22 8:32 / /hung rw - nfs hung rw
`

func procWith(t testing.TB, mountinfo string) string {
	proc := t.TempDir()
	write(t, filepath.Join(proc, "self/mountinfo"), 0)
	must(t, os.WriteFile(filepath.Join(proc, "self/mountinfo"), []byte(mountinfo), 0o644))
	return proc
}

// watch runs a watcher until the test ends.
func watch(t testing.TB, o Options) *Watcher {
	t.Helper()
	w, err := NewWatcher(o)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

func pass(d time.Duration) {
	time.Sleep(d) // the clock of the bubble
	synctest.Wait()
}

func container(pod, uid, name, id string) runtime.Container {
	return runtime.Container{
		ID: id, Namespace: "k8s.io", Name: name,
		Pod: runtime.Pod{Namespace: "shop", Name: pod, UID: uid},
	}
}

func TestWatcherTellsOfALeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.add(app, holds(func(s float64) float64 { return 10 + 20*max(0, s-60) }))
		s.add(container("quiet", "u-2", "app", "q"), still(5))
		w := watch(t, s.options(t))
		pass(60 * time.Second)
		select {
		case v := <-w.Offences():
			t.Fatalf("told of %+v before the leak began", v)
		default:
		}
		pass(10 * time.Second)
		select {
		case v := <-w.Offences():
			if !v.Offender || v.Container.ID != app.ID || v.Filesystem != "/layers" || v.Bound != BoundFilesystem {
				t.Errorf("told %+v", v)
			}
			if !strings.HasPrefix(v.Message, "/app/logs/debug.log in checkout-7c9f/app grew ") {
				t.Errorf("message %q", v.Message)
			}
		default:
			t.Fatal("not told 10 s after the leak began")
		}
		pass(65 * time.Second)
		if n := len(w.Offences()); n != 2 {
			t.Errorf("told %d times again in 65 s, want 2", n)
		}
	})
}

func TestWatcherKeepsTheLastGoodFigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.add(app, func(since time.Duration) (Look, error) {
			if since > 10*time.Second {
				return Look{}, errors.New("input/output error")
			}
			return still(100)(since)
		})
		o := s.options(t)
		w := watch(t, o)
		pass(31 * time.Second)
		if bytes, n := w.Used("u-1"); bytes != 100*mib || n != 1 {
			t.Errorf("used %d by %d containers, want the last good figure", bytes, n)
		}
		v := w.Verdicts()[0]
		if v.Usage.Bytes != 100*mib || time.Since(v.At) < 20*time.Second {
			t.Errorf("verdict %+v of %v ago", v.Usage, time.Since(v.At))
		}
		m := gather(t, o.Registerer)
		if got := m["nodeagent_disk_measure_failures_total"]; got[0].GetCounter().GetValue() < 5 {
			t.Errorf("failures %v", got)
		}
		if got := m["nodeagent_disk_measure_age_seconds"]; got[0].GetGauge().GetValue() < 20 {
			t.Errorf("age %v", got)
		}
	})
}

// TestWatcherNeverTellsAZeroItDoesNotKnow: no series before the first look.
func TestWatcherNeverTellsAZeroItDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.add(app, func(time.Duration) (Look, error) { return Look{}, errors.New("input/output error") })
		o := s.options(t)
		w := watch(t, o)
		pass(5 * time.Second)
		if got := w.Verdicts(); len(got) != 0 {
			t.Errorf("verdicts %+v", got)
		}
		if got := gather(t, o.Registerer)["nodeagent_container_disk_bytes"]; len(got) != 0 {
			t.Errorf("series %v", got)
		}
		if !w.Ready() {
			t.Error("not ready, though all was tried")
		}
	})
}

func TestWatcherForgetsTheGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.add(app, still(100))
		s.add(container("db", "u-2", "pg", "p"), func(since time.Duration) (Look, error) {
			if since > 5*time.Second {
				return Look{}, fmt.Errorf("cannot walk: %w", ErrGone)
			}
			return still(7)(since)
		})
		o := s.options(t)
		w := watch(t, o)
		pass(8 * time.Second)
		m := gather(t, o.Registerer)
		if n := m["nodeagent_disk_measure_failures_total"][0].GetCounter().GetValue(); n != 0 {
			t.Errorf("%v failures, a gone layer is none", n)
		}
		const age = "nodeagent_disk_measure_age_seconds"
		if len(m[age]) != 2 {
			t.Errorf("ages %v, want one of each container", m[age])
		}
		s.remove("p")
		s.remove(app.ID)
		pass(2 * time.Second)
		if got := w.Verdicts(); len(got) != 0 {
			t.Errorf("verdicts %+v", got)
		}
		for name, series := range gather(t, o.Registerer) {
			if strings.HasPrefix(name, "nodeagent_container_") || strings.HasPrefix(name, "nodeagent_filesystem_") || name == age {
				t.Errorf("%s still has %v", name, series)
			}
		}
	})
}

// TestWatcherTellsNothingOfTheGone: a look that comes back when its container
// is no longer there.
func TestWatcherTellsNothingOfTheGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		c := s.add(app, still(100))
		s.cost[c.Layer.Upper] = 3 * time.Second
		o := s.options(t)
		o.Limits = limitsOf{"u-1": {Containers: map[string]int64{"app": mib}}} // an offender at first sight
		w := watch(t, o)
		pass(time.Second)
		s.remove(c.ID)
		pass(5 * time.Second)
		if n := len(w.Offences()); n != 0 {
			t.Errorf("told %d offences of a container that is gone", n)
		}
		if n := s.count(c); n != 1 {
			t.Errorf("measured %d times", n)
		}
	})
}

// TestWatcherMixesNoPods: an old pod and its successor of the same name, two
// attempts of one container in it, and a pod of that name in another namespace.
func TestWatcherMixesNoPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.add(container("web-0", "old", "app", "1"), still(100))
		s.add(container("web-0", "new", "app", "2"), still(3))
		s.add(container("web-0", "new", "app", "3"), still(4))
		box := container("web-0", "new", "", "4")
		box.Sandbox = true
		s.add(box, still(1))
		same := container("web-0", "other", "app", "1") // containerd's ids are unique in a namespace only
		same.Namespace = "moby"
		same.Pod = runtime.Pod{}
		s.add(same, still(50))
		elsewhere := container("web-0", "staged", "app", "5")
		elsewhere.Pod.Namespace = "stage"
		s.add(elsewhere, still(9))
		o := s.options(t)
		w := watch(t, o)
		pass(5 * time.Second)
		if b, n := w.Used("old"); b != 100*mib || n != 1 {
			t.Errorf("old: %d bytes of %d", b, n)
		}
		if b, n := w.Used("new"); b != 7*mib || n != 2 {
			t.Errorf("new: %d bytes of %d", b, n)
		}
		if b, n := w.Used("staged"); b != 9*mib || n != 1 {
			t.Errorf("staged: %d bytes of %d", b, n)
		}
		got := make(map[string]float64) // MiB
		for _, m := range gather(t, o.Registerer)["nodeagent_container_disk_bytes"] {
			l := labels(m)
			got[l["namespace"]+"/"+l["pod"]+"/"+l["uid"]+"/"+l["container"]] += m.GetGauge().GetValue() / mib
		}
		want := map[string]float64{
			"shop/web-0/old/app": 100, "shop/web-0/new/app": 7, "shop/web-0/new/POD": 1, "stage/web-0/staged/app": 9, "///moby/1": 50,
		}
		if !maps.Equal(got, want) {
			t.Errorf("series %v, want %v", got, want)
		}
	})
}

func TestWatcherPacesByCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		giant := s.add(container("big", "u-9", "app", "big"), still(1000))
		s.cost[giant.Layer.Upper] = 3 * time.Second
		var small []runtime.Container
		for i := range 20 {
			small = append(small, s.add(container("small", fmt.Sprint("u", i), "app", fmt.Sprint(i)), still(1)))
		}
		o := s.options(t)
		watch(t, o)
		pass(10 * time.Minute)
		if n := s.count(giant); n < 9 || n > 12 {
			t.Errorf("the giant was measured %d times in 10 min, want about 10", n)
		}
		for _, c := range small {
			if n := s.count(c); n < 250 || n > 301 {
				t.Errorf("a small layer was measured %d times in 10 min, want nearly 300", n)
			}
		}
	})
}

// TestWatcherIsNotHeldUp: two layers hang on one mount. The rest of that mount
// and all others go on.
func TestWatcherIsNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		release := make(chan struct{})
		hang := func(time.Duration) (Look, error) { <-release; return Look{}, errors.New("stale file handle") }
		var stuck []runtime.Container
		for i := range 5 {
			c := container("nfs", "u-3", "app", fmt.Sprint("h", i))
			c.Layer.Upper = fmt.Sprint("/hung/", i)
			stuck = append(stuck, s.add(c, hang))
		}
		free := s.add(app, still(1))
		o := s.options(t)
		watch(t, o)
		pass(5 * time.Minute)
		if n := s.count(free); n < 140 {
			t.Errorf("the free layer was measured %d times in 5 min", n)
		}
		tried := 0
		for _, c := range stuck {
			tried += s.count(c)
		}
		if tried != slots {
			t.Errorf("%d measures were started on the mount that hangs, want %d", tried, slots)
		}
		if got := gather(t, o.Registerer)["nodeagent_disk_measures_stuck"][0].GetGauge().GetValue(); got != slots {
			t.Errorf("%v stuck, want %d", got, slots)
		}
		close(release)
		pass(10 * time.Second)
		if n := s.count(stuck[4]); n == 0 {
			t.Error("a waiting layer was not measured when the mount came back")
		}
	})
}

func TestWatcherStopsThoughAMeasureHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		release := make(chan struct{})
		s.add(app, func(time.Duration) (Look, error) { <-release; return Look{}, nil })
		w, err := NewWatcher(s.options(t))
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		pass(time.Second)
		cancel()
		begun := time.Now()
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begun); took != stopGrace {
			t.Errorf("it took %v", took)
		}
		close(release) // the measure's goroutine must end, or the bubble fails
	})
}

func TestWatcherCountsWhatItCannotMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.containers = []runtime.Container{{ID: "x", Namespace: "k8s.io", Layer: runtime.Layer{Snapshotter: "devmapper", Key: "x"}}}
		o := s.options(t)
		watch(t, o)
		pass(3 * time.Second)
		got := gather(t, o.Registerer)["nodeagent_disk_unsupported_layers"]
		if len(got) != 1 || got[0].GetGauge().GetValue() != 1 || got[0].GetLabel()[0].GetValue() != "devmapper" {
			t.Errorf("unsupported %v", got)
		}
	})
}

type limitsOf map[string]Limits

func (l limitsOf) Limits(uid string) Limits { return l[uid] }

func TestWatcherHoldsPodsToTheirLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.add(app, holds(func(s float64) float64 { return 100 + 5*s }))
		s.add(container("checkout-7c9f", "u-1", "sidecar", "s"), still(300))
		o := s.options(t)
		o.Limits = limitsOf{"u-1": {Pod: gib}}
		w := watch(t, o)
		pass(20 * time.Second)
		v := w.Verdicts()[0]
		if v.Bound != BoundPod || !v.Offender {
			t.Errorf("bound %s, offender %v", v.Bound, v.Offender)
		}
		if want := int64(gib - 300*mib - 190*mib); v.Room < want-20*mib || v.Room > want+20*mib {
			t.Errorf("room %s, want about %s", size(float64(v.Room)), size(float64(want)))
		}
	})
}

func TestOptions(t *testing.T) {
	s := newStage()
	for name, change := range map[string]func(*Options){
		"no containers": func(o *Options) { o.Containers = nil },
		"no meter":      func(o *Options) { o.Meter = nil },
		"interval":      func(o *Options) { o.Interval = time.Millisecond },
		"share":         func(o *Options) { o.Share = 1.5 },
		"policy":        func(o *Options) { o.Policy = Policy{} },
	} {
		o := s.options(t)
		change(&o)
		if _, err := NewWatcher(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func gather(t *testing.T, r prometheus.Registerer) map[string][]*dto.Metric {
	t.Helper()
	families, err := r.(prometheus.Gatherer).Gather()
	must(t, err)
	out := make(map[string][]*dto.Metric)
	for _, f := range families {
		out[f.GetName()] = f.GetMetric()
	}
	return out
}

// TestWatcherWithoutItsHost: where every layer is missing while its container
// is listed, the agent looks in the wrong place, and says so.
func TestWatcherWithoutItsHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		missing := func(time.Duration) (Look, error) { return Look{}, fmt.Errorf("cannot walk: %w", ErrGone) }
		one := s.add(app, missing)
		s.add(container("quiet", "u-2", "app", "q"), missing)
		o := s.options(t)
		w := watch(t, o)
		failures := func() float64 {
			return gather(t, o.Registerer)["nodeagent_disk_measure_failures_total"][0].GetCounter().GetValue()
		}
		pass(9 * time.Second)
		if n := failures(); n != 0 {
			t.Errorf("%v failures in 9 s: a container may be about to go", n)
		}
		pass(30 * time.Second)
		if failures() < 10 || w.Ready() {
			t.Errorf("%v failures, ready %v; want failures and never ready", failures(), w.Ready())
		}
		s.mu.Lock()
		s.looks[one.Layer.Upper] = still(5)
		s.mu.Unlock()
		pass(10 * time.Second)
		if !w.Ready() {
			t.Error("not ready though a layer was measured")
		}
	})
}

// TestWatcherStaysReady: what comes later does not take readiness back.
func TestWatcherStaysReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.add(app, still(5))
		w := watch(t, s.options(t))
		pass(5 * time.Second)
		if !w.Ready() {
			t.Fatal("not ready")
		}
		late := container("late", "u-3", "app", "l")
		late.Layer = runtime.Layer{Snapshotter: "overlayfs", Key: "l", Upper: "/hung/l"}
		s.mu.Lock()
		s.cost["/hung/l"] = time.Hour
		s.mu.Unlock()
		s.add(late, still(5))
		pass(5 * time.Second)
		if !w.Ready() {
			t.Error("not ready any more, for a container that came later")
		}
	})
}

// TestWatcherReadyBesideAHungFileSystem: what hangs from the start is told of
// by its metric, and does not keep the agent from being ready for ever.
func TestWatcherReadyBesideAHungFileSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		hung := container("late", "u-3", "app", "l")
		hung.Layer = runtime.Layer{Snapshotter: "overlayfs", Key: "l", Upper: "/hung/l"}
		s.cost["/hung/l"] = time.Hour
		s.add(hung, still(5))
		w := watch(t, s.options(t))
		pass(30 * time.Second)
		if w.Ready() {
			t.Error("ready before the first look ended")
		}
		pass(40 * time.Second)
		if !w.Ready() {
			t.Error("not ready after a minute")
		}
	})
}

// TestWatcherLetsGoOfGroups: a mount that no place is on any more is forgotten.
func TestWatcherLetsGoOfGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		for i := range 3 {
			c := container("p", fmt.Sprint("u-", i), "app", fmt.Sprint(i))
			c.Layer = runtime.Layer{Snapshotter: "overlayfs", Key: "l", Upper: []string{"/a", "/layers/b", "/hung/c"}[i]}
			s.add(c, still(1))
		}
		w := watch(t, s.options(t))
		pass(5 * time.Second)
		if len(w.groups) != 3 {
			t.Errorf("%d groups, want 3", len(w.groups))
		}
		s.remove("1")
		s.remove("2")
		pass(5 * time.Second)
		if len(w.groups) != 1 {
			t.Errorf("%d groups, want 1", len(w.groups))
		}
	})
}

// remembering is a meter that follows folders.
type remembering struct {
	*stage
	forgotten []string
}

func (r *remembering) Forget(upper string) { r.forgotten = append(r.forgotten, upper) }

func labels(m *dto.Metric) map[string]string {
	out := make(map[string]string)
	for _, l := range m.GetLabel() {
		out[l.GetName()] = l.GetValue()
	}
	return out
}

// TestWatcherTellsOfTheMethod: a look may be taken in another way than the
// meter's own, may come later, may have found an error; a gone folder is forgotten.
func TestWatcherTellsOfTheMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		c := s.add(app, func(since time.Duration) (Look, error) {
			if since > 10*time.Second && since < 20*time.Second {
				return Look{}, fmt.Errorf("cannot follow: %w", ErrLater)
			}
			l, err := still(5)(since)
			l.Method = "walk"
			l.Checked, l.Error = since > 30*time.Second, Usage{Bytes: -4096}
			return l, err
		})
		o := s.options(t)
		meter := &remembering{stage: s}
		o.Meter = meter
		w := watch(t, o)
		pass(19 * time.Second)
		m := gather(t, o.Registerer)
		age := m["nodeagent_disk_measure_age_seconds"][0]
		if got := labels(age)["method"]; got != "walk" || age.GetGauge().GetValue() < 8 {
			t.Errorf("method %s, age %v; want a walk 9 s ago", got, age)
		}
		for _, f := range m["nodeagent_disk_measure_failures_total"] {
			if f.GetCounter().GetValue() != 0 {
				t.Errorf("failures %v, but later is none", f)
			}
		}
		if got := w.Method(c); got != "walk" {
			t.Errorf("method %q", got)
		}
		pass(15 * time.Second)
		found := false
		for _, h := range gather(t, o.Registerer)["nodeagent_disk_measure_error_bytes"] {
			if labels(h)["method"] == "walk" {
				n := h.GetHistogram().GetSampleCount()
				found = n > 0 && h.GetHistogram().GetSampleSum() == float64(n)*4096
			}
		}
		if !found {
			t.Error("the error that a check found is not told")
		}
		s.remove(c.ID)
		pass(2 * time.Second)
		if len(meter.forgotten) != 1 || meter.forgotten[0] != c.Layer.Upper {
			t.Errorf("forgotten %v", meter.forgotten)
		}
	})
}
