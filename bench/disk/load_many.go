package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/nodeagent/nodeagent/bench/report"
)

// scrapeEvery is how often Prometheus asks on an ordinary node.
const scrapeEvery = 15 * time.Second

func playMany(ctx context.Context, g *ground) ([]report.Row, error) {
	if _, err := g.populate(ctx, "app", g.many, g.manyFiles, true); err != nil {
		return nil, err
	}
	a, by, err := g.calmed(ctx)
	if err != nil {
		return nil, err
	}
	cpu, took, err := cpuOf(a.pid(), func() error { return g.scraped(ctx, a, 3*g.window) })
	if err != nil {
		return nil, err
	}
	memory, err := resident(a.pid())
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%d containers, idle, scraped every %s (%s): ", g.many, scrapeEvery, by)
	return []report.Row{
		report.Alone(name+"resident memory", "MiB", memory).Promise("< 40 MiB", memory < 40),
		report.Alone(name+"CPU", percentOf, percent(cpu, took)).Promise("< 0.5 "+percentOf, percent(cpu, took) < 0.5),
	}, nil
}

// scraped waits, and reads the agent's metrics now and then, as Prometheus does.
func (g *ground) scraped(ctx context.Context, a *agent, span time.Duration) error {
	for until := time.Now().Add(span); time.Now().Before(until); {
		body, err := a.get(ctx, "/metrics")
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, body)
		_ = body.Close()
		if err != nil {
			return fmt.Errorf("cannot read the agent's metrics: %w", err)
		}
		if err := sleep(ctx, min(time.Until(until), scrapeEvery)); err != nil {
			return err
		}
	}
	return nil
}
