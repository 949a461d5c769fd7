// Command nodeagent is the one program of the project: the agent that runs on
// every node, and the tools a person uses with it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/plugin"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch"
)

func main() {
	fetch.ChildMain() // the confined process that fetches is this program once more
	os.Exit(execute(os.Args))
}

// execute runs one command line, the program's name first, and returns the
// exit code: 0, or another with the reason in one line on standard error.
func execute(argv []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root, args := commandFor(filepath.Base(argv[0]), argv[1:])
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", root.DisplayName(), oneLine(err))
	if coded, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); ok {
		return coded.ExitCode()
	}
	return 1
}

// commandFor is what the program is under the name it was started by: kubectl
// runs kubectl-restart for `kubectl restart`, and kubectl_complete-restart to
// complete its arguments.
func commandFor(program string, args []string) (*cobra.Command, []string) {
	if program != "kubectl-restart" && program != "kubectl_complete-restart" {
		return newRootCommand(), args
	}
	root := plugin.New()
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl restart"}
	root.Version = buildVersion()
	if program == "kubectl_complete-restart" {
		args = append([]string{cobra.ShellCompRequestCmd}, args...)
	}
	return root, args
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
	root.AddCommand(newRunCommand(), newTopCommand(), newReplayCommand(), newCheckCommand(), plugin.New(), newVersionCommand(),
		newLaunchCommand(), newPsCommand(), newLogsCommand(), newStopCommand(), newInspectCommand())
	return root
}
