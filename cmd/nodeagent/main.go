// Command nodeagent is the one program of the project: the agent that runs on
// every node, and the tools a person uses with it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch"
)

func main() {
	fetch.ChildMain() // this program is also the confined process that fetches
	os.Exit(execute(os.Args[1:]))
}

// execute runs one command line and returns the exit code: 0, or 1 with the
// reason in one line on standard error.
func execute(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := newRootCommand()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "nodeagent: %s\n", oneLine(err))
		return 1
	}
	return 0
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "nodeagent",
		Short:         "Watches what containers write to disk, restarts the workload before the disk is full, and runs binaries from URLs",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs, // so that a mistyped command is an error
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newRunCommand(), newTopCommand(), newCheckCommand(), newVersionCommand(),
		newLaunchCommand(), newPsCommand(), newLogsCommand(), newStopCommand(), newInspectCommand())
	return root
}
