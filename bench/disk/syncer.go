package main

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// syncer asks containerd as its CRI plugin does for what the kubelet is told
// (snapshotsSyncer in internal/cri/server/images/snapshots.go): all snapshots
// are listed, then one after the other is asked for its usage, committed ones
// once. It starts over after the period, less what a pass took, smoothed, and at
// least half of it.
type syncer struct {
	snapshotter snapshots.Snapshotter
	period      time.Duration
	known       map[string]bool // committed ones that were asked
	// tell is told each answer. May be nil.
	tell func(name string, f figure, err error)
}

func (g *ground) newSyncer(tell func(string, figure, error)) *syncer {
	return &syncer{snapshotter: g.snapshots(), period: g.period, known: make(map[string]bool), tell: tell}
}

// run goes on until ctx ends, which is no error.
func (s *syncer) run(ctx context.Context) error {
	const alpha = 0.2
	pause := float64(s.period)
	for {
		begun := time.Now()
		if err := s.pass(ctx); err != nil {
			return unlessEnded(ctx, err)
		}
		pause += alpha * (float64(s.period-time.Since(begun)) - pause)
		if err := sleep(ctx, max(time.Duration(pause), s.period/2)); err != nil {
			return unlessEnded(ctx, err)
		}
	}
}

// unlessEnded is nil once ctx has ended, which is how what runs on is stopped.
func unlessEnded(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

func (s *syncer) pass(ctx context.Context) error {
	var all []snapshots.Info
	err := s.snapshotter.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		all = append(all, info)
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot list snapshots: %w", err)
	}
	for _, info := range all {
		if info.Kind != snapshots.KindActive && s.known[info.Name] {
			continue
		}
		begun := time.Now()
		usage, err := s.snapshotter.Usage(ctx, info.Name)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.known[info.Name] = err == nil
		if s.tell != nil {
			s.tell(info.Name, figure{at: time.Now(), made: begun, bytes: usage.Size}, err)
		}
	}
	return nil
}

// passCPU is what containerd uses for one pass, by the median of so many.
func (g *ground) passCPU(ctx context.Context, passes int) (time.Duration, error) {
	s := g.newSyncer(nil)
	ctx = g.named(ctx)
	if err := s.pass(ctx); err != nil { // committed ones are asked once
		return 0, err
	}
	var each []float64
	for range passes {
		cpu, _, err := cpuOf(g.daemon.Process.Pid, func() error { return s.pass(ctx) })
		if err != nil {
			return 0, err
		}
		each = append(each, cpu.Seconds())
	}
	return time.Duration(median(each) * float64(time.Second)), nil
}
