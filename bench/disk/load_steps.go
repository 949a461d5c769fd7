package main

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/bench/report"
)

// stepPasses is how many of containerd's passes the steps take the median of.
const stepPasses = 3

// playLayers is one step of how cost grows with the number of layers.
func playLayers(ctx context.Context, g *ground, layers int) ([]report.Row, error) {
	if _, err := g.populate(ctx, "app", layers, g.stepFiles, false); err != nil {
		return nil, err
	}
	ours, peer, by, err := g.stepCosts(ctx)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("growth, %s layers of %d files, idle (%s): CPU", thousands(layers), g.stepFiles, by)
	return []report.Row{report.Beside(name, percentOf, ours, peerSyncer, peer)}, nil
}

// playFiles is one step of how cost grows with the number of files in a layer.
func playFiles(ctx context.Context, g *ground, files int) ([]report.Row, error) {
	layers, err := g.populate(ctx, "app", 1, files, false)
	if err != nil {
		return nil, err
	}
	ours, peer, by, err := g.stepCosts(ctx)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("growth, one layer of %s files, idle (%s): CPU", thousands(files), by)
	rows := []report.Row{report.Beside(name, percentOf, ours, peerSyncer, peer)}
	walks, err := g.walkRows(ctx, layers[0], fmt.Sprintf("growth, one walk of %s files", thousands(files)), stepPasses, false)
	return append(rows, walks...), err
}

// stepCosts takes containerd's cost from passes right after each other, told as
// if they were paced, to save time.
func (g *ground) stepCosts(ctx context.Context) (ours, peer float64, by string, err error) {
	a, by, err := g.calmed(ctx)
	if err != nil {
		return 0, 0, "", err
	}
	if ours, err = idleCPU(ctx, a.pid(), g.window); err != nil {
		return 0, 0, "", err
	}
	pass, err := g.passCPU(ctx, stepPasses)
	if err != nil {
		return 0, 0, "", err
	}
	return ours, percent(pass, max(g.period, pass+g.period/2)), by, a.stop()
}
