package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nodeagent/nodeagent/bench/report"
)

// load is one thing that is measured, on a ground of its own.
type load struct {
	name, about string
	play        func(ctx context.Context, g *ground) ([]report.Row, error)
}

const (
	peerSyncer = "containerd's syncer"
	peerUsage  = "containerd's Usage"
	peerDu     = "GNU du"
	percentOf  = "% of a core"
)

func loads(s scale) []load {
	all := []load{
		{"idle", "what an idle node costs", playIdle},
		{"growing", "the same node while some containers write", playGrowing},
		{"churn", "temporary files come and go", playChurn},
		{"walk", "one full walk of a large layer", playWalk},
		{"writer", "what watching costs the one who writes", playWriter},
		{"giant", "a very large layer with one log that grows", playGiant},
		{"growing-walk", "the same as growing where layers are walked, as on kernels before 6.5", playGrowingWalk},
		{"giant-walk", "the same as giant, likewise", playGiantWalk},
		{"many", "the agent on a crowded node", playMany},
	}
	for _, n := range s.layerSteps {
		all = append(all, load{fmt.Sprintf("layers-%d", n), "how cost grows with layers", func(ctx context.Context, g *ground) ([]report.Row, error) {
			return playLayers(ctx, g, n)
		}})
	}
	for _, n := range s.fileSteps {
		all = append(all, load{fmt.Sprintf("files-%d", n), "how cost grows with files", func(ctx context.Context, g *ground) ([]report.Row, error) {
			return playFiles(ctx, g, n)
		}})
	}
	return all
}

// settled starts the agent and lets its start pass. by says how it measures.
func (g *ground) settled(ctx context.Context) (a *agent, by string, err error) {
	return g.started(ctx, g.settle)
}

// calmed starts the agent and waits until all that was written is old.
func (g *ground) calmed(ctx context.Context) (a *agent, by string, err error) {
	return g.started(ctx, g.calm)
}

func (g *ground) started(ctx context.Context, pause time.Duration) (a *agent, by string, err error) {
	if a, err = g.startAgent(ctx); err != nil {
		return nil, "", err
	}
	if by, err = a.method(ctx); err != nil {
		return nil, "", err
	}
	return a, "by " + by, sleep(ctx, pause)
}

// costs lets the agent and containerd's syncer be measured in turns, and returns
// the medians of what each takes of a core. What the daemon takes while only
// the agent runs is no part of the syncer's.
func (g *ground) costs(ctx context.Context, a *agent) (ours, peer float64, err error) {
	daemon := g.daemon.Process.Pid
	var agents, syncers []float64
	for range g.rounds {
		var quiet, busy float64
		agentCPU, took, err := cpuOf(a.pid(), func() (err error) {
			quiet, err = idleCPU(ctx, daemon, g.window)
			return err
		})
		if err != nil {
			return 0, 0, err
		}
		agents = append(agents, percent(agentCPU, took))
		stop := g.sync(ctx, nil)
		busy, err = idleCPU(ctx, daemon, g.window)
		if err := stop(); err != nil {
			return 0, 0, err
		}
		if err != nil {
			return 0, 0, err
		}
		syncers = append(syncers, max(0, busy-quiet))
	}
	return median(agents), median(syncers), nil
}

// sync lets a syncer run until the function that it returns is called.
func (g *ground) sync(ctx context.Context, tell func(string, figure, error)) (stop func() error) {
	ctx, cancel := context.WithCancel(g.named(ctx))
	ended := make(chan error, 1)
	go func() { ended <- g.newSyncer(tell).run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return thousands(n/1000) + fmt.Sprintf(",%03d", n%1000)
}
