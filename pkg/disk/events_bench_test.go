//go:build linux

package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkWriterCost is what following costs the writer: appends through an
// overlay, with no events; in a folder that is heard, as long as it takes to
// notice; in one that is spared, as it is from then on; and, to compare, with all
// writes of the file system told. Figures are CPU time of the writing thread;
// rounds alternate, the medians are told.
func BenchmarkWriterCost(b *testing.B) {
	o := newOverlay(b, "ext4", nil)
	dir, err := os.Open(o.backing)
	must(b, err)
	upper, err := os.Open(o.upper)
	must(b, err)
	defer func() { _, _ = dir.Close(), upper.Close() }()
	ways := []struct {
		name string
		mark func(g *fanGroup)
	}{
		{"alone", func(*fanGroup) {}},
		{"heard", func(g *fanGroup) {
			must(b, g.follow(int(dir.Fd())))
			must(b, g.listen(int(upper.Fd()), false))
		}},
		{"spared", func(g *fanGroup) {
			must(b, g.follow(int(dir.Fd())))
			must(b, g.listen(int(upper.Fd()), false))
			g.deafen(int(upper.Fd()))
		}},
		{"all", func(g *fanGroup) {
			must(b, unix.FanotifyMark(g.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, eventsWanted|unix.FAN_MODIFY, int(dir.Fd()), ""))
		}},
	}
	for _, size := range []int{512, 4096} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			figures := make([][]float64, len(ways))
			for b.Loop() {
				for i, w := range ways {
					g, err := newFanGroup()
					must(b, err)
					f, err := os.Create(filepath.Join(o.merged, "log"))
					must(b, err)
					w.mark(g)
					figures[i] = append(figures[i], appendCost(b, f, size))
					must(b, f.Close())
					must(b, g.close())
				}
			}
			alone := median(figures[0])
			for i, w := range ways {
				b.ReportMetric(median(figures[i]), w.name+"-ns/write")
				b.ReportMetric(100*(median(figures[i])/alone-1), w.name+"-%")
			}
		})
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

func appendCost(b *testing.B, f *os.File, size int) float64 {
	b.Helper()
	const n = 500
	data := make([]byte, size)
	begun := cpuTime(unix.CLOCK_THREAD_CPUTIME_ID)
	for range n {
		_, err := f.Write(data)
		must(b, err)
	}
	return float64(cpuTime(unix.CLOCK_THREAD_CPUTIME_ID)-begun) / n
}

func cpuTime(clock int32) time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(clock, &ts)
	return time.Duration(ts.Nano())
}

// BenchmarkLoads is one look at each of 40 layers of 2,000 files, as the watcher
// takes every 2 s: idle, with five that grow, with one that churns. It tells
// this process's CPU time for a look at one layer, without the writing.
func BenchmarkLoads(b *testing.B) {
	o := newOverlay(b, "ext4", nil)
	var layers []string
	for i := range 40 { // as many as the small file system has inodes for
		dir := filepath.Join(o.backing, "l", fmt.Sprint(i), "fs")
		for j := range 2000 {
			write(b, filepath.Join(dir, fmt.Sprint("d", j%40), fmt.Sprint(j)), 0)
		}
		layers = append(layers, dir)
	}
	loads := []struct {
		name string
		do   func(round int)
	}{
		{"idle", func(int) {}},
		{"five grow", func(int) {
			for i := range 5 {
				f, err := os.OpenFile(filepath.Join(layers[i], "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
				must(b, err)
				for range 64 {
					_, err = f.Write(make([]byte, 4096))
					must(b, err)
				}
				must(b, f.Close())
			}
		}},
		{"churn", func(round int) {
			for i := range 100 {
				name := filepath.Join(layers[7], "d1", fmt.Sprint("tmp", round, "-", i))
				write(b, name, 5000)
				must(b, os.Remove(name))
			}
		}},
	}
	for _, l := range loads {
		events := openEvents(b)
		events.quiet = time.Second // the files are too new to be left alone
		for _, m := range []Meter{events, NewWalker("/")} {
			b.Run(l.name+"/"+m.Method(), func(b *testing.B) {
				for _, dir := range layers {
					_, err := m.Measure(b.Context(), layerAt(dir))
					must(b, err)
				}
				for dir, l := range events.layers {
					for m == Meter(events) && l.tree.hot > 0 {
						_, err := m.Measure(b.Context(), layerAt(dir))
						must(b, err)
					}
				}
				var spent time.Duration
				round := 0
				for b.Loop() {
					l.do(round)
					round++
					begun := cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID)
					for _, dir := range layers {
						_, err := m.Measure(b.Context(), Target{Layer: layerAt(dir).Layer, Since: time.Now().Add(-2 * time.Second)})
						must(b, err)
					}
					spent += cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID) - begun
				}
				b.ReportMetric(spent.Seconds()*1e6/float64(round)/float64(len(layers)), "cpu-µs/layer")
			})
		}
	}
}
