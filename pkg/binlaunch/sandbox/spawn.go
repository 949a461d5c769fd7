package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
	"github.com/nodeagent/nodeagent/pkg/osthread"
)

// spawned is a keeper that waits for its plan.
type spawned struct {
	pid    int
	pidfd  int
	socket int
}

// idle is how many keepers wait for a plan: a launch then costs nothing of a
// program's start. Each holds some 2 MiB.
const idle = 1

// keeper gives one that waits, or starts one.
func (l *Launcher) keeper(ownPids bool) (spawned, error) {
	if ownPids {
		select {
		case s := <-l.ready:
			return s, nil
		default:
		}
	}
	return l.spawn(ownPids)
}

// refillAfter is how long the program that has just been started has the
// processors, and the kernel's locks on memory, before the next keeper takes its
// part of them.
const refillAfter = 5 * time.Millisecond

// refill starts a keeper for the next launch, a moment later.
func (l *Launcher) refill() {
	if !l.refills.CompareAndSwap(false, true) {
		return
	}
	l.tasks.Go(func() {
		defer l.refills.Store(false)
		select {
		case <-time.After(refillAfter):
		case <-l.stop.Done():
			return
		}
		if len(l.ready) >= idle {
			return
		}
		s, err := l.spawn(true)
		if err != nil {
			return // the next launch says why
		}
		select {
		case l.ready <- s:
		default:
			s.dismiss()
		}
	})
}

// dismiss ends a keeper that was not heard yet.
func (s spawned) dismiss() {
	_ = unix.Close(s.socket)
	s.end()
}

// end ends a keeper that has started no task.
func (s spawned) end() {
	_ = unix.Kill(s.pid, unix.SIGKILL)
	reap(s.pid)
	_ = unix.Close(s.pidfd)
}

// spawn starts a keeper in the keepers' cgroup and the host's namespaces.
func (l *Launcher) spawn(ownPids bool) (spawned, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return spawned{}, fmt.Errorf("cannot talk to the keeper: %w", err)
	}
	defer unix.Close(pair[1])
	null := l.null.Fd()
	pidfd := -1
	attr := &syscall.ProcAttr{
		// One processor is enough for what a keeper does, and holds less. It
		// collects no garbage before there is some to speak of: the runtime alone
		// takes 4 MiB of the limit, and at it every few allocations are a
		// collection. It does not ask its cgroup how many processors it may use.
		Env:   []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=6MiB", "GOTRACEBACK=none", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"},
		Files: []uintptr{null, null, null, uintptr(pair[1])}, Dir: "/",
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	}
	if ownPids {
		attr.Sys.Cloneflags = unix.CLONE_NEWPID
	}
	s := spawned{socket: pair[0]}
	err = osthread.Run(func() error {
		if err := l.o.Namespaces.enter(); err != nil {
			return err
		}
		var err error
		s.pid, err = l.keepers.Start(l.o.Keeper, []string{"nodeagent-keeper"}, attr)
		return err
	})
	if err != nil {
		return s, errors.Join(fmt.Errorf("cannot start the keeper: %w", err), unix.Close(pair[0]))
	}
	s.pidfd = pidfd
	return s, nil
}

// send gives the keeper one part of its plan, and the descriptors that belong to
// it.
func (s spawned) send(p plan.Part, files ...*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		n, err := number(f)
		if err != nil {
			return fmt.Errorf("cannot pass %s on: %w", f.Name(), err)
		}
		fds[i] = int(n)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	raw := plan.Encode(p)
	raw = append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(raw)), uint32(len(raw))), raw...)
	for len(raw) > 0 {
		// The keeper takes descriptors with the first bytes; MSG_NOSIGNAL, for it
		// may have been killed while it waited.
		n, err := unix.SendmsgN(s.socket, raw, rights, nil, unix.MSG_NOSIGNAL)
		if err != nil {
			return fmt.Errorf("cannot hand the plan over: %w", err)
		}
		raw, rights = raw[n:], nil
	}
	return nil
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

// hear waits for what the keeper tells of the launch. The socket is closed then.
func (s spawned) hear(ctx context.Context) (plan.Told, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	_ = unix.SetNonblock(s.socket, true)
	socket := os.NewFile(uintptr(s.socket), "keeper")
	defer socket.Close()
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		_ = unix.Kill(s.pid, unix.SIGKILL)
	})
	defer func() {
		if !stop() {
			<-killed // once it is reaped the number may be another's
		}
	}()
	raw, err := io.ReadAll(socket)
	told := plan.Parse(raw)
	// First, for one that ends with descriptors unread leaves an error behind its
	// last words.
	if reason := told[plan.KeyError]; reason != "" {
		return nil, errors.New(reason)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("cannot wait for the task's start: %w", ctx.Err())
	}
	if err != nil {
		return nil, fmt.Errorf("cannot hear of the keeper: %w", err)
	}
	if told[plan.KeyTask] == "" {
		return nil, errors.New("the keeper ended before it told of the task")
	}
	return told, nil
}
