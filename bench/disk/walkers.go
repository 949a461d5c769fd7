package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// du is what GNU du says a folder holds, the oracle of all figures here.
func du(ctx context.Context, folder string) (int64, error) {
	out, err := exec.CommandContext(ctx, "du", "-s", "-x", "--block-size=1", folder).Output()
	if err != nil {
		return 0, fmt.Errorf("cannot ask du for %s: %w", folder, err)
	}
	text, _, _ := strings.Cut(string(out), "\t")
	bytes, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cannot read du's answer: %w", err)
	}
	return bytes, nil
}

// allocated is what an open file holds on disk.
func allocated(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("cannot stat %s: %w", f.Name(), err)
	}
	return st.Blocks * 512, nil
}

// walker is one way to find out what a layer holds, from nothing.
type walker struct {
	name string
	walk func(ctx context.Context, l *layer) error
}

// walkers are ours, the agent's own code for a full look, and then the peers.
func (g *ground) walkers() []walker {
	own := disk.NewWalker("/")
	all := []walker{
		{"nodeagent", func(ctx context.Context, l *layer) error {
			_, err := own.Measure(ctx, disk.Target{Layer: runtime.Layer{Upper: l.upper}})
			return err
		}},
		{"containerd's Usage", func(ctx context.Context, l *layer) error {
			_, err := g.snapshots().Usage(g.named(ctx), l.name)
			return err
		}},
		{"GNU du", func(ctx context.Context, l *layer) error {
			_, err := du(ctx, l.upper)
			return err
		}},
	}
	if g.gdu != "" {
		all = append(all, walker{"gdu", func(ctx context.Context, l *layer) error {
			out, err := exec.CommandContext(ctx, g.gdu, "-n", "-p", "-c", "-s", "-x", l.upper).CombinedOutput()
			if err != nil {
				return fmt.Errorf("cannot ask gdu for %s: %w: %s", l.upper, err, out)
			}
			return nil
		}})
	}
	return all
}

// race lets all walkers walk a layer in turns, and returns the median of each in
// milliseconds. The first turn fills the caches and is not counted.
func race(ctx context.Context, l *layer, walkers []walker, turns int) ([]float64, error) {
	times := make([][]float64, len(walkers))
	for turn := range turns + 1 {
		for i, w := range walkers {
			begun := time.Now()
			if err := w.walk(ctx, l); err != nil {
				return nil, err
			}
			if turn > 0 {
				times[i] = append(times[i], milliseconds(time.Since(begun)))
			}
		}
	}
	medians := make([]float64, len(walkers))
	for i, t := range times {
		medians[i] = median(t)
	}
	return medians, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
