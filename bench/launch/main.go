// Command launch measures what a launch costs, side by side with other ways to
// start an isolated process: runc, crun, podman, ctr, and a bare fork and exec as
// the floor. All of them start the same shell, in turn, in one run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/nodeagent/nodeagent/bench/report"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/binary"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/sandbox"
)

func main() {
	fetch.ChildMain() // this program is what fetches, too
	out := flag.String("results", "", "write the rows as JSON")
	readme := flag.String("readme", "", "show the rows in this file")
	rounds := flag.Int("rounds", 100, "warm launches of each")
	many := flag.Int("many", 1000, "launches and stops, 16 at once")
	running := flag.Int("running", 500, "tasks that run while idle use is measured")
	cold := flag.Int("cold", 20, "launches from a URL")
	calm := flag.Duration("calm", 90*time.Second, "from the last start until idle use is measured: a keeper looks at a folder that rests less and less often, down to once a minute")
	idle := flag.Duration("idle", time.Minute, "how long idle use is measured")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	rows, err := measure(ctx, *rounds, *cold, *many, *running, *calm, *idle)
	fmt.Print(report.Table(rows))
	if err == nil {
		err = write(*out, *readme, rows)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "launch: %v\n", err)
		os.Exit(1)
	}
}

func write(path, readme string, rows []report.Row) error {
	if path != "" {
		if err := report.Write(path, rows); err != nil {
			return err
		}
	}
	if readme != "" {
		return report.Insert(readme, "bench/launch", report.Table(rows))
	}
	return nil
}

func measure(ctx context.Context, rounds, cold, many, running int, calm, idle time.Duration) (rows []report.Row, err error) {
	keeper, err := binary.Open()
	if err != nil {
		return nil, err
	}
	defer keeper.Close()
	folder, err := os.MkdirTemp("", "bench-launch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	state, err := os.MkdirTemp("/dev/shm", "bench-launch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(state)
	o := sandbox.Options{State: state, Keeper: keeper.Path(), CgroupParent: fmt.Sprintf("nodeagent/bench-%d", os.Getpid())}
	l, err := sandbox.New(o)
	if err != nil {
		return nil, err
	}
	b := &bench{launcher: l, options: o, folder: folder}
	defer func() { err = b.close(err) }()
	if err := b.prepare(); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) ([]report.Row, error){
		func(ctx context.Context) ([]report.Row, error) { return b.warm(ctx, rounds) },
		func(ctx context.Context) ([]report.Row, error) { return b.cold(ctx, cold) },
		func(ctx context.Context) ([]report.Row, error) { return b.many(ctx, many) },
		func(ctx context.Context) ([]report.Row, error) { return b.resident(ctx, running, calm, idle) },
	} {
		more, err := part(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}
