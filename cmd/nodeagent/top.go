package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/top"
	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// topOptions are the flags of `nodeagent top`.
type topOptions struct {
	config string
	once   bool
	output string
	sort   string
	filter string
}

func newTopCommand() *cobra.Command {
	o := topOptions{}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show live what each container of this node writes, how fast, and when the disk is full",
		Long: "Show live what each container of this node writes, how fast, and when the disk is full.\n" +
			"It asks the agent of this node over its local socket; where none runs it measures by itself,\n" +
			"and then needs some seconds until it can tell a growth. In a cluster:\n" +
			"kubectl -n nodeagent exec -it POD -- /nodeagent top",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			cfg, err := loadConfig(o.config, cmd.Flags().Changed("config"))
			if err != nil {
				return err
			}
			return runTop(cmd.Context(), cfg, o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", defaultConfigFile, "configuration `file`; without the flag it may be missing")
	f.BoolVar(&o.once, "once", false, "print the table once and end")
	f.StringVarP(&o.output, "output", "o", "table", "`format`: table, or json, which prints once")
	f.StringVar(&o.sort, "sort", string(top.ByFull), "`order`: full, growth, size, inodes or name")
	f.StringVar(&o.filter, "filter", "", "show containers whose namespace/pod/name holds this `text`")
	return cmd
}

func (o topOptions) validate() error {
	if !slices.Contains(top.Orders(), top.Order(o.sort)) {
		return fmt.Errorf("cannot sort by %q: want one of %v", o.sort, top.Orders())
	}
	if o.output != "table" && o.output != "json" {
		return fmt.Errorf("cannot print %q: want table or json", o.output)
	}
	return nil
}

func runTop(ctx context.Context, cfg *v1alpha1.Config, o topOptions, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fetch, wait, err := reports(ctx, cfg)
	if err != nil {
		return err
	}
	defer wait()
	defer cancel() // before wait: it ends what wait waits for
	switch {
	case o.output == "json":
		r, err := fetch()
		if err != nil {
			return err
		}
		r.Containers = top.Arrange(r.Containers, top.Order(o.sort), o.filter)
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	case o.once || !term.IsTerminal(int(os.Stdout.Fd())):
		r, err := fetch()
		if err != nil {
			return err
		}
		return top.WriteTable(out, r, top.Order(o.sort), o.filter, terminalWidth())
	}
	return top.Run(ctx, os.Stdin, os.Stdout, fetch, top.Order(o.sort), o.filter)
}

// terminalWidth is the width to print for; a file or a pipe has room.
func terminalWidth() int {
	if w, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && w > 0 {
		return w
	}
	return 200
}

// reports is where reports come from: the node's agent, or watchers of our
// own, which wait ends.
func reports(ctx context.Context, cfg *v1alpha1.Config) (fetch func() (top.Report, error), wait func(), err error) {
	fetch = func() (top.Report, error) { return askAgent(ctx, cfg.Socket) }
	if _, err := fetch(); err == nil || !nobodyThere(err) {
		return fetch, func() {}, err
	}
	return measureHere(ctx, cfg)
}

func nobodyThere(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// firstLook is how long a measuring of our own may take before it shows what
// there is; a growth takes some looks to be told.
const firstLook = 10 * time.Second

func measureHere(ctx context.Context, cfg *v1alpha1.Config) (func() (top.Report, error), func(), error) {
	if err := checkSocket(cfg.Containerd.Socket); err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.DiscardHandler)
	containers, err := runtime.NewWatcher(runtimeConfig(cfg, nil, log))
	if err != nil {
		return nil, nil, err
	}
	disks, err := disk.NewWatcher(diskOptions(cfg, containers, disk.NewWalker(cfg.HostRoot), nil, nil, log))
	if err != nil {
		return nil, nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return containers.Run(ctx) })
	g.Go(func() error { return watchDisks(ctx, containers, disks) })
	waitMeasured(ctx, disks, firstLook)
	fetch := func() (top.Report, error) { return diskReport(cfg.Node, disks, time.Now()), nil }
	return fetch, func() { _ = g.Wait() }, nil
}
