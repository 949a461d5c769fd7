package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/bench/report"
)

func playGrowing(ctx context.Context, g *ground) ([]report.Row, error) {
	all, err := g.populate(ctx, "app", g.scale.layers, g.files, true)
	if err != nil {
		return nil, err
	}
	a, by, err := g.settled(ctx)
	if err != nil {
		return nil, err
	}
	growers, stop, err := growAll(ctx, all[:g.growing], g.rate)
	if err != nil {
		return nil, err
	}
	w := watching{agent: a, growers: growers}
	saw, err := w.watch(ctx, g, g.watching)
	if err != nil {
		return nil, err
	}
	ours, peer, err := g.costs(ctx, a)
	if err != nil {
		return nil, err
	}
	if err := stop(); err != nil {
		return nil, err
	}
	rest, err := w.errorAtRest(ctx, g.rest)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s, %d grow by 1 MiB/s (%s): ", g.nodeName(), g.growing, by)
	return []report.Row{
		report.Beside(name+"CPU", percentOf, ours, peerSyncer, peer).RatioAtMost(0.05),
		report.Beside(name+"longest until a write is seen", "s", saw.ours.Seconds(), peerSyncer, saw.peer.Seconds()).AtMost(2),
		report.Alone(name+"largest error while it grows", "%", 100*saw.wrong).Promise("< 1 %", saw.wrong < 0.01),
		report.Alone(name+"largest error at rest, against du", "%", 100*rest).Promise("< 1 %", rest < 0.01),
	}, nil
}

// watching follows what is told of layers that grow.
type watching struct {
	agent   *agent
	growers []*grower

	mu   sync.Mutex
	ours map[string][]figure
	peer map[string][]figure
}

// seen is what came of it, the worst of all layers.
type seen struct {
	ours, peer time.Duration // until a write was seen
	wrong      float64       // ours
}

// pollEvery is how often the agent's metrics are read while it is watched.
const pollEvery = 100 * time.Millisecond

// watch reads the agent's figures again and again while containerd's syncer
// runs beside it.
func (w *watching) watch(ctx context.Context, g *ground, span time.Duration) (seen, error) {
	w.ours, w.peer = make(map[string][]figure), make(map[string][]figure)
	begun := time.Now()
	stop := g.sync(ctx, func(name string, f figure, err error) {
		if err == nil {
			w.mu.Lock()
			w.peer[name] = append(w.peer[name], f)
			w.mu.Unlock()
		}
	})
	err := w.poll(ctx, begun.Add(span))
	return w.result(begun), errors.Join(err, stop())
}

func (w *watching) poll(ctx context.Context, until time.Time) error {
	for time.Now().Before(until) {
		figures, err := w.agent.figures(ctx)
		if err != nil {
			return err
		}
		for _, g := range w.growers {
			if f, ok := figures[g.layer.name]; ok {
				w.ours[g.layer.name] = append(w.ours[g.layer.name], f)
			}
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return err
		}
	}
	return nil
}

// result holds the figures against the truth. What nobody told at all counts as
// unseen and wholly wrong.
func (w *watching) result(begun time.Time) seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s seen
	unseen := time.Since(begun)
	for _, g := range w.growers {
		truth := g.since(begun)
		ours, ok := seenAfter(truth, w.ours[g.layer.name])
		if !ok {
			ours = unseen
		}
		peer, ok := seenAfter(truth, w.peer[g.layer.name])
		if !ok {
			peer = unseen
		}
		wrong, ok := largestError(truth, w.ours[g.layer.name])
		if !ok {
			wrong = 1
		}
		s = seen{ours: max(s.ours, ours), peer: max(s.peer, peer), wrong: max(s.wrong, wrong)}
	}
	return s
}

// errorAtRest is the largest difference from du some time after writing has
// stopped, as a part of what du says.
func (w *watching) errorAtRest(ctx context.Context, after time.Duration) (float64, error) {
	if err := sleep(ctx, after); err != nil {
		return 0, err
	}
	figures, err := w.agent.figures(ctx)
	if err != nil {
		return 0, err
	}
	worst := 0.0
	for _, g := range w.growers {
		truth, err := du(ctx, g.layer.upper)
		if err != nil {
			return 0, err
		}
		off := float64(truth - figures[g.layer.name].bytes)
		worst = max(worst, max(off, -off)/float64(truth))
	}
	return worst, nil
}
