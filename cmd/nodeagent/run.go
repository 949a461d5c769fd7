package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// runOptions are the flags of `nodeagent run`. What an operator sets once for
// a cluster is in the config file; flags say how this one process runs.
type runOptions struct {
	config     string
	kubeconfig string
	standalone bool
	reload     bool
	logLevel   slog.Level
	record     recordOptions
}

func newRunCommand() *cobra.Command {
	o := runOptions{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the agent of this node",
		Long: "Run the agent of this node: watch its containers through containerd, measure what they write,\n" +
			"and restart a workload through the Kubernetes API before it fills the disk.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(o.config, cmd.Flags().Changed("config"))
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: o.logLevel}))
			return runAgent(cmd.Context(), cfg, o, log)
		},
	}
	o.addFlags(cmd)
	o.record.addFlags(cmd)
	cmd.Flags().TextVar(&o.logLevel, "log-level", slog.LevelInfo, "least `level` that is logged: DEBUG, INFO, WARN or ERROR")
	return cmd
}

// addFlags adds those that say what is there, for run and check alike.
func (o *runOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.config, "config", defaultConfigFile, "configuration `file`; without the flag it may be missing")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `file`; default: the pod's own service account, else $KUBECONFIG")
	f.BoolVar(&o.standalone, "standalone", false, "watch and report only: ask no Kubernetes API for anything")
	f.BoolVar(&o.reload, "reload", false, "restart workloads whose ConfigMaps or Secrets changed and that ask for it; manifests/overlays/reload brings the rights")
}

// describe says in the log's first line what this agent will do.
func describe(cfg *v1alpha1.Config, o runOptions) string {
	doing := fmt.Sprintf("watching, mode %s", cfg.Restart.Mode)
	if o.standalone {
		doing = "watching only, no Kubernetes API"
	}
	if o.reload {
		doing += ", reloading"
	}
	if cfg.Launch.Enabled {
		doing += ", launching"
	}
	return doing
}
