package main

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/bench/report"
	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/runtime"
)

func playWalk(ctx context.Context, g *ground) ([]report.Row, error) {
	layers, err := g.populate(ctx, "big", 1, g.walked, false)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("one walk of %s files", thousands(g.walked))
	rows, err := g.walkRows(ctx, layers[0], name, g.walks, true)
	if err != nil {
		return nil, err
	}
	look, err := disk.NewWalker("/").Measure(ctx, disk.Target{Layer: runtime.Layer{Upper: layers[0].upper}})
	if err != nil {
		return nil, err
	}
	truth, err := du(ctx, layers[0].upper)
	if err != nil {
		return nil, err
	}
	return append(rows, report.Beside(name+": what it finds", "bytes", float64(look.Usage.Bytes), peerDu, float64(truth)).
		Promise("the same", look.Usage.Bytes == truth)), nil
}

// walkRows sets our walk beside each peer's.
func (g *ground) walkRows(ctx context.Context, l *layer, name string, turns int, promised bool) ([]report.Row, error) {
	walkers := g.walkers()
	least, err := race(ctx, l, walkers, turns)
	if err != nil {
		return nil, err
	}
	var rows []report.Row
	for i, w := range walkers[1:] {
		both := []report.Row{
			report.Beside(name+": time", "ms", least[0].wall, w.name, least[i+1].wall),
			report.Beside(name+": CPU", "ms", least[0].cpu, w.name, least[i+1].cpu),
		}
		for _, row := range both {
			if promised {
				// Of the CPU too: on a busy machine the time is mostly others'.
				row = row.RatioAtMost(1)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}
