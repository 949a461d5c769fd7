// Command launch measures what a launch costs, side by side with other ways to
// start an isolated process: runc, crun, podman, ctr, and a bare fork and exec as
// the floor. All of them start the same shell, in turn, in one run.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/binary"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/sandbox"
)

// row is one line of the results.
type row struct {
	Name     string  `json:"name"`
	Ours     float64 `json:"ours"`
	Peer     float64 `json:"peer,omitempty"`
	PeerName string  `json:"peerName,omitempty"`
	Unit     string  `json:"unit"`
	Ratio    float64 `json:"ratio,omitempty"` // ours by peer
	Target   string  `json:"target,omitempty"`
	Holds    bool    `json:"holds"`
}

func main() {
	out := flag.String("out", "", "write the rows as JSON")
	rounds := flag.Int("rounds", 100, "warm launches of each")
	many := flag.Int("many", 1000, "launches and stops, 16 at once")
	running := flag.Int("running", 500, "tasks that run while idle use is measured")
	idle := flag.Duration("idle", 20*time.Second, "how long idle use is measured")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	rows, err := measure(ctx, *rounds, *many, *running, *idle)
	if err == nil && *out != "" {
		err = write(*out, rows)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "launch: %v\n", err)
		os.Exit(1)
	}
}

func write(path string, rows []row) error {
	raw, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

func measure(ctx context.Context, rounds, many, running int, idle time.Duration) (rows []row, err error) {
	keeper, err := binary.Open()
	if err != nil {
		return nil, err
	}
	defer keeper.Close() //nolint:errcheck // in memory
	folder, err := os.MkdirTemp("", "bench-launch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder) //nolint:errcheck // temporary
	state, err := os.MkdirTemp("/dev/shm", "bench-launch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(state) //nolint:errcheck // temporary
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
	for _, part := range []func(context.Context) ([]row, error){
		func(ctx context.Context) ([]row, error) { return b.warm(ctx, rounds) },
		func(ctx context.Context) ([]row, error) { return b.many(ctx, many) },
		func(ctx context.Context) ([]row, error) { return b.resident(ctx, running, idle) },
	} {
		more, err := part(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range more {
			tell(r)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func tell(r row) {
	held := "holds"
	if !r.Holds {
		held = "MISSED"
	}
	if r.Target == "" {
		held = ""
	}
	peer := ""
	if r.PeerName != "" {
		peer = fmt.Sprintf("%s %.2f %s, ratio %.3f", r.PeerName, r.Peer, r.Unit, r.Ratio)
	}
	fmt.Printf("%-46s %9.2f %-3s  %-34s %-24s %s\n", r.Name, r.Ours, r.Unit, peer, r.Target, held)
}
