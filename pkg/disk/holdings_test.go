//go:build linux

package disk

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// holding is a part that grows steadily by so many MiB/s on a file system of
// 100 GiB.
func holding(part Part, mount string, held, rate float64, avail int64) Holding {
	h := Holding{
		Part: part, Mount: mount, Usage: Usage{Bytes: int64(held * mib), Inodes: 10},
		Filesystem: FilesystemUsage{Size: 100 * gib, Used: 100*gib - avail, Avail: avail},
	}
	if rate > 0 {
		h.Trends.Bytes = steady(rate)
	}
	return h
}

// TestJudgeParts: what counts against which bound.
func TestJudgeParts(t *testing.T) {
	const data, logs = "/data", "/var/log"
	all := func(rates map[Part]float64) []Holding {
		var out []Holding
		for _, p := range Parts() {
			mount := data
			if p == PartLogs {
				mount = logs
			}
			out = append(out, holding(p, mount, 1024, rates[p], 80*gib))
		}
		return out
	}
	for _, c := range []struct {
		name   string
		parts  []Holding
		limits Limits
		bound  Bound
		mount  string
		room   int64
		offend bool
	}{
		{"a container's limit is on layer and logs", all(nil), Limits{Containers: map[string]int64{"app": 3 * gib}}, BoundContainer, data, gib, false},
		{"a pod's is on the emptyDirs too", all(nil), Limits{Pod: 4 * gib}, BoundPod, data, gib, false},
		{"logs that grow reach it", all(map[Part]float64{PartLogs: 5}), Limits{Containers: map[string]int64{"app": 3 * gib}}, BoundContainer, data, gib, true},
		{"an emptyDir that grows does not", all(map[Part]float64{PartEmptyDir: 5}), Limits{Containers: map[string]int64{"app": 3 * gib}}, BoundFilesystem, data, 65 * gib, false},
		{"but the pod's", all(map[Part]float64{PartEmptyDir: 5}), Limits{Pod: 4 * gib}, BoundPod, data, gib, true},
		{"a VOLUME that grows reaches none", all(map[Part]float64{PartVolume: 5}), Limits{Pod: 4 * gib, Containers: map[string]int64{"app": 3 * gib}}, BoundFilesystem, data, 65 * gib, false},
		{"a VOLUME that fills the disk", all(map[Part]float64{PartVolume: 50}), Limits{}, BoundFilesystem, data, 65 * gib, true},
		{"deleted files that fill the disk", all(map[Part]float64{PartDeleted: 50}), Limits{}, BoundFilesystem, data, 65 * gib, true},
		{"half and half", all(map[Part]float64{PartDeleted: 25, PartLayer: 25}), Limits{}, BoundFilesystem, data, 65 * gib, true},
		{"logs that fill the disk they are on", all(map[Part]float64{PartLogs: 50}), Limits{}, BoundFilesystem, logs, 65 * gib, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Facts{Container: app, At: epoch, Parts: c.parts, Limits: c.limits}
			for i := range f.Parts {
				f.Parts[i].Trends.OtherBytes = others(f.Parts, i)
			}
			v, state := Judge(f, DefaultPolicy(), State{})
			if v.Bound != c.bound || v.Filesystem != c.mount || v.Room != c.room || v.Offender != c.offend {
				t.Errorf("%s on %s, room %s, offender %v; want %s on %s, %s, %v", v.Bound, v.Filesystem, size(float64(v.Room)), v.Offender,
					c.bound, c.mount, size(float64(c.room)), c.offend)
			}
			if v.Usage.Bytes != 5*gib || v.Parts[PartLogs].Bytes != gib {
				t.Errorf("usage %+v, parts %v", v.Usage, v.Parts)
			}
			if again, _ := Judge(f, DefaultPolicy(), state); again.Filesystem != v.Filesystem || again.Offender != v.Offender {
				t.Errorf("judged again: %+v", again)
			}
		})
	}
}

// others is how all else on a part's file system grows.
func others(parts []Holding, i int) Trend {
	var t Trend
	for j, h := range parts {
		if j != i && h.Mount == parts[i].Mount {
			t.Rate = sum(t.Rate, h.Trends.Bytes.Rate)
		}
	}
	return t
}

// TestTogether: parts that move between each other are no growth that is sure.
func TestTogether(t *testing.T) {
	any := func(Holding) bool { return true }
	was := func(part Part, held, peak float64, trend Trend) Holding {
		trend.Peak = peak * mib
		return Holding{Part: part, Usage: Usage{Bytes: int64(held * mib)}, Trends: Trends{Bytes: trend}}
	}
	t.Run("a file is deleted and stays open", func(t *testing.T) {
		var deleted Series
		for i, mb := range []int64{0, 0, 0, 500, 500, 500} {
			deleted = deleted.Add(Sample{At: epoch.Add(time.Duration(i) * scanInterval), Usage: Usage{Bytes: mb * mib}})
			h := []Holding{was(PartLayer, 10, 500, Trend{}), {Part: PartDeleted, Usage: Usage{Bytes: mb * mib}, Trends: deleted.Trends()}}
			if _, own, _ := together(h, any, ofBytes); own.Rate.Low > 0 && own.Looks >= minLooks {
				t.Errorf("after %d looks it surely grows: %+v", i+1, own)
			}
		}
	})
	t.Run("one rotates, the other stands", func(t *testing.T) {
		held, own, _ := together([]Holding{was(PartLayer, 100, 500, steady(5)), was(PartLogs, 50, 0, Trend{})}, any, ofBytes)
		if held != 150*mib || own.Peak != 550*mib {
			t.Errorf("held %d, peak %v", held, own.Peak)
		}
	})
	t.Run("one rotates, the other leaks", func(t *testing.T) {
		_, own, _ := together([]Holding{was(PartLogs, 100, 500, steady(1)), was(PartLayer, 50, 0, steady(5))}, any, ofBytes)
		if own.Peak != 0 || own.Rate.Expected != 6*mib || own.Rising != 10*time.Second {
			t.Errorf("own %+v", own)
		}
	})
	t.Run("an unsure burst beside a sure leak", func(t *testing.T) {
		burst := Trend{Rate: Rate{Expected: 100 * mib, High: 200 * mib}}
		_, own, _ := together([]Holding{was(PartLayer, 50, 0, burst), was(PartLogs, 50, 0, steady(5))}, any, ofBytes)
		if own.Looks != 6 || own.Rate.Low != steady(5).Rate.Low {
			t.Errorf("own %+v", own)
		}
	})
}

// TestParts watches real folders: du is the oracle for each part. It needs root.
func TestParts(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	host := t.TempDir()
	emptyDir, shm := filepath.Join(host, emptyDirs, "cache"), filepath.Join(host, emptyDirs, "shm")
	logs := filepath.Join(host, "/var/log/pods/shop_web_u-1/app")
	image := filepath.Join(host, cri, "4f3c/volumes/9a")
	upper := filepath.Join(host, "/layers/1")
	for _, dir := range []string{emptyDir, shm, logs, image, upper} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	must(t, unix.Mount("tmpfs", shm, "tmpfs", 0, "size=16m"))
	t.Cleanup(func() { must(t, unix.Unmount(shm, unix.MNT_DETACH)) })
	write(t, filepath.Join(shm, "x"), 8<<20)

	c := runtime.Container{
		ID: "4f3c", Namespace: "k8s.io", Name: "app", Pod: runtime.Pod{Namespace: "shop", Name: "web", UID: "u-1"},
		Layer: runtime.Layer{Snapshotter: "overlayfs", Upper: "/layers/1"}, Logs: "/var/log/pods/shop_web_u-1/app",
		Mounts: []runtime.Mount{
			{Destination: "/cache", Source: emptyDirs + "cache"}, {Destination: "/shm", Source: emptyDirs + "shm"},
			{Destination: "/data", Source: cri + "4f3c/volumes/9a"}, {Destination: "/sub", Source: kubeletPod + "volume-subpaths/claim/app/0"},
		},
	}
	w := watch(t, Options{
		Containers: func() []runtime.Container { return []runtime.Container{c} }, Meter: NewWalker(host),
		HostRoot: host, Policy: DefaultPolicy(), Interval: 100 * time.Millisecond, Share: 1, Registerer: prometheus.NewRegistry(),
	})
	agree := func(what string) {
		t.Helper()
		var got, want map[Part]Usage
		for begun := time.Now(); time.Since(begun) < 60*time.Second; time.Sleep(20 * time.Millisecond) {
			// Each time: what is written back may take other blocks.
			want = map[Part]Usage{PartLayer: du(t, upper), PartLogs: du(t, logs), PartEmptyDir: du(t, emptyDir), PartVolume: du(t, image)}
			if all := w.Verdicts(); len(all) == 1 {
				if got = all[0].Parts; same(got, want) {
					return
				}
			}
		}
		t.Errorf("%s: parts %v, du says %v", what, got, want)
	}
	agree("empty")
	for _, name := range []string{"new\nline", "\xff\xfe", "-rf", "\x1b[31m", "\u202e", strings.Repeat("n", 255)} {
		write(t, filepath.Join(emptyDir, name, name), 5000)
		write(t, filepath.Join(image, name), 5000)
	}
	must(t, os.Symlink("/", filepath.Join(emptyDir, "root")))
	must(t, unix.Mkfifo(filepath.Join(image, "fifo"), 0o600))
	write(t, filepath.Join(upper, "x"), 1<<20)
	agree("hostile names")

	// What the kubelet does to a log (pkg/kubelet/logs/container_log_manager.go):
	// rename, let containerd open it anew, compress the one before.
	write(t, filepath.Join(logs, "0.log"), 3<<20)
	agree("a log")
	must(t, os.Rename(filepath.Join(logs, "0.log"), filepath.Join(logs, "0.log.20260102-030405")))
	write(t, filepath.Join(logs, "0.log"), 4096)
	agree("rotated")
	zipped, err := os.Create(filepath.Join(logs, "0.log.20260102-030405.gz"))
	must(t, err)
	z := gzip.NewWriter(zipped)
	_, err = z.Write(make([]byte, 3<<20))
	must(t, err)
	must(t, z.Close())
	must(t, zipped.Close())
	must(t, os.Remove(filepath.Join(logs, "0.log.20260102-030405")))
	agree("compressed")
}

func same(got, want map[Part]Usage) bool {
	for part, u := range want {
		if got[part] != u {
			return false
		}
	}
	return len(got) == len(want)
}
