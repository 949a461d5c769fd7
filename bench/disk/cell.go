package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/bench/report"
)

const (
	// mark begins the names of folders and cgroups of a run; its number follows.
	mark = "nodeagent-bench-"
	// cellGrace is how long a cell may take to end when it was asked to.
	cellGrace = 10 * time.Second
	// freeing is how long the kernel may take to let go of a cell's disk.
	freeing = 5 * time.Minute
)

// runCell plays one load in a cell and leaves nothing of it.
func runCell(ctx context.Context, o options, name string) (rows []report.Row, err error) {
	run := mark + strconv.Itoa(os.Getpid())
	cell := filepath.Join(o.folder, run)
	if err := os.Mkdir(cell, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make a cell: %w", err)
	}
	defer func() { err = errors.Join(err, removeCell(cell)) }()
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot make a cell: %w", err)
	}
	args := []string{"-cell", cell, "-cgroup", run, "-loads", name,
		"-agent", o.agent, "-containerd", o.containerd, "-gdu", o.gdu, "-tiny=" + strconv.FormatBool(o.tiny)}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = cellGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the load did not come to its end: %w", err)
	}
	return report.Read(filepath.Join(cell, "rows.json"))
}

// enterCell makes mounts of this process its own, with an empty /run, lets /proc
// show the cell's processes, and wakes the loopback of the cell's network.
func enterCell() error {
	if os.Getpid() != 1 {
		return errors.New("cannot enter the cell: this is not its first process")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot keep mounts to the cell: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("cannot mount the cell's proc: %w", err)
	}
	// Shims and runc keep their state in /run/containerd whatever the daemon is
	// told.
	if err := unix.Mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("cannot mount the cell's run: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("cannot use the cell's network: %w", err)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// removeCell takes away what the kernel does not, once all of the cell's
// processes are gone: its cgroups and its folder.
func removeCell(cell string) error {
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(cell))
	if err != nil {
		return err
	}
	for _, c := range append(cgroups, "/sys/fs/cgroup/"+filepath.Base(cell)) {
		removeCgroup(c)
	}
	deadline := time.Now().Add(freeing)
	for len(loopsOf(cell)) > 0 {
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot free %s: the kernel does not let go of it", strings.Join(loopsOf(cell), ", "))
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := os.RemoveAll(cell); err != nil {
		return fmt.Errorf("cannot clear up: %w", err)
	}
	return nil
}

// removeCgroup removes a cgroup and those below it. What is not empty stays.
func removeCgroup(path string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeCgroup(filepath.Join(path, e.Name()))
		}
	}
	_ = unix.Rmdir(path)
}

// loopsOf are the loop devices whose file is in the folder.
func loopsOf(folder string) []string {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var loops []string
	for _, f := range files {
		if back, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(back), folder+"/") {
			loops = append(loops, "/dev/"+strings.Split(f, "/")[3])
		}
	}
	return loops
}

// removeDead clears up after runs that were killed.
func removeDead(folder string) {
	var left []string
	for _, pattern := range []string{filepath.Join(folder, mark+"*"), "/sys/fs/cgroup/" + mark + "*", "/sys/fs/cgroup/*/" + mark + "*"} {
		found, _ := filepath.Glob(pattern)
		left = append(left, found...)
	}
	for _, path := range left {
		run := filepath.Base(path)
		pid, err := strconv.Atoi(strings.TrimPrefix(run, mark))
		if err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue
		}
		if err := removeCell(filepath.Join(folder, run)); err != nil {
			fmt.Fprintf(os.Stderr, "bench/disk: after run %d: %v\n", pid, err)
		}
	}
}
