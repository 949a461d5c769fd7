package main

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/bench/report"
)

// playGiant also tells the last step of how cost grows with files.
func playGiant(ctx context.Context, g *ground) ([]report.Row, error) {
	layers, err := g.populate(ctx, "giant", 1, g.giant, true)
	if err != nil {
		return nil, err
	}
	files := thousands(g.giant)
	a, by, err := g.settled(ctx)
	if err != nil {
		return nil, err
	}
	idle, err := idleCPU(ctx, a.pid(), 2*g.window)
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
	writing, err := idleCPU(ctx, a.pid(), g.window)
	if err != nil {
		return nil, err
	}
	if err := stop(); err != nil {
		return nil, err
	}
	pass, err := g.passCPU(ctx, 1)
	if err != nil {
		return nil, err
	}
	peer := percent(pass, max(g.period, pass+g.period/2))
	name := fmt.Sprintf("one layer of %s files, its log grows by 1 MiB/s (%s): ", files, by)
	rows := []report.Row{
		report.Beside(name+"CPU", percentOf, writing, peerSyncer, peer),
		report.Beside(name+"longest until a write is seen", "s", saw.ours.Seconds(), peerSyncer, saw.peer.Seconds()),
		report.Alone(name+"largest error while it grows", "%", 100*saw.wrong),
		report.Beside(fmt.Sprintf("growth, one layer of %s files, idle (%s): CPU", files, by), percentOf, idle, peerSyncer, peer),
	}
	walks, err := g.walkRows(ctx, layers[0], fmt.Sprintf("growth, one walk of %s files", files), 1, false)
	return append(rows, walks...), err
}
