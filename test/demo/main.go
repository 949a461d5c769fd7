// Command demo plays the main job on a running lab cluster, readable in one
// terminal: a web app starts to log to a file, the agent sees it, the workload
// is restarted, and a client that never stopped asking counts what failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/test/cluster"
)

func main() {
	lab := flag.String("lab", "bin/lab", "the lab program")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := play(ctx, *lab); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

// play is the story, scene by scene.
func play(ctx context.Context, lab string) (err error) {
	c, err := cluster.Connect(ctx, lab)
	if err != nil {
		return err
	}
	s := &stage{Cluster: c, out: os.Stdout, began: time.Now()}
	defer func() {
		// Also when a scene failed, or somebody pressed Ctrl-C.
		gone, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, s.sendHome(gone))
	}()
	for _, scene := range []func(context.Context) error{
		s.installAgent, s.openShop, s.startLeak, s.watchRestart, s.takeStock,
	} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	s.goodbye()
	return nil
}
