// Command disk measures what watching disks costs, and how right and how early
// it is, beside containerd's own figures, GNU du and gdu, in one run.
//
// Each load has a cell of its own: a process, mount and network namespace with
// an ext4 file system on a loop device and a real containerd whose containers are
// real overlayfs snapshots. The agent is the real program. When a cell's first
// process ends, however it ends, the kernel ends all others of it and takes the
// mounts and the loop device away; only empty cgroups and a folder are left for
// the process outside to remove.
//
// One load is a function in load_*.go that returns rows of bench/report.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/bench/report"
)

// options are the flags.
type options struct {
	agent      string // the agent's program
	containerd string // the folder whose bin/ holds containerd, its shim and runc
	gdu        string // gdu's program; empty: not compared
	loads      string // names, comma separated; empty: all
	tiny       bool
	results    string // where the rows go as JSON; empty: nowhere
	readme     string // where the table goes; empty: nowhere
	folder     string // where disks are made
	cell       string // inside: the cell's folder
	cgroup     string // inside: the name of the cell's cgroup
}

var errInterrupted = errors.New("interrupted; nothing is left behind")

func main() {
	if len(os.Args) == 2 && os.Args[1] == pauseCommand {
		pause()
	}
	// The cell is to die with this thread, so the thread must stay.
	goruntime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, parse()); err != nil {
		fmt.Fprintf(os.Stderr, "bench/disk: %v\n", err)
		os.Exit(1)
	}
}

func parse() options {
	var o options
	flag.StringVar(&o.agent, "agent", "bin/nodeagent", "the agent's `program`")
	flag.StringVar(&o.containerd, "containerd", os.Getenv("NODEAGENT_TEST_CONTAINERD_2"), "`folder` whose bin/ holds containerd")
	flag.StringVar(&o.gdu, "gdu", "", "gdu's `program`; it is left out without one")
	flag.StringVar(&o.loads, "loads", "", "only these `loads`, comma separated")
	flag.BoolVar(&o.tiny, "tiny", false, "tiny loads: does it work, not how fast is it")
	flag.StringVar(&o.results, "results", "", "write the rows to this `file`")
	flag.StringVar(&o.readme, "readme", "", "put the table into this `file`")
	flag.StringVar(&o.folder, "folder", os.TempDir(), "where the disks are made; the largest needs 6 GiB")
	flag.StringVar(&o.cell, "cell", "", "")
	flag.StringVar(&o.cgroup, "cgroup", "", "")
	flag.Parse()
	return o
}

func run(ctx context.Context, o options) error {
	if o.containerd == "" {
		return errors.New("no containerd: name the folder with -containerd, or run make bench-disk, which builds it")
	}
	size := full()
	if o.tiny {
		size = tiny()
	}
	chosen, err := choose(loads(size), o.loads)
	if err != nil {
		return err
	}
	if o.cell != "" {
		return runInside(ctx, o, size, chosen[0])
	}
	removeDead(o.folder)
	var rows []report.Row
	begun := time.Now()
	for i, l := range chosen {
		fmt.Printf("%d of %d, %s: %s\n", i+1, len(chosen), l.name, l.about)
		of, err := runCell(ctx, o, l.name)
		if ctx.Err() != nil {
			return errors.Join(errInterrupted, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		rows = append(rows, of...)
	}
	fmt.Printf("\n%s\n%s: %s\n", report.Table(rows), machine(), time.Since(begun).Round(time.Second))
	if o.results != "" {
		if err := report.Write(o.results, rows); err != nil {
			return err
		}
	}
	if o.readme == "" {
		return nil
	}
	return report.Insert(o.readme, "bench/disk", fmt.Sprintf("Measured %s on %s.\n\n%s", begun.UTC().Format("2006-01-02"), machine(), report.Table(rows)))
}

func choose(all []load, names string) ([]load, error) {
	if names == "" {
		return all, nil
	}
	var chosen []load
	for name := range strings.SplitSeq(names, ",") {
		found := false
		for _, l := range all {
			if l.name == name {
				chosen, found = append(chosen, l), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no load %q", name)
		}
	}
	return chosen, nil
}

// runInside is the cell's first process: it makes the ground, plays the load on
// it and leaves the rows for the process outside.
func runInside(ctx context.Context, o options, size scale, l load) error {
	if err := enterCell(); err != nil {
		return err
	}
	g, err := newGround(ctx, o, size)
	if err != nil {
		return err
	}
	rows, err := l.play(ctx, g)
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return fmt.Errorf("%w%s", err, g.logs())
	}
	return report.Write(filepath.Join(o.cell, "rows.json"), rows)
}

// machine says in a few words where this was measured.
func machine() string {
	var u syscall.Utsname
	_ = syscall.Uname(&u)
	var release strings.Builder
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		release.WriteByte(byte(c))
	}
	return fmt.Sprintf("%d cores, %s, Linux %s", goruntime.NumCPU(), goruntime.GOARCH, release.String())
}
