package main

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/bench/report"
)

func (g *ground) nodeName() string {
	return fmt.Sprintf("%d layers of %s files", g.scale.layers, thousands(g.files))
}

func playIdle(ctx context.Context, g *ground) ([]report.Row, error) {
	if _, err := g.populate(ctx, "app", g.scale.layers, g.files, true); err != nil {
		return nil, err
	}
	a, by, err := g.calmed(ctx)
	if err != nil {
		return nil, err
	}
	ours, peer, err := g.costs(ctx, a)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s, idle (%s): CPU", g.nodeName(), by)
	return []report.Row{report.Beside(name, percentOf, ours, peerSyncer, peer).RatioAtMost(0.01)}, nil
}
