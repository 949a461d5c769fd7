package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	appendSize = 4096
	// step is how often a growing file is written to, and its size noted.
	step = 50 * time.Millisecond
	// fileLife is how long a temporary file stays.
	fileLife = 2 * time.Millisecond
)

// grower appends to a log in a container and notes what its layer really holds.
type grower struct {
	layer *layer
	file  *os.File
	base  int64 // what the layer holds besides the log

	mu    sync.Mutex
	truth []point
}

func newGrower(ctx context.Context, l *layer) (*grower, error) {
	f, err := os.OpenFile(filepath.Join(l.root(), "app.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot write a log in %s: %w", l.name, err)
	}
	base, err := du(ctx, l.upper)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	g := &grower{layer: l, file: f, base: base}
	return g, g.note()
}

func (g *grower) note() error {
	bytes, err := allocated(g.file)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.truth = append(g.truth, point{at: time.Now(), bytes: g.base + bytes})
	return nil
}

// since is the truth from a time on.
func (g *grower) since(t time.Time) []point {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, p := range g.truth {
		if !p.at.Before(t) {
			return append([]point(nil), g.truth[i:]...)
		}
	}
	return nil
}

// grow writes so many bytes a second until ctx ends, which is no error.
func (g *grower) grow(ctx context.Context, rate int64) error {
	tick := time.NewTicker(step)
	defer tick.Stop()
	begun, done := time.Now(), int64(0)
	block := make([]byte, appendSize)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for want := int64(float64(rate) * time.Since(begun).Seconds()); done+appendSize <= want; done += appendSize {
			if _, err := g.file.Write(block); err != nil {
				return fmt.Errorf("cannot write the log of %s: %w", g.layer.name, err)
			}
		}
		if err := g.note(); err != nil {
			return err
		}
	}
}

// growAll lets logs grow in the layers until stop is called, which waits for
// the writers.
func growAll(ctx context.Context, layers []*layer, rate int64) (growers []*grower, stop func() error, err error) {
	for _, l := range layers {
		g, err := newGrower(ctx, l)
		if err != nil {
			return nil, nil, err
		}
		growers = append(growers, g)
	}
	ctx, cancel := context.WithCancel(ctx)
	group, inner := errgroup.WithContext(ctx)
	for _, g := range growers {
		group.Go(func() error { return g.grow(inner, rate) })
	}
	return growers, func() error {
		cancel()
		return group.Wait()
	}, nil
}

// churn makes and removes temporary files in a container, one at a time, until
// ctx ends, which is no error.
func churn(ctx context.Context, l *layer) error {
	folder := filepath.Join(l.root(), "data", "000", "00")
	for i := 0; ctx.Err() == nil; i++ {
		name := filepath.Join(folder, fmt.Sprintf("tmp-%d", i))
		if err := os.WriteFile(name, make([]byte, appendSize), 0o644); err != nil {
			return fmt.Errorf("cannot make a temporary file in %s: %w", l.name, err)
		}
		_ = sleep(ctx, fileLife)
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("cannot remove a temporary file of %s: %w", l.name, err)
		}
	}
	return nil
}
