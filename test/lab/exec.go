package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// nodeExecCommand is the hidden command that inNode starts on the node and that
// becomes the wanted program.
const nodeExecCommand = "node-exec"

// streams are what a command on a node reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// inNode runs a command among node n's processes: in its namespaces and its
// cgroup. It ends with this process, whatever ends this process.
func inNode(ctx context.Context, p paths, groups cgroups, n int, s streams, args []string) error {
	init, alive := recordedProcess(p.pids(), nodeName(n))
	if !alive {
		return fmt.Errorf("%s is not running: start it with `lab up --nodes N` or `lab node start %d`", nodeName(n), n)
	}
	dir, err := groups.make(nodeSystemCgroup(n))
	if err != nil {
		return err
	}
	group, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot open the cgroup of %s: %w", nodeName(n), err)
	}
	defer group.Close()
	// The lab's own program may lie where the node sees something else.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot open the lab's own program: %w", err)
	}
	defer self.Close()
	result := goInThread(func() error {
		if err := enterNamespaces(init.pid); err != nil {
			return fmt.Errorf("cannot enter %s: %w", nodeName(n), err)
		}
		cmd := exec.Command("/proc/self/fd/3", args...)
		cmd.Args[0] = nodeExecCommand
		cmd.Env = append(os.Environ(), "PATH="+nodePath)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = s.in, s.out, s.err
		cmd.ExtraFiles = []*os.File{self}
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
		return runForwarding(ctx, cmd)
	})
	return <-result
}

// runNodeExec is the hidden command's side: it asks to be killed when the lab
// command ends, and becomes the program. SysProcAttr.Pdeathsig cannot do that:
// it compares parent pids, and across pid namespaces they differ.
func runNodeExec(args []string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("cannot bind its life to the lab command's: %w", err)
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	syscall.CloseOnExec(3)
	return fmt.Errorf("cannot run %s: %w", path, syscall.Exec(path, args, os.Environ()))
}

// goInThread runs f in a thread of its own that ends with it, because its
// namespaces cannot be changed back.
func goInThread(f func() error) <-chan error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		result <- f()
	}()
	return result
}

func enterNamespaces(pid int) error {
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "/"
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// A mount namespace can be entered only by a thread with a root and a
	// working folder of its own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	if err := unix.Setns(fd, all); err != nil {
		return err
	}
	// Stay where the caller is, if the node has that folder.
	if unix.Chdir(cwd) != nil {
		return unix.Chdir("/")
	}
	return nil
}

// runForwarding runs cmd in this thread and hands on the signals that a person
// or a test sends.
func runForwarding(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	ended := make(chan struct{})
	go func() {
		done := ctx.Done()
		for {
			select {
			case <-ended:
				return
			case s := <-signals:
				_ = cmd.Process.Signal(s)
			case <-done:
				_ = cmd.Process.Signal(syscall.SIGTERM)
				done = nil
			}
		}
	}()
	err := cmd.Wait()
	close(ended)
	return err
}

// exitCode is a finished command's, so that the lab can end as it did.
func exitCode(err error) (int, bool) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, false
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal()), true
	}
	return exit.ExitCode(), true
}
