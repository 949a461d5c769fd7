//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

const (
	kubeletPod = "/var/lib/kubelet/pods/u-1/"
	emptyDirs  = kubeletPod + "volumes/kubernetes.io~empty-dir/"
	cri        = "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/"
)

func TestSpots(t *testing.T) {
	mount := func(source, destination string) runtime.Container {
		c := app
		c.Mounts = []runtime.Mount{{Destination: destination, Source: source}}
		return c
	}
	for _, c := range []struct {
		name      string
		container runtime.Container
		want      []string
	}{
		{"nothing known", app, nil},
		{"emptyDir", mount(emptyDirs+"cache", "/cache"), []string{"emptydir " + emptyDirs + "cache at /cache"}},
		{"emptyDir of another pod, by hostPath", mount("/var/lib/kubelet/pods/u-2/volumes/kubernetes.io~empty-dir/cache", "/c"), nil},
		{"a folder within an emptyDir, by hostPath", mount(emptyDirs+"cache/x", "/c"), nil},
		{"subPath", mount(kubeletPod+"volume-subpaths/cache/app/0", "/c"), []string{"emptydir " + emptyDirs + "cache at " + emptyDirs + "cache"}},
		{"subPath upwards", mount(kubeletPod+"volume-subpaths/../app/0", "/c"), nil},
		{"claim", mount(kubeletPod+"volumes/kubernetes.io~csi/pvc-1/mount", "/data"), nil},
		{"ConfigMap", mount(kubeletPod+"volumes/kubernetes.io~configmap/c", "/etc/c"), nil},
		{"image VOLUME", mount(cri+"4f3c/volumes/9a", "/data"), []string{"volume " + cri + "4f3c/volumes/9a at /data"}},
		{"another's image VOLUME", mount(cri+"4f3d/volumes/9a", "/data"), nil},
		{"hostPath", mount("/srv", "/srv"), nil},
		{"all, and one volume twice", func() runtime.Container {
			c := mount(emptyDirs+"cache", "/cache")
			c.Mounts = append(c.Mounts, runtime.Mount{Destination: "/again", Source: emptyDirs + "cache"})
			c.Layer.Upper, c.Logs = "/layers/1", "/var/log/pods/shop_checkout-7c9f_u-1/app"
			return c
		}(), []string{"layer /layers/1 at ", "logs /var/log/pods/shop_checkout-7c9f_u-1/app at /var/log/pods/shop_checkout-7c9f_u-1/app", "emptydir " + emptyDirs + "cache at /cache"}},
		{"outside Kubernetes", runtime.Container{ID: "x", Mounts: []runtime.Mount{{Source: "/pods//volumes/kubernetes.io~empty-dir/x", Destination: "/x"}}}, nil},
		{"a sandbox's", func() runtime.Container {
			c := mount(emptyDirs+"cache", "/cache")
			c.Sandbox = true
			return c
		}(), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, s := range spots(c.container) {
				got = append(got, fmt.Sprintf("%s %s at %s", s.part, s.layer.Upper, s.shown))
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// mounting gives a container a folder that is mounted into it.
func mounting(c runtime.Container, source, destination string) runtime.Container {
	c.Mounts = append(c.Mounts[:len(c.Mounts):len(c.Mounts)], runtime.Mount{Destination: destination, Source: source})
	return c
}

// folder says what a folder of a stage holds.
func (s *stage) folder(path string, look func(time.Duration) (Look, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks[path] = look
}

// TestSharedEmptyDir: an emptyDir of two containers stands in the series of
// each, and once in what the pod holds, what counts against its limit and what
// is attributed on its file system.
func TestSharedEmptyDir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.folder(emptyDirs+"cache", still(100))
		s.add(mounting(app, emptyDirs+"cache", "/cache"), still(10))
		s.add(mounting(container("checkout-7c9f", "u-1", "sidecar", "s"), emptyDirs+"cache", "/in"), still(1))
		o := s.options(t)
		o.Limits = limitsOf{"u-1": {Pod: 200 * mib, Containers: map[string]int64{"app": 50 * mib}}}
		w := watch(t, o)
		pass(10 * time.Second)
		if b, n := w.Used("u-1"); b != 111*mib || n != 2 {
			t.Errorf("the pod holds %d bytes in %d containers, want 111 MiB in 2", b, n)
		}
		for _, v := range w.Verdicts() {
			switch v.Container.Name {
			case "app":
				if v.Offender || v.Bound != BoundContainer || v.Room != 40*mib {
					t.Errorf("app: %s, room %d: a container's limit is on its layer and logs alone", v.Bound, v.Room)
				}
			case "sidecar":
				if v.Bound != BoundPod || v.Room != 89*mib {
					t.Errorf("sidecar: %s, room %d, want 200-111 MiB", v.Bound, v.Room)
				}
			}
			if v.Parts[PartEmptyDir].Bytes != 100*mib {
				t.Errorf("%s: parts %v", v.Container.Name, v.Parts)
			}
		}
		m := gather(t, o.Registerer)
		if got := series(m["nodeagent_container_disk_bytes"], "part", "emptydir"); len(got) != 2 || got[0] != 100*mib || got[1] != 100*mib {
			t.Errorf("series %v, want 100 MiB for each", got)
		}
		if n := s.measured[emptyDirs+"cache"]; n > 6 {
			t.Errorf("the shared folder was measured %d times in 10 s", n)
		}
		s.remove("s")
		pass(2 * time.Second)
		if b, _ := w.Used("u-1"); b != 110*mib {
			t.Errorf("%d bytes are left with the other container, want 110 MiB", b)
		}
		s.remove(app.ID)
		pass(2 * time.Second)
		if len(w.places) != 0 {
			t.Errorf("%d places are left without a container", len(w.places))
		}
	})
}

// TestAttemptsShareTheirLogs: three attempts of one container have one folder
// of logs.
func TestAttemptsShareTheirLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		const logs = "/var/log/pods/shop_web_u-1/app"
		s.folder(logs, still(20))
		for _, id := range []string{"1", "2", "3"} {
			c := container("web", "u-1", "app", id)
			c.Logs = logs
			s.add(c, still(1))
		}
		o := s.options(t)
		w := watch(t, o)
		pass(5 * time.Second)
		if b, n := w.Used("u-1"); b != 23*mib || n != 3 {
			t.Errorf("%d bytes in %d containers, want 23 MiB in 3", b, n)
		}
		if got := series(gather(t, o.Registerer)["nodeagent_container_disk_bytes"], "part", "logs"); len(got) != 1 || got[0] != 20*mib {
			t.Errorf("series %v, want one of 20 MiB", got)
		}
	})
}

// TestMemoryIsNoDisk: an emptyDir of medium Memory is looked at once and told
// nowhere.
func TestMemoryIsNoDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.folder(emptyDirs+"shm", func(time.Duration) (Look, error) {
			return Look{Usage: Usage{Bytes: gib}, Filesystem: FilesystemUsage{Size: gib, Used: gib, Memory: true}}, nil
		})
		s.add(mounting(app, emptyDirs+"shm", "/shm"), still(10))
		o := s.options(t)
		w := watch(t, o)
		pass(time.Minute)
		if b, _ := w.Used("u-1"); b != 10*mib {
			t.Errorf("%d bytes, want the layer's alone", b)
		}
		if got := series(gather(t, o.Registerer)["nodeagent_container_disk_bytes"], "part", "emptydir"); len(got) != 0 {
			t.Errorf("series %v", got)
		}
		if n := s.measured[emptyDirs+"shm"]; n != 1 {
			t.Errorf("looked at %d times", n)
		}
		if !w.Ready() {
			t.Error("not ready")
		}
	})
}

// TestEmptyDirLeak: the evidence is told as the container sees it, and the
// file system it is on is the one that is told of.
func TestEmptyDirLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.folder(emptyDirs+"cache", holds(func(s float64) float64 { return 10 + 20*max(0, s-10) }))
		s.add(mounting(app, emptyDirs+"cache", "/cache/"), still(10))
		w := watch(t, s.options(t))
		pass(25 * time.Second)
		v := w.Verdicts()[0]
		if !v.Offender || v.Bound != BoundFilesystem || v.Filesystem != "/" || len(v.Evidence) == 0 {
			t.Fatalf("verdict %+v", v)
		}
		if e := v.Evidence[0]; e.Path != "/cache/app/logs/debug.log" || e.Part != PartEmptyDir {
			t.Errorf("evidence %+v", e)
		}
		if !strings.HasPrefix(v.Message, "/cache/app/logs/debug.log in checkout-7c9f/app grew ") {
			t.Errorf("message %q", v.Message)
		}
	})
}

// TestAGiantDoesNotSlowItsNeighbour: a container's layer is looked at as often
// as its pod's giant emptyDir leaves it, which is nearly always.
func TestAGiantDoesNotSlowItsNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.folder(emptyDirs+"cache", still(1000))
		s.cost[emptyDirs+"cache"] = 3 * time.Second
		c := s.add(mounting(app, emptyDirs+"cache", "/cache"), still(10))
		watch(t, s.options(t))
		pass(10 * time.Minute)
		if n := s.measured[emptyDirs+"cache"]; n < 9 || n > 12 {
			t.Errorf("the giant was measured %d times in 10 min, want about 10", n)
		}
		if n := s.count(c); n < 250 {
			t.Errorf("the layer was measured %d times in 10 min, want nearly 300", n)
		}
	})
}

// TestOneCostlyLook: a look that took long because the machine did keeps nobody
// from looking at what grows; looks that all do are made seldom.
func TestOneCostlyLook(t *testing.T) {
	for _, usual := range []time.Duration{briefLook / 10, briefLook} {
		t.Run(usual.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				c := s.add(app, holds(func(s float64) float64 { return 100 + 20*s }))
				takes := func(d time.Duration) {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.cost[c.Layer.Upper] = d
				}
				looks := func(span time.Duration) int {
					before := s.count(c)
					pass(span)
					return s.count(c) - before
				}
				takes(usual)
				watch(t, s.options(t))
				pass(20 * time.Second)
				takes(3 * time.Second)
				for looks(100*time.Millisecond) == 0 {
				}
				takes(usual)
				if n := looks(20 * time.Second); n < 10 {
					t.Errorf("%d looks in the 20 s after a costly one", n)
				}
				takes(3 * time.Second)
				pass(time.Minute)
				if n := looks(10 * time.Minute); n < 8 || n > 13 {
					t.Errorf("%d looks of 3 s each in 10 min, want about 10", n)
				}
			})
		})
	}
}

// openFiles is an OpenFilesMeter of a test.
type openFiles struct {
	mu    sync.Mutex
	scans int
	hold  func(c runtime.Container) OpenFiles
	err   error
}

func (*openFiles) Method() string { return "open-stage" }

func (o *openFiles) Scan(_ context.Context, holders []Holder) ([]OpenFiles, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.scans++
	out := make([]OpenFiles, 0, len(holders))
	for _, h := range holders {
		out = append(out, o.hold(h.Container))
	}
	return out, o.err
}

func TestDeletedFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		running := app
		running.Cgroup = "/kubepods/podu-1/4f3c"
		s.add(running, still(10))
		begun := time.Now()
		open := &openFiles{hold: func(runtime.Container) OpenFiles {
			if time.Since(begun) > 200*time.Second {
				return OpenFiles{Err: errors.New("permission denied")}
			}
			n := int64(20*time.Since(begun).Seconds()) * mib
			return OpenFiles{Held: map[uint64]Usage{layerDevice: {Bytes: n, Inodes: 1}}, Files: []Item{{Path: "/app/debug.log (deleted)", Bytes: n}}}
		}}
		o := s.options(t)
		o.OpenFiles = open
		w := watch(t, o)
		pass(100 * time.Second)
		if open.scans < 9 || open.scans > 11 {
			t.Errorf("%d scans in 100 s", open.scans)
		}
		v := w.Verdicts()[0]
		if !v.Offender || len(v.Evidence) == 0 || v.Evidence[0].Path != "/app/debug.log (deleted)" || v.Evidence[0].Part != PartDeleted {
			t.Errorf("verdict %+v", v)
		}
		pass(200 * time.Second)
		b, _ := w.Used("u-1")
		if b < 3800*mib {
			t.Errorf("%d bytes: the last good figure does not stay", b)
		}
		m := gather(t, o.Registerer)
		if age := series(m["nodeagent_disk_measure_age_seconds"], "part", "deleted"); len(age) != 1 || age[0] < 90 {
			t.Errorf("age %v", age)
		}
		if n := series(m["nodeagent_disk_measure_failures_total"], "method", "open-stage"); len(n) != 1 || n[0] < 5 {
			t.Errorf("failures %v", n)
		}
	})
}

// TestDeletedFilesAreFreed: what is closed is 0 at the next look, and no place
// stays behind.
func TestDeletedFilesAreFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		running := app
		running.Cgroup = "/kubepods/podu-1/4f3c"
		s.add(running, still(10))
		open := &openFiles{}
		open.hold = func(runtime.Container) OpenFiles {
			if open.scans > 2 {
				return OpenFiles{}
			}
			return OpenFiles{Held: map[uint64]Usage{layerDevice: {Bytes: gib, Inodes: 1}}}
		}
		o := s.options(t)
		o.OpenFiles = open
		w := watch(t, o)
		pass(15 * time.Second)
		if b, _ := w.Used("u-1"); b != gib+10*mib {
			t.Errorf("%d bytes", b)
		}
		pass(20 * time.Second)
		if got := series(gather(t, o.Registerer)["nodeagent_container_disk_bytes"], "part", "deleted"); len(got) != 1 || got[0] != 0 {
			t.Errorf("series %v, want one of 0", got)
		}
		s.remove(app.ID)
		pass(3 * time.Second)
		if len(w.places)+len(w.tracks)+len(w.filesystems) != 0 {
			t.Errorf("left: %v %v %v", w.places, w.tracks, w.filesystems)
		}
	})
}

// TestOrphans: a snapshot that nobody uses is measured seldom, told apart, and
// forgotten when it is gone.
func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.add(app, still(10))
		s.folder("/layers/left-over", still(64))
		var mu sync.Mutex
		storage := []runtime.Storage{{Snapshotter: "overlayfs", Images: gib, Orphans: []runtime.Orphan{{Namespace: "k8s.io", Layer: runtime.Layer{Snapshotter: "overlayfs", Key: "x", Upper: "/layers/left-over"}}}}}
		// Of a snapshotter that no container uses, and that keeps no plain folder.
		s.folder("", still(32))
		storage = append(storage, runtime.Storage{Snapshotter: "native", Images: mib, Root: "/layers/native", Orphans: []runtime.Orphan{
			{Namespace: "k8s.io", Layer: runtime.Layer{Snapshotter: "native", Key: "y", Source: "/layers/native/1"}},
		}})
		o := s.options(t)
		o.Snapshots = s
		o.Storage = func() []runtime.Storage { mu.Lock(); defer mu.Unlock(); return storage }
		w := watch(t, o)
		pass(10*time.Minute + time.Second)
		if n := s.measured["/layers/left-over"]; n < 9 || n > 12 {
			t.Errorf("measured %d times in 10 min, want 10", n)
		}
		if n := s.measured[""]; n < 1 || n > 3 {
			t.Errorf("the snapshotter was asked %d times in 10 min for what an orphan takes, want 2", n)
		}
		told := func(name string) float64 { return gather(t, o.Registerer)[name][0].GetGauge().GetValue() }
		if o, i := told("nodeagent_filesystem_orphaned_bytes"), told("nodeagent_filesystem_images_bytes"); o != 96*mib || i != gib+mib {
			t.Errorf("orphaned %v, images %v", o, i)
		}
		used := told("nodeagent_filesystem_used_bytes")
		if u := told("nodeagent_filesystem_unattributed_bytes"); u != used-gib-107*mib {
			t.Errorf("unattributed %v of %v", u, used)
		}
		if len(w.Verdicts()) != 1 {
			t.Error("an orphan is nobody's offence")
		}
		mu.Lock()
		storage = []runtime.Storage{{Snapshotter: "overlayfs", Images: gib}}
		mu.Unlock()
		pass(2 * time.Second)
		if o := told("nodeagent_filesystem_orphaned_bytes"); o != 0 {
			t.Errorf("orphaned %v after it went", o)
		}
	})
}

// series are the values of a family whose label has that value.
func series(family []*dto.Metric, label, value string) []float64 {
	var out []float64
	for _, m := range family {
		for _, l := range m.GetLabel() {
			if l.GetName() == label && l.GetValue() == value {
				out = append(out, m.GetGauge().GetValue()+m.GetCounter().GetValue())
			}
		}
	}
	return out
}
