// Lab runs a real Kubernetes cluster of one to nine nodes on this one machine:
// real API server, kubelets, containerds and pods, each node with its own
// processes, network, root file system and disk. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == nodeInitCommand {
		fmt.Fprintln(os.Stderr, "node-init:", runNodeInit()) // it ends with its node alone
		os.Exit(1)
	}
	if os.Args[0] == nodeExecCommand {
		fmt.Fprintln(os.Stderr, "lab exec:", runNodeExec(os.Args[1:]))
		os.Exit(127)
	}
	os.Exit(runCommand(os.Args[1:]))
}

// command is one word that the lab understands.
type command struct {
	name, args, help string
	run              func(ctx context.Context, p paths, args []string) error
}

func commands() []command {
	return []command{
		{"up", "[--nodes N] [--disk 8G]", "start the cluster, or add nodes to it; builds its parts the first time", upCommand},
		{"down", "[--keep-logs]", "end the cluster and remove all that it made on the machine", downCommand},
		{"status", "", "show the nodes, their processes and how to use them", statusCommand},
		{"kubectl", "ARGS…", "run kubectl as the cluster's admin", kubectlCommand},
		{"kubeconfig", "", "print the path of the admin's kubeconfig", kubeconfigCommand},
		{"audit-log", "", "print the path of the API server's audit log", auditLogCommand},
		{"load", "IMAGE.tar [--node N]", "import an OCI or docker archive on all nodes, or on one", loadCommand},
		{"exec", "NODE -- CMD…", "run a command on a node", execCommand},
		{"node", "stop|start|cut|heal N", "pull a node's plug, switch it on, pull its network cable, plug it in", nodeCommand},
		{"restart", "PROGRAM [NODE]", "stop and start a program of the control plane or of a node", restartCommand},
		{"stop", "PROGRAM [NODE]", "stop such a program", stopCommand},
		{"start", "PROGRAM [NODE]", "start it again", startCommand},
		{"build", "", "build and download all parts, and start nothing", buildCommand},
		{"test-env", "", "build and download what the tests use, and print where it is for a shell to eval", testEnvCommand},
		{"fetch", strings.Join(fetchable(), "|"), "build or download one part and print its folder in the cache", fetchCommand},
	}
}

// errUsage is an error after which the command's usage helps.
type errUsage struct{ error }

func runCommand(args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(os.Stdout)
		return 0
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.execute(args[1:])
		}
	}
	fmt.Fprintf(os.Stderr, "lab: there is no command %q\n\n", args[0])
	usage(os.Stderr)
	return 2
}

func (c command) execute(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	p, err := pathsFromEnv()
	if err == nil {
		err = c.run(ctx, p, args)
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if code, ok := exitCode(err); ok && c.name == "exec" {
		return code
	}
	fmt.Fprintf(os.Stderr, "lab %s: %v\n", c.name, err)
	var wrong errUsage
	if errors.As(err, &wrong) {
		fmt.Fprintf(os.Stderr, "usage: lab %s %s\n", c.name, c.args)
		return 2
	}
	return 1
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "lab runs a real Kubernetes cluster on this machine.")
	fmt.Fprintln(w)
	for _, c := range commands() {
		fmt.Fprintf(w, "  lab %s\n        %s\n", strings.TrimSpace(c.name+" "+c.args), c.help)
	}
	fmt.Fprintf(w, "\nenvironment: %s (state, %s), %s (built parts, ~/.cache/nodeagent-lab),\n             %s (the sources' test/lab/parts)\n",
		envLabDir, defaultLabDir, envCacheDir, envPartsDir)
}
