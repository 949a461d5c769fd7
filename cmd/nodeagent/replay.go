package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/disk"
)

// replayOptions are the flags of `nodeagent replay`.
type replayOptions struct {
	config string
	output string
	all    bool
}

func newReplayCommand() *cobra.Command {
	o := replayOptions{}
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Make the verdicts of a recording again, and print each change",
		Long: "Make the verdicts of a recording (nodeagent run --record) again, by the agent's own code, and print\n" +
			"each time that a container becomes an offender, is one by another bound, or is one no more.\n" +
			"With --config it tells what the verdicts would have been with that configuration. FILE may be -.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.output != "text" && o.output != "json" {
				return fmt.Errorf("cannot print %q: want text or json", o.output)
			}
			return replayFile(args[0], o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "configuration `file` whose disk settings take the recorded ones' place")
	f.StringVarP(&o.output, "output", "o", "text", "`format`: text, or json with one object a line")
	f.BoolVar(&o.all, "all", false, "print every verdict, not the changes alone")
	return cmd
}

func replayFile(path string, o replayOptions, in io.Reader, out, notes io.Writer) error {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("cannot replay: %w", err)
		}
		defer f.Close()
		in = f
	}
	p, err := disk.NewReplay(in)
	if err != nil {
		return fmt.Errorf("cannot replay %s: %w", path, err)
	}
	if o.config != "" {
		cfg, err := loadConfig(o.config, true)
		if err != nil {
			return err
		}
		recorded := p.Policy() // that of the recorded node's kubelet
		r := reserves{bytes: recorded.Reserve, inodes: recorded.InodeReserve, own: recorded.Filesystems}
		if cfg.Disk.Reserve != v1alpha1.ReserveOfKubelet {
			r.bytes, r.own = parseReserve(cfg.Disk.Reserve), maps.Clone(r.own) // their inodes stay
			for mount, own := range r.own {
				own.Bytes = r.bytes
				r.own[mount] = own
			}
		}
		if err := p.SetPolicy(diskPolicy(cfg, r)); err != nil {
			return err
		}
	}
	return replay(p, o, out, notes)
}

// replay prints what a recording says, and on notes how it ended.
func replay(p *disk.Replay, o replayOptions, out, notes io.Writer) error {
	show := func(v disk.Verdict) error {
		_, err := fmt.Fprintln(out, replayLine(v))
		return err
	}
	if o.output == "json" {
		enc := json.NewEncoder(out)
		show = func(v disk.Verdict) error { return enc.Encode(replayedOf(v)) }
	}
	before := make(map[string]disk.Verdict)
	var first, last time.Time
	verdicts, changes := 0, 0
	for {
		v, err := p.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, disk.ErrCutShort) {
			end := p.End
			if end == "" {
				end = err.Error()
			}
			_, err = fmt.Fprintf(notes, "%d verdicts on %d containers in %s, %d changes; %s\n",
				verdicts, len(before), last.Sub(first).Round(time.Second), changes, end)
			return err
		}
		if err != nil {
			return err
		}
		id := v.Container.Namespace + "/" + v.Container.ID
		changed := isChange(before[id], v)
		if verdicts++; changed {
			changes++
		}
		if first.IsZero() {
			first = v.At
		}
		before[id], last = v, v.At
		if changed || o.all {
			if err := show(v); err != nil {
				return err
			}
		}
	}
}

// isChange: into an offender, out of it, or one by another bound.
func isChange(was, is disk.Verdict) bool {
	if was.Offender != is.Offender {
		return true
	}
	return is.Offender && (was.Bound != is.Bound || was.Resource != is.Resource)
}
