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

// walker is one way to find out what a layer holds, from nothing. walk tells
// the CPU time that it took.
type walker struct {
	name string
	walk func(ctx context.Context, l *layer) (time.Duration, error)
}

// walkers are ours, the agent's own code for a full look, and then the peers.
func (g *ground) walkers() []walker {
	own := disk.NewWalker("/")
	all := []walker{
		{"nodeagent", func(ctx context.Context, l *layer) (time.Duration, error) {
			cpu, _, err := cpuOf(os.Getpid(), func() error {
				_, err := own.Measure(ctx, disk.Target{Layer: runtime.Layer{Upper: l.upper}})
				return err
			})
			return cpu, err
		}},
		{peerUsage, func(ctx context.Context, l *layer) (time.Duration, error) {
			cpu, _, err := cpuOf(g.daemon.Process.Pid, func() error {
				_, err := g.snapshots().Usage(g.named(ctx), l.name)
				return err
			})
			return cpu, err
		}},
		{peerDu, func(ctx context.Context, l *layer) (time.Duration, error) {
			return runWalker(ctx, "du", "-s", "-x", "--block-size=1", l.upper)
		}},
	}
	if g.gdu != "" {
		all = append(all, walker{"gdu", func(ctx context.Context, l *layer) (time.Duration, error) {
			return runWalker(ctx, g.gdu, "-n", "-p", "-c", "-s", "-x", l.upper)
		}})
	}
	return all
}

func runWalker(ctx context.Context, program string, args ...string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("cannot run %s: %w: %s", program, err, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// walkCost is what one walk costs, in milliseconds.
type walkCost struct{ wall, cpu float64 }

// race lets all walkers walk a layer in turns, and returns the least that each
// took: what else runs on a machine only ever adds. The first turn fills the
// caches and is not counted.
func race(ctx context.Context, l *layer, walkers []walker, turns int) ([]walkCost, error) {
	least := make([]walkCost, len(walkers))
	for turn := range turns + 1 {
		for i, w := range walkers {
			begun := time.Now()
			cpu, err := w.walk(ctx, l)
			if err != nil {
				return nil, err
			}
			took := walkCost{wall: milliseconds(time.Since(begun)), cpu: milliseconds(cpu)}
			if turn == 1 {
				least[i] = took
			}
			least[i] = walkCost{wall: min(least[i].wall, took.wall), cpu: min(least[i].cpu, took.cpu)}
		}
	}
	return least, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
