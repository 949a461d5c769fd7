package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// parseArgs reads flags wherever they stand among the other arguments.
func parseArgs(flags *flag.FlagSet, args []string) ([]string, error) {
	flags.SetOutput(os.Stderr)
	var rest []string
	for {
		if err := flags.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, errUsage{err}
		}
		args = flags.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

func wantArgs(args []string, least, most int) error {
	if len(args) < least {
		return errUsage{errors.New("an argument is missing")}
	}
	if len(args) > most {
		return errUsage{fmt.Errorf("%q is one argument too many", args[most])}
	}
	return nil
}

// parseNode reads a node as 2 or as node-2.
func parseNode(s string) (int, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(s, "node-"))
	if err != nil || n < 1 || n > maxNodes {
		return 0, errUsage{fmt.Errorf("%q is no node: write node-1 or 1", s)}
	}
	return n, nil
}

func upCommand(ctx context.Context, p paths, args []string) error {
	flags := flag.NewFlagSet("lab up", flag.ContinueOnError)
	var o upOptions
	flags.IntVar(&o.nodes, "nodes", 1, "how many nodes")
	flags.StringVar(&o.disk, "disk", "8G", "size of a new node's disk")
	rest, err := parseArgs(flags, args)
	if err == nil {
		err = wantArgs(rest, 0, 0)
	}
	if err != nil {
		return err
	}
	show := newProgress(os.Stderr)
	defer show.close()
	return up(ctx, p, o, show)
}

func downCommand(ctx context.Context, p paths, args []string) error {
	flags := flag.NewFlagSet("lab down", flag.ContinueOnError)
	keep := flags.Bool("keep-logs", false, "leave the logs where they are")
	rest, err := parseArgs(flags, args)
	if err == nil {
		err = wantArgs(rest, 0, 0)
	}
	if err != nil {
		return err
	}
	show := newProgress(os.Stderr)
	defer show.close()
	return down(ctx, p, *keep, show)
}

func statusCommand(ctx context.Context, p paths, args []string) error {
	if err := wantArgs(args, 0, 0); err != nil {
		return err
	}
	return status(ctx, p, os.Stdout)
}

func kubectlCommand(_ context.Context, p paths, args []string) error {
	bins, err := recordedParts(p)
	if err != nil {
		return err
	}
	kubectl := bins.path("kubernetes", "kubectl")
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KUBECONFIG=") })
	err = syscall.Exec(kubectl, append([]string{"kubectl"}, args...), append(env, "KUBECONFIG="+p.adminKubeconfig()))
	return fmt.Errorf("cannot run %s: %w", kubectl, err)
}

func kubeconfigCommand(_ context.Context, p paths, args []string) error {
	return tellPath(p, args, p.adminKubeconfig())
}

func auditLogCommand(_ context.Context, p paths, args []string) error {
	return tellPath(p, args, p.auditLog())
}

// tellPath prints where a file of the running lab is.
func tellPath(p paths, args []string, path string) error {
	if err := wantArgs(args, 0, 0); err != nil {
		return err
	}
	if _, err := recordedParts(p); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

func loadCommand(ctx context.Context, p paths, args []string) error {
	flags := flag.NewFlagSet("lab load", flag.ContinueOnError)
	node := flags.String("node", "", "only on this node")
	rest, err := parseArgs(flags, args)
	if err == nil {
		err = wantArgs(rest, 1, 1)
	}
	if err != nil {
		return err
	}
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	nodes, err := runningNodes(p)
	if *node != "" {
		var n int
		n, err = parseNode(*node)
		nodes = []int{n}
	}
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return errors.New("cannot load the image: no node is running; start one with `lab up`")
	}
	return forEachNode(nodes, func(n int) error { return loadImage(ctx, p, groups, n, rest[0]) })
}

func execCommand(ctx context.Context, p paths, args []string) error {
	if len(args) > 1 && args[1] == "--" {
		args = slices.Delete(slices.Clone(args), 1, 2)
	}
	if len(args) < 2 {
		return errUsage{errors.New("an argument is missing")}
	}
	n, err := parseNode(args[0])
	if err != nil {
		return err
	}
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	return inNode(ctx, p, groups, n, streams{os.Stdin, os.Stdout, os.Stderr}, args[1:])
}

func nodeCommand(ctx context.Context, p paths, args []string) error {
	if err := wantArgs(args, 2, 2); err != nil {
		return err
	}
	n, err := parseNode(args[1])
	if err != nil {
		return err
	}
	if _, err := os.Stat(p.node(n)); err != nil {
		return fmt.Errorf("there is no %s: start it with `lab up --nodes %d`", nodeName(n), n)
	}
	show := newProgress(os.Stderr)
	defer show.close()
	unlock, err := lock(ctx, "lab", show)
	if err != nil {
		return err
	}
	defer unlock()
	switch args[0] {
	case "stop":
		groups, err := findCgroups()
		if err != nil {
			return err
		}
		return stopNode(p, groups, n)
	case "start":
		return startNodeAgain(ctx, p, n, show)
	case "cut", "heal":
		return setCable(n, args[0] == "heal")
	}
	return errUsage{fmt.Errorf("%q is nothing that can be done to a node", args[0])}
}

func startNodeAgain(ctx context.Context, p paths, n int, show *progress) error {
	bins, err := recordedParts(p)
	if err != nil {
		return err
	}
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if err := bootNodes(ctx, p, bins, groups, []int{n}, "", show); err != nil {
		return err
	}
	return joinNodes(ctx, p, []int{n}, show)
}

func restartCommand(ctx context.Context, p paths, args []string) error {
	if err := stopCommand(ctx, p, args); err != nil {
		return err
	}
	return startCommand(ctx, p, args)
}

// stopPatience is how long a program of the control plane has to end by itself.
// The API server would take a minute to let its watchers go.
const stopPatience = 3 * time.Second

func stopCommand(ctx context.Context, p paths, args []string) error {
	name, nodes, err := programArgs(p, args)
	if err != nil {
		return err
	}
	if nodes != nil {
		return forEachNode(nodes, func(n int) error {
			_, err := tellNode(ctx, p, n, order{Do: "stop", Name: name})
			return err
		})
	}
	proc, alive := recordedProcess(p.pids(), name)
	if !alive {
		return nil
	}
	return proc.end(ctx, stopPatience)
}

func startCommand(ctx context.Context, p paths, args []string) error {
	name, nodes, err := programArgs(p, args)
	if err != nil {
		return err
	}
	if nodes != nil {
		return forEachNode(nodes, func(n int) error {
			_, err := tellNode(ctx, p, n, order{Do: "start", Name: name})
			return err
		})
	}
	bins, err := recordedParts(p)
	if err != nil {
		return err
	}
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	if err := startControlPlanePart(p, bins, groups, name); err != nil {
		return err
	}
	if name != apiserverName {
		return nil
	}
	show := newProgress(os.Stderr)
	defer show.close()
	return waitAPI(ctx, p, show)
}

// programArgs reads PROGRAM [NODE]. Without a node a node's program is meant
// on all nodes; for one of the control plane nodes is nil.
func programArgs(p paths, args []string) (name string, nodes []int, err error) {
	if err := wantArgs(args, 1, 2); err != nil {
		return "", nil, err
	}
	if slices.Contains(controlPlaneNames(), args[0]) || slices.Contains(controlPlaneNames(), "kube-"+args[0]) {
		if len(args) > 1 {
			return "", nil, errUsage{fmt.Errorf("%s runs on no node", args[0])}
		}
		if slices.Contains(controlPlaneNames(), args[0]) {
			return args[0], nil, nil
		}
		return "kube-" + args[0], nil, nil
	}
	if len(args) == 2 {
		n, err := parseNode(args[1])
		return args[0], []int{n}, err
	}
	nodes, err = runningNodes(p)
	if err == nil && len(nodes) == 0 {
		err = errors.New("no node is running: start one with `lab up`")
	}
	return args[0], nodes, err
}

func buildCommand(ctx context.Context, p paths, args []string) error {
	if err := wantArgs(args, 0, 0); err != nil {
		return err
	}
	show := newProgress(os.Stderr)
	defer show.close()
	_, err := allParts(ctx, p, show)
	return err
}

func fetchCommand(ctx context.Context, p paths, args []string) error {
	if err := wantArgs(args, 1, 1); err != nil {
		return err
	}
	show := newProgress(os.Stderr)
	defer show.close()
	dir, err := fetch(ctx, p.cache, args[0], show)
	if err == nil {
		fmt.Println(dir)
	}
	return err
}
