package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/cgroup"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// Task is one process with all its children. Its methods may be called by
// several goroutines.
type Task struct {
	l       *Launcher
	id      string
	state   string
	dir     string
	uid     uint32
	ownPids bool
	group   *cgroup.Group
	record  Record
	pid     int
	start   string // start time of pid
	started time.Time

	done chan struct{} // closed when exit is known
	exit Exit
}

// ID is the Spec's.
func (t *Task) ID() string { return t.id }

// Pid is its process's number on the host. The number may mean somebody else
// after the task's end.
func (t *Task) Pid() int { return t.pid }

// Started is when its program began.
func (t *Task) Started() time.Time { return t.started }

// Record is that of its launch.
func (t *Task) Record() Record { return t.record }

// Done is closed when the task has ended.
func (t *Task) Done() <-chan struct{} { return t.done }

// take notes what the keeper told of the start.
func (t *Task) take(told plan.Told) {
	t.pid, t.start = int(told.Int(plan.KeyTask)), told[plan.KeyTStart]
	t.started = time.Unix(0, told.Int(plan.KeyAt))
}

// open gives the descriptors for a keeper, but for the Spec's own, and says which
// they are. The caller closes them.
func (t *Task) open(s Spec) (files []*os.File, h plan.Handed, err error) {
	add := func(f *os.File, e error) {
		if e == nil {
			files = append(files, f)
		}
		err = errors.Join(err, e)
	}
	const folder = unix.O_DIRECTORY | unix.O_RDONLY
	add(os.OpenFile(t.state, folder, 0))
	add(os.OpenFile(s.Dir+".output", folder, 0))
	add(os.OpenFile(s.Dir, folder, 0))
	lock, e := os.OpenFile(filepath.Join(t.state, plan.LockFile), os.O_CREATE|os.O_RDWR, 0o600)
	add(lock, e)
	if err != nil {
		return files, h, err
	}
	// The keeper has the same open file, so the lock is held until it ends.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return files, h, fmt.Errorf("cannot lock the task's state: %w", err)
	}
	entrances, err := t.group.Entrances()
	if err != nil {
		return files, h, err
	}
	h.Cgroups = len(entrances)
	files = append(files, entrances...)
	oom, err := t.group.OOMEvents()
	if err != nil {
		return files, h, err
	}
	if h.OOMEvents = oom != nil; h.OOMEvents {
		files = append(files, oom)
	}
	if s.Resources.Disk == 0 {
		return files, h, nil
	}
	// It tells a keeper that has to look at the task's disk whether the task has
	// run at all.
	usage, err := t.group.CPUUsage()
	if err != nil {
		return files, h, err
	}
	if h.CPUUsage = usage != nil; h.CPUUsage {
		files = append(files, usage)
	}
	return files, h, nil
}

// Wait returns how the task ended, as soon as it has.
func (t *Task) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-t.done:
		return t.exit, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// ErrEnded tells that a task has ended already.
var ErrEnded = errors.New("the task has ended")

// Signal sends a signal to the task's first process.
func (t *Task) Signal(sig unix.Signal) error {
	select {
	case <-t.done:
		return ErrEnded
	default:
	}
	fd, err := unix.PidfdOpen(t.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrEnded
	}
	if err != nil {
		return fmt.Errorf("cannot signal %s: %w", t.id, err)
	}
	defer unix.Close(fd)
	// The descriptor holds whoever has the number now: is it the task?
	if startTime(t.pid) != t.start {
		return ErrEnded
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); errors.Is(err, unix.ESRCH) {
		return ErrEnded
	} else if err != nil {
		return fmt.Errorf("cannot signal %s: %w", t.id, err)
	}
	return nil
}

// Stop ends the task: SIGTERM to its first process, grace, then SIGKILL to the
// whole cgroup. It returns nil only when the kernel says that the cgroup is
// empty and the end is written down.
func (t *Task) Stop(ctx context.Context, grace time.Duration) error {
	if err := t.Signal(unix.SIGTERM); err == nil {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-t.done:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	} else if !errors.Is(err, ErrEnded) {
		return err
	}
	if err := t.group.Kill(ctx); err != nil {
		return err
	}
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot wait for the end of %s: %w", t.id, ctx.Err())
	}
}

// Stats is what the kernel has counted so far, while the task runs and after
// its end until Forget.
func (t *Task) Stats() (cgroup.Stats, error) {
	if _, err := t.group.ID(); err != nil {
		return cgroup.Stats{}, err
	}
	return t.group.Stats(), nil
}

// Output opens what the task wrote, oldest first. With follow, reading waits
// for more until the task has ended.
func (t *Task) Output(follow bool) (io.ReadCloser, error) {
	return openOutput(t.dir+".output", follow, t.done)
}

// Forget removes what is left of a task that ended: cgroup, sandbox, output,
// state.
func (t *Task) Forget(ctx context.Context) error {
	select {
	case <-t.done:
	default:
		return fmt.Errorf("cannot forget %s: it runs", t.id)
	}
	if err := errors.Join(t.group.Kill(ctx), t.group.Remove(ctx)); err != nil {
		return err
	}
	for _, dir := range []string{t.dir, t.dir + ".work", t.dir + ".output", t.state} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("cannot remove what is left of %s: %w", t.id, err)
		}
	}
	t.l.giveUID(t.uid)
	return nil
}

// startTime is when a process began, in clock ticks since boot; "" if there is
// none.
func startTime(pid int) string {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	const field = 22 - 3
	if fields := strings.Fields(after); len(fields) > field {
		return fields[field]
	}
	return ""
}
