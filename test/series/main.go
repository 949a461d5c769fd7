// Command series records the series in pkg/disk/testdata/series: real programs
// write real files onto file systems of their own, and the agent's own watcher
// measures them. It takes as long as the longest of them, some eight minutes.
// It needs root, mkfs.ext4 and gzip:
//
//	go run ./test/series -out pkg/disk/testdata/series
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "series: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	out := flag.String("out", "pkg/disk/testdata/series", "folder of the recordings")
	only := flag.String("only", "", "names, with commas between; default: all")
	write := flag.String("write", "", "be the writer of this name, in the current folder")
	flag.Parse()
	if *write != "" {
		i := slices.IndexFunc(scenarios(), func(s scenario) bool { return s.name == *write })
		if i < 0 {
			return fmt.Errorf("no writer is called %q", *write)
		}
		err := scenarios()[i].write(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		return err
	}
	if os.Getuid() != 0 {
		return errors.New("mounting file systems needs root")
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range scenarios() {
		if *only == "" || slices.Contains(strings.Split(*only, ","), s.name) {
			g.Go(func() error {
				if err := record(ctx, s, *out); err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				return nil
			})
		}
	}
	return g.Wait()
}
