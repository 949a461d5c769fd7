package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// level says what a finding means for the agent.
type level string

const (
	levelOK      level = "ok"      // is there and is used
	levelInfo    level = "info"    // is told, nothing depends on it
	levelLacking level = "lacking" // something is done without it
	levelFailed  level = "FAILED"  // the agent cannot do its job
)

// finding is one line of `nodeagent check`.
type finding struct {
	level   level
	subject string
	text    string
}

// checkTimeout bounds each subject: a hung daemon is a finding too.
const checkTimeout = 10 * time.Second

func newCheckCommand() *cobra.Command {
	o := runOptions{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Tell line by line what of this host the agent can use, and what is missing",
		Long: "Tell line by line what of this host the agent can use, and what is missing.\n" +
			"Exits with 1 when something is missing that the agent cannot do without.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(o.config, cmd.Flags().Changed("config"))
			if err != nil {
				return err
			}
			return report(cmd.OutOrStdout(), checkHost(cmd.Context(), cfg, o))
		},
	}
	o.addFlags(cmd)
	return cmd
}

// checkHost asks one subject after the other, in the order of the agent's flow.
func checkHost(ctx context.Context, cfg *v1alpha1.Config, o runOptions) []finding {
	var findings []finding
	for _, check := range []func(context.Context, *v1alpha1.Config, runOptions) []finding{
		checkConfig, checkContainerd, checkLayers, checkOpenFiles, checkCgroups, checkKernel, checkAPI,
	} {
		bounded, cancel := context.WithTimeout(ctx, checkTimeout)
		findings = append(findings, check(bounded, cfg, o)...)
		cancel()
	}
	return findings
}

func checkConfig(_ context.Context, cfg *v1alpha1.Config, _ runOptions) []finding {
	return []finding{{levelOK, "config", "node " + cfg.Node + ", listen " + cfg.Listen}}
}

func report(out io.Writer, findings []finding) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	failed := 0
	for _, f := range findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.level, f.subject, strings.Join(strings.Fields(f.text), " "))
		if f.level == levelFailed {
			failed++
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	if failed > 0 {
		return errors.New("check: the agent cannot do its job here: see the lines that say FAILED")
	}
	return nil
}
