// Command idle measures what the agent costs on a node where nothing happens:
// it puts idle pods onto a running lab cluster and reads the kernel's own
// counters of the agent's process for a while.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// clockTick is the unit of the CPU times in /proc/PID/stat: USER_HZ, which is
// 100 on every architecture Go runs on.
const clockTick = 10 * time.Millisecond

func main() {
	lab := flag.String("lab", "bin/lab", "the lab program")
	pods := flag.Int("pods", 20, "idle pods")
	calm := flag.Duration("calm", 90*time.Second, "how long the pods rest before: idle is what was not written to for a minute")
	span := flag.Duration("for", time.Minute, "how long to measure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := measure(ctx, *lab, *pods, *calm, *span); err != nil {
		fmt.Fprintf(os.Stderr, "idle: %v\n", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, lab string, pods int, calm, span time.Duration) error {
	c, err := cluster.Connect(ctx, lab)
	if err != nil {
		return err
	}
	if err := c.InstallAgent(ctx); err != nil {
		return err
	}
	const node = "node-1"
	ns, err := c.Namespaced(ctx, "idle")
	if err != nil {
		return err
	}
	defer func() {
		_ = c.Delete(context.WithoutCancel(ctx), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}()
	d := cluster.Deployment(ns, "idle", int32(pods))
	d.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	if err := c.Create(ctx, d); err != nil {
		return fmt.Errorf("cannot start idle pods: %w", err)
	}
	if _, err := c.UntilReady(ctx, ns, "idle", pods); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(calm):
	}
	pid, err := c.AgentPID(ctx, node)
	if err != nil {
		return err
	}
	return watchProcess(ctx, c, node, pid, pods, span)
}

func watchProcess(ctx context.Context, c *cluster.Cluster, node string, pid, pods int, span time.Duration) error {
	before, err := cpuTime(ctx, c, node, pid)
	if err != nil {
		return err
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(span):
	}
	after, err := cpuTime(ctx, c, node, pid)
	if err != nil {
		return err
	}
	share := float64(after-before) / float64(time.Since(start))
	status, err := c.Lab(ctx, "exec", node, "--", "cat", fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	fmt.Printf("%d idle pods, %s: CPU %.2f%% of a core, resident %s (of these anonymous %s)\n",
		pods, span, 100*share, mib(status, "VmRSS"), mib(status, "RssAnon"))
	return nil
}

// cpuTime is the user and system time a process has used so far.
func cpuTime(ctx context.Context, c *cluster.Cluster, node string, pid int) (time.Duration, error) {
	out, err := c.Lab(ctx, "exec", node, "--", "cat", fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command's name, in parentheses, may hold spaces; fields are counted
	// behind it. utime and stime are the 14th and 15th of all (proc(5)).
	_, rest, _ := strings.Cut(out, ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("cannot read /proc/%d/stat: %q", pid, out)
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("cannot read /proc/%d/stat: %q", pid, out)
	}
	return time.Duration(user+system) * clockTick, nil
}

func mib(status, field string) string {
	m := regexp.MustCompile(field + `:\s+(\d+) kB`).FindStringSubmatch(status)
	if m == nil {
		return "unknown"
	}
	kib, _ := strconv.Atoi(m[1])
	return fmt.Sprintf("%.1f MiB", float64(kib)/1024)
}
