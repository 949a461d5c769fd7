//go:build linux

package disk

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

var update = flag.Bool("update", false, "write the golden files")

// TestMetricsGolden holds the whole exposition text of a small node. promtool
// checks the same file in the make tier.
func TestMetricsGolden(t *testing.T) {
	var text bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.disk = func(s float64) float64 { return 253.004 + 25*s } // someone else writes as well
		full := mounting(mounting(app, emptyDirs+"cache", "/cache"), cri+"4f3c/volumes/9a", "/data")
		full.Logs, full.Cgroup = "/var/log/pods/shop_checkout-7c9f_u-1/app", "/kubepods/podu-1/4f3c"
		s.add(full, holds(func(s float64) float64 { return 100 + 20*max(0, s-5) }))
		s.folder(emptyDirs+"cache", still(30))
		s.folder(cri+"4f3c/volumes/9a", still(2))
		s.folder(full.Logs, still(7))
		s.add(container("web-0", "old", "app", "1"), func(since time.Duration) (Look, error) {
			l, err := still(100)(since)
			l.Usage.Inodes += int64(40 * max(0, since.Seconds()-5))
			return l, err
		})
		s.add(container("web-0", "new", "app", "2"), still(3))
		box := container("web-0", "new", "", "4")
		box.Sandbox = true
		s.add(box, still(0.004))
		s.add(runtime.Container{ID: "4f3c", Namespace: "moby"}, still(50))
		s.containers = append(s.containers, runtime.Container{ID: "x", Layer: runtime.Layer{Snapshotter: "zfs"}})
		o := s.options(t)
		o.OpenFiles = &openFiles{hold: func(runtime.Container) OpenFiles {
			return OpenFiles{Held: map[uint64]Usage{layerDevice: {Bytes: 5 * mib, Inodes: 1}}}
		}}
		s.folder("/layers/left-over", still(64))
		o.Storage = func() []runtime.Storage {
			return []runtime.Storage{{
				Snapshotter: "overlayfs", Images: gib,
				Orphans: []runtime.Orphan{{Namespace: "k8s.io", Layer: runtime.Layer{Snapshotter: "overlayfs", Key: "x", Upper: "/layers/left-over"}}},
			}}
		}
		watch(t, o)
		pass(26 * time.Second)
		families, err := o.Registerer.(prometheus.Gatherer).Gather()
		must(t, err)
		for _, f := range families {
			_, err := expfmt.MetricFamilyToText(&text, f)
			must(t, err)
		}
	})
	golden := filepath.Join("testdata", "metrics.txt")
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(golden, text.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if !bytes.Equal(text.Bytes(), want) {
		t.Errorf("the text differs from %s; -update writes it\n%s", golden, text.Bytes())
	}
}

// TestMetricsTable: each metric of the table is exposed, and each that is
// exposed is in the table with its type and labels.
func TestMetricsTable(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "metrics.txt"))
	must(t, err)
	for _, m := range Metrics() {
		if !bytes.Contains(data, []byte("# TYPE "+m.Name+" "+m.Type+"\n")) {
			t.Errorf("%s, a %s, is not exposed", m.Name, m.Type)
		}
		for _, label := range m.Labels {
			if !bytes.Contains(data, []byte(label+`="`)) {
				t.Errorf("%s: label %s is not exposed", m.Name, label)
			}
		}
	}
	if got, want := bytes.Count(data, []byte("# TYPE ")), len(Metrics()); got != want {
		t.Errorf("%d metrics are exposed, %d in the table", got, want)
	}
}
