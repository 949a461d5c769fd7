package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// spawned is a keeper that was started and has not told anything yet.
type spawned struct {
	pid    int
	pidfd  int
	status *os.File
}

// spawn starts a keeper with the plan, in the keepers' cgroup and the host's
// namespaces. files are the descriptors from plan.State on.
func (l *Launcher) spawn(p *plan.Plan, files []*os.File) (spawned, error) {
	input, err := memory("plan", p.Encode())
	if err != nil {
		return spawned{}, fmt.Errorf("cannot hand the plan over: %w", err)
	}
	defer input.Close() //nolint:errcheck // in memory
	read, write, err := os.Pipe()
	if err != nil {
		return spawned{}, fmt.Errorf("cannot hear of the keeper: %w", err)
	}
	defer write.Close() //nolint:errcheck // the keeper has its own
	all := append([]*os.File{l.null, write, l.null, input}, files...)
	fds := make([]uintptr, len(all))
	for i, f := range all {
		if fds[i], err = number(f); err != nil {
			return spawned{}, errors.Join(fmt.Errorf("cannot pass %s on: %w", f.Name(), err), read.Close())
		}
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		// One processor is enough for what a keeper does, and holds less.
		Env: []string{"GOMAXPROCS=1", "GOGC=20", "GOTRACEBACK=none"}, Files: fds, Dir: "/",
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	}
	if p.OwnPids {
		attr.Sys.Cloneflags = unix.CLONE_NEWPID
	}
	if l.tree.V2() {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(l.keepers[0].Fd())
	}
	s := spawned{status: read}
	err = onThread(func() error {
		if err := l.o.Namespaces.enter(); err != nil {
			return err
		}
		if !l.tree.V2() {
			for _, tasks := range l.keepers {
				if _, err := unix.Write(int(tasks.Fd()), []byte("0")); err != nil {
					return fmt.Errorf("cannot join the keepers' cgroup: %w", err)
				}
			}
		}
		var err error
		s.pid, err = syscall.ForkExec(l.o.Keeper, []string{"nodeagent-keeper"}, attr)
		return err
	})
	if err != nil {
		return s, errors.Join(fmt.Errorf("cannot start the keeper: %w", err), read.Close())
	}
	s.pidfd = pidfd
	return s, nil
}

// number is a file's descriptor. Unlike Fd it leaves the file as it is: a
// passed socket must not be made blocking for whoever else has it.
func number(f *os.File) (fd uintptr, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	return fd, raw.Control(func(n uintptr) { fd = n })
}

// memory is an unnamed file that holds b.
func memory(name string, b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// hear waits for what the keeper tells of the launch.
func (s spawned) hear(ctx context.Context) (plan.Told, error) {
	defer s.status.Close() //nolint:errcheck // it was only read
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(s.pid, unix.SIGKILL) })
	defer stop()
	raw, err := io.ReadAll(s.status)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("cannot wait for the task's start: %w", ctx.Err())
	}
	if err != nil {
		return nil, fmt.Errorf("cannot hear of the keeper: %w", err)
	}
	told := plan.Parse(raw)
	if reason := told[plan.KeyError]; reason != "" {
		return nil, errors.New(reason)
	}
	if told[plan.KeyTask] == "" {
		return nil, errors.New("the keeper ended before it told of the task")
	}
	return told, nil
}
