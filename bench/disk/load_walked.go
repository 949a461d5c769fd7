package main

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/bench/report"
)

// playGrowingWalk is growing on an agent that walks, as on a kernel that tells
// nothing of overlays.
func playGrowingWalk(ctx context.Context, g *ground) ([]report.Row, error) {
	all, err := g.populate(ctx, "app", g.scale.layers, g.files, true)
	if err != nil {
		return nil, err
	}
	return g.growWalked(ctx, all[:g.growing], fmt.Sprintf("%s, %d grow", g.nodeName(), g.growing))
}

// playGiantWalk is giant on such an agent.
func playGiantWalk(ctx context.Context, g *ground) ([]report.Row, error) {
	layers, err := g.populate(ctx, "giant", 1, g.giant, true)
	if err != nil {
		return nil, err
	}
	return g.growWalked(ctx, layers, fmt.Sprintf("one layer of %s files, its log grows", thousands(g.giant)))
}

// growWalked has logs grow that were not there at the agent's first walk, each in
// the layer's own folder.
func (g *ground) growWalked(ctx context.Context, layers []*layer, name string) ([]report.Row, error) {
	g.method = "walk"
	a, by, err := g.settled(ctx)
	if err != nil {
		return nil, err
	}
	growers, stop, err := growAll(ctx, layers, g.rate)
	if err != nil {
		return nil, err
	}
	w := watching{agent: a, growers: growers}
	saw, err := w.watch(ctx, g, g.watching)
	if err != nil {
		return nil, err
	}
	cpu, err := idleCPU(ctx, a.pid(), 2*g.window)
	if err != nil {
		return nil, err
	}
	if err := stop(); err != nil {
		return nil, err
	}
	name = fmt.Sprintf("%s by 1 MiB/s (%s): ", name, by)
	return []report.Row{
		report.Alone(name+"CPU", percentOf, cpu),
		report.Beside(name+"longest until a write is seen", "s", saw.ours.Seconds(), peerSyncer, saw.peer.Seconds()).AtMost(2),
		report.Alone(name+"largest error while it grows", "%", 100*saw.wrong),
	}, nil
}
