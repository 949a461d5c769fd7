package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/bench/report"
)

// burst is how many appends are timed together.
const burst = 256

// appendCost is what one append costs its writer, in nanoseconds.
type appendCost struct{ wall, cpu float64 }

func playWriter(ctx context.Context, g *ground) ([]report.Row, error) {
	layers, err := g.populate(ctx, "app", 1, g.files, true)
	if err != nil {
		return nil, err
	}
	sizes := []int{appendSize, 512}
	with, without := make([][]appendCost, len(sizes)), make([][]appendCost, len(sizes))
	by := ""
	for turn := range g.turns {
		for _, watched := range []bool{turn%2 == 0, turn%2 != 0} {
			costs, method, err := g.writeWatched(ctx, layers[0], watched, sizes)
			if err != nil {
				return nil, err
			}
			for i, c := range costs {
				if watched {
					with[i], by = append(with[i], c), method
				} else {
					without[i] = append(without[i], c)
				}
			}
		}
	}
	var rows []report.Row
	for i, size := range sizes {
		ours, peer := medianCost(with[i]), medianCost(without[i])
		name := fmt.Sprintf("appends of %d bytes with the agent on (%s): ", size, by)
		wall := report.Beside(name+"time of one", "ns", ours.wall, "the agent off", peer.wall)
		if size == appendSize {
			wall = wall.RatioAtMost(1.05)
		}
		rows = append(rows, wall, report.Beside(name+"CPU of one", "ns", ours.cpu, "the agent off", peer.cpu))
	}
	return rows, nil
}

// writeWatched writes one turn of appends of each size, with or without an
// agent that watches.
func (g *ground) writeWatched(ctx context.Context, l *layer, watched bool, sizes []int) (costs []appendCost, by string, err error) {
	var a *agent
	if watched {
		if a, err = g.startAgent(ctx); err != nil {
			return nil, "", err
		}
		if by, err = a.method(ctx); err != nil {
			return nil, "", err
		}
	}
	for _, size := range sizes {
		c, err := g.appends(ctx, filepath.Join(l.root(), "app.log"), size)
		if err != nil {
			return nil, "", err
		}
		costs = append(costs, c)
	}
	if a != nil {
		err = a.stop()
	}
	return costs, "by " + by, err
}

// appends is the median of bursts on a new log that has grown slowly for a
// while, so that the agent knows it as one that is written to.
func (g *ground) appends(ctx context.Context, path string, size int) (c appendCost, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return c, fmt.Errorf("cannot write a log: %w", err)
	}
	defer os.Remove(path)
	defer f.Close()
	block := make([]byte, size)
	for begun := time.Now(); time.Since(begun) < g.warming; {
		if _, err := f.Write(block); err != nil {
			return c, fmt.Errorf("cannot write a log: %w", err)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return c, err
		}
	}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	var wall, cpu []float64
	for range g.scale.appends / burst {
		began, threadBegan := time.Now(), threadTime()
		for range burst {
			if _, err := unix.Write(int(f.Fd()), block); err != nil {
				return c, fmt.Errorf("cannot write a log: %w", err)
			}
		}
		wall = append(wall, float64(time.Since(began))/burst)
		cpu = append(cpu, float64(threadTime()-threadBegan)/burst)
	}
	return appendCost{wall: median(wall), cpu: median(cpu)}, nil
}

func threadTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) // its own: cannot fail
	return time.Duration(ts.Nano())
}

func medianCost(costs []appendCost) appendCost {
	var wall, cpu []float64
	for _, c := range costs {
		wall, cpu = append(wall, c.wall), append(cpu, c.cpu)
	}
	return appendCost{wall: median(wall), cpu: median(cpu)}
}
