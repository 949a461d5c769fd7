package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// status prints what of the lab runs and how to use it.
func status(ctx context.Context, p paths, w io.Writer) error {
	if _, err := recordedParts(p); err != nil {
		return err
	}
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "WHERE\tPROCESS\tPID\tMEMORY\tSTATE")
	for _, name := range controlPlaneNames() {
		proc, alive := recordedProcess(p.pids(), name)
		printProcess(t, "host", name, proc.pid, alive, "ended; see "+p.log(name))
	}
	nodes, err := p.existingNodes()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err := nodeStatus(ctx, t, p, groups, n); err != nil {
			return err
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nkubeconfig %s\nlogs       %s\nfolder     %s\n", p.adminKubeconfig(), p.logs(), p.dir)
	fmt.Fprintln(w, "use        lab kubectl get pods -A · lab exec node-1 -- ctr -n k8s.io tasks ls · lab down")
	return nil
}

func nodeStatus(ctx context.Context, w io.Writer, p paths, groups cgroups, n int) error {
	init, alive := recordedProcess(p.pids(), nodeName(n))
	printProcess(w, nodeName(n), "init", init.pid, alive, "stopped; start it with `lab node start "+strconv.Itoa(n)+"`")
	if !alive {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	children, err := tellNode(ctx, p, n, order{Do: "status"})
	if err != nil {
		return err
	}
	pids, err := groups.pids(nodeName(n))
	if err != nil {
		return err
	}
	outside := outsidePids(pids)
	slices.SortFunc(children, func(a, b childStatus) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range children {
		printProcess(w, nodeName(n), c.Name, outside[c.Pid], c.Pid != 0, "not running; ended last "+c.Last)
	}
	fmt.Fprintf(w, "%s\t%d processes\t\t%s\tpods included\n", nodeName(n), len(pids), mebibytes(sumRSS(pids)))
	return nil
}

func printProcess(w io.Writer, where, name string, pid int, alive bool, otherwise string) {
	if !alive {
		fmt.Fprintf(w, "%s\t%s\t-\t-\t%s\n", where, name, otherwise)
		return
	}
	fmt.Fprintf(w, "%s\t%s\t%d\t%s\trunning\n", where, name, pid, mebibytes(rss(pid)))
}

func mebibytes(bytes int64) string { return fmt.Sprintf("%d MiB", bytes>>20) }

// outsidePids maps pids in a node's namespace to the machine's.
func outsidePids(pids []int) map[int]int {
	outside := map[int]int{}
	for _, pid := range pids {
		// NSpid lists the pid in each namespace from ours inward; a pod's own
		// namespace comes third.
		f := strings.Fields(statusField(pid, "NSpid:"))
		if len(f) < 2 {
			continue
		}
		if inner, err := strconv.Atoi(f[1]); err == nil {
			outside[inner] = pid
		}
	}
	return outside
}

func rss(pid int) int64 {
	f := strings.Fields(statusField(pid, "VmRSS:"))
	if len(f) == 0 {
		return 0
	}
	kib, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

func sumRSS(pids []int) int64 {
	var sum int64
	for _, pid := range pids {
		sum += rss(pid)
	}
	return sum
}

func statusField(pid int, name string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return value
		}
	}
	return ""
}
