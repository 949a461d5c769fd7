package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nodeagent/nodeagent/bench/report"
)

// churned is what was told of layers with temporary files.
type churned struct {
	figures, wrong         int // ours: newly taken, and answers that were 0, missing or impossible
	answers                int
	peerPasses, peerFailed int
}

func playChurn(ctx context.Context, g *ground) ([]report.Row, error) {
	layers, err := g.populate(ctx, "app", g.churning, g.files, true)
	if err != nil {
		return nil, err
	}
	a, by, err := g.settled(ctx)
	if err != nil {
		return nil, err
	}
	// What a layer may hold: what it holds at rest, and one temporary file more.
	least := make(map[string]int64)
	for _, l := range layers {
		if least[l.name], err = du(ctx, l.upper); err != nil {
			return nil, err
		}
	}
	writing, stop := context.WithCancel(ctx)
	group, inner := errgroup.WithContext(writing)
	for _, l := range layers {
		group.Go(func() error { return churn(inner, l) })
	}
	c, err := g.watchChurn(ctx, a, least)
	stop()
	if ended := group.Wait(); err == nil {
		err = ended
	}
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%d layers of %s files, a temporary file at a time in each (%s): ", g.churning, thousands(g.files), by)
	return []report.Row{
		report.Beside(fmt.Sprintf("%szero, missing or impossible figures in %d passes", name, g.passes), "", float64(c.wrong), peerUsage, float64(c.peerFailed)).
			Promise("0", c.wrong == 0 && c.figures >= g.passes && c.peerPasses == g.passes),
		report.Beside(name+"figures that were taken", "", float64(c.figures), peerUsage, float64(c.peerPasses)),
	}, nil
}

// watchChurn goes on until both have taken as many figures as are wanted. It
// gives up after a time in which ours would have had a new one every four
// seconds.
func (g *ground) watchChurn(ctx context.Context, a *agent, least map[string]int64) (churned, error) {
	const (
		most  = 4 * appendSize
		pause = 100 * time.Millisecond
	)
	var c churned
	told := make(map[string][]figure)
	deadline := time.Now().Add(time.Duration(g.passes/g.churning)*4*time.Second + 10*time.Second)
	for (c.peerPasses < g.passes || c.figures < g.passes) && time.Now().Before(deadline) {
		for name := range least { // one of them, another each time
			if c.peerPasses < g.passes {
				c.peerPasses++
				usage, err := g.snapshots().Usage(g.named(ctx), name)
				if err != nil || usage.Size < least[name] {
					c.peerFailed++
				}
			}
			break
		}
		figures, err := a.figures(ctx)
		if err != nil {
			return c, err
		}
		c.figures = 0
		for name, bytes := range least {
			f, ok := figures[name]
			c.answers++
			if !ok || f.bytes < bytes || f.bytes > bytes+most {
				c.wrong++
			}
			told[name] = append(told[name], f)
			c.figures += taken(told[name])
		}
		if err := sleep(ctx, pause); err != nil {
			return c, err
		}
	}
	return c, nil
}
