// Vm runs Go tests, or any program, on another kernel: Debian's 6.1, emulated
// by QEMU, with cgroup v2 alone and file systems that count project quota. See
// README.md.
//
// It reads as one flow: main.go says what is wanted, suite.go builds the tests
// and plans their runs, kernel.go and disk.go find what the machine is made
// of, cpio.go, program.go and systemd.go pack it, machine.go boots it, and
// report.go tells what came of it. The program is also process 1 of the machine: package guest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/test/vm/guest"
)

// Exit codes of the runner itself; all others are those of the first test that
// failed.
const (
	exitUsage  = 2
	exitBroken = 125
)

func main() {
	if guest.IsHere() {
		guest.Main()
	}
	os.Exit(run())
}

func run() int {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "vm: %v\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	code, err := o.carryOut(ctx, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "vm: %v\n", err)
		return exitBroken
	}
	return code
}

// options are what the command line says.
type options struct {
	lab      string
	memory   size
	cpus     int
	timeout  time.Duration // of each run
	disks    disks
	modules  words
	programs words
	env      words
	systemd  bool
	subjects []string // packages, test binaries or programs
	args     []string // for each of them
}

const usage = `usage: vm run [FLAGS] SUBJECT… [-- ARGS…]

SUBJECT is a Go package such as ./pkg/disk, whose tests are built and run in its
folder with its testdata, or a file: a test binary or any other program. Each is
run once with each --disk at /tmp, or with a tmpfs if none is given. ARGS go
to each of them, such as -test.run=Walk.

`

func parse(args []string) (options, error) {
	o := options{memory: 1 << 30}
	if len(args) == 0 || args[0] != "run" {
		fmt.Fprint(os.Stderr, usage)
		return o, errors.New("there is no such command")
	}
	fs := flag.NewFlagSet("vm run", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(os.Stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.lab, "lab", "bin/lab", "the lab program, which fetches the kernel")
	fs.Var(&o.memory, "memory", "memory of the machine")
	fs.IntVar(&o.cpus, "cpus", min(2, runtime.NumCPU()), "processors of the machine")
	fs.DurationVar(&o.timeout, "timeout", 10*time.Minute, "of each run")
	fs.Var(&o.disks, "disk", "`tmpfs, ext4:SIZE or xfs:SIZE`: where to run the tests; may be repeated")
	fs.Var(&o.modules, "module", "`NAME` of one more kernel module to load; may be repeated")
	fs.Var(&o.programs, "program", "`NAME` of a program of this machine that the tests call; may be repeated")
	fs.BoolVar(&o.systemd, "systemd", false, "boot Debian's systemd, and run the tests in a service of its own")
	fs.Var(&o.env, "env", "`NAME=VALUE` for the tests; may be repeated")
	if err := fs.Parse(args[1:]); err != nil {
		return o, err
	}
	o.subjects = fs.Args()
	for i, arg := range o.subjects {
		if arg == "--" {
			o.subjects, o.args = o.subjects[:i], o.subjects[i+1:]
			break
		}
	}
	if len(o.subjects) == 0 {
		return o, errors.New("run needs a package or a file; see vm run --help")
	}
	if len(o.disks) == 0 {
		return o, o.disks.Set(onTmpfs)
	}
	return o, nil
}

// words is a flag that can be given more than once.
type words []string

func (w *words) String() string { return strings.Join(*w, ",") }

// Set adds one.
func (w *words) Set(text string) error {
	*w = append(*w, text)
	return nil
}

// size is a flag with a number of bytes.
type size int64

func (s *size) String() string { return fmt.Sprintf("%dM", *s>>20) }

// Set reads it.
func (s *size) Set(text string) error {
	n, err := parseSize(text)
	*s = size(n)
	return err
}
