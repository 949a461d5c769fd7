package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/cgroup"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// Attach finds what earlier agents started and nobody has forgotten: tasks that
// run, and tasks that ended meanwhile. What an agent died over before there was
// a task is cleaned away. Some 50 µs for each task.
//
// A task is known by the boot's id and its cgroup's id, its keeper by the lock
// that it holds and by its start time; never by a pid alone.
func (l *Launcher) Attach(ctx context.Context) ([]*Task, error) {
	entries, err := os.ReadDir(l.o.State)
	if err != nil {
		return nil, fmt.Errorf("cannot read the tasks' state: %w", err)
	}
	var tasks []*Task
	var errs error
	for _, e := range entries {
		if shared(e.Name()) {
			continue
		}
		t, err := l.attach(ctx, filepath.Join(l.o.State, e.Name()), e.Name())
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("cannot attach to %s: %w", e.Name(), err))
		}
		if t != nil {
			tasks = append(tasks, t)
		}
	}
	return tasks, errors.Join(errs, l.sweep(ctx, entries))
}

// sweepWithin is how long one group may take to go.
const sweepWithin = 2 * time.Second

// found is what a state folder says.
type found struct {
	kept    kept
	isKept  bool
	boot    string // this one
	locked  bool   // a keeper lives
	started plan.Told
	exit    plan.Told
	cgroup  uint64 // 0: there is none
}

// finding is what it means.
type finding int

const (
	nothing finding = iota // never became a task, or is of another boot
	running
	over  // its end is written down
	gone  // its keeper was killed
	early // its keeper is about to tell
)

// judge is pure.
func judge(f found) finding {
	switch {
	case !f.isKept, f.kept.BootID != f.boot:
		return nothing
	case f.exit != nil:
		return over
	case f.locked && f.started == nil:
		return early
	case f.locked && f.cgroup == f.kept.CgroupID:
		return running
	case f.started != nil:
		return gone
	default:
		return nothing
	}
}

func (l *Launcher) attach(ctx context.Context, state, id string) (*Task, error) {
	t := &Task{l: l, id: id, state: state, done: make(chan struct{})}
	for {
		f, err := l.findings(t)
		if err != nil {
			return nil, err
		}
		t.dir, t.uid, t.ownPids, t.record = f.kept.Dir, f.kept.UID, f.kept.OwnPids, f.kept.Record
		switch judge(f) {
		case early:
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Millisecond):
			}
			continue
		case nothing:
			return nil, l.clean(ctx, t)
		case running:
			t.take(f.started)
			l.follow(t, f.started)
			return t, nil
		default:
			t.take(f.started)
			t.ended()
			return t, nil
		}
	}
}

// findings reads one state folder. The lock is read before what the keeper
// wrote: a keeper that lets it go has written all.
func (l *Launcher) findings(t *Task) (f found, err error) {
	f.boot = l.facts.bootID
	f.kept, err = readKept(t.state)
	f.isKept = err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if f.locked, err = locked(filepath.Join(t.state, plan.LockFile)); err != nil {
		return f, err
	}
	if f.started, err = told(t.state, plan.StartedFile); err != nil {
		return f, err
	}
	if f.exit, err = told(t.state, plan.ExitFile); err != nil {
		return f, err
	}
	if t.group, err = l.tree.Load(t.id); err == nil {
		f.cgroup, err = t.group.ID()
	}
	if errors.Is(err, fs.ErrNotExist) {
		t.group, err = l.tree.None(t.id), nil
	}
	return f, err
}

// locked tells whether somebody holds the lock.
func locked(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// follow watches a keeper that somebody else started.
func (l *Launcher) follow(t *Task, started plan.Told) {
	pid := int(started.Int(plan.KeyKeeper))
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil || startTime(pid) != started[plan.KeyStart] {
		if err == nil {
			_ = unix.Close(fd)
		}
		// It ended since its lock was looked at.
		t.ended()
		return
	}
	child := 0
	if parentIsSelf(pid) {
		child = pid
	}
	l.watch(t, fd, child)
}

// parentIsSelf: an agent that executed itself anew has its keepers as children.
func parentIsSelf(pid int) bool {
	err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil
}

// clean removes what never became a task.
func (l *Launcher) clean(ctx context.Context, t *Task) error {
	if err := errors.Join(t.group.Kill(ctx), t.group.Remove(ctx)); err != nil {
		return err
	}
	l.giveUID(t.uid)
	return os.RemoveAll(t.state)
}

// sweep ends groups that have no state folder: nobody can know them. One that
// does not go, such as one in which somebody else has made groups, is told of
// and left: it must not keep all tasks from being known again.
func (l *Launcher) sweep(ctx context.Context, entries []os.DirEntry) error {
	names, err := l.tree.Names()
	if err != nil {
		return err
	}
	known := map[string]bool{keepersGroup: true}
	for _, e := range entries {
		known[e.Name()] = true
	}
	for _, n := range names {
		if known[n] {
			continue
		}
		if _, err := os.Stat(filepath.Join(l.o.State, n)); err == nil {
			continue // it was just launched
		}
		g, err := l.tree.Load(n)
		if err != nil {
			continue
		}
		if err := l.sweepOne(ctx, g); err != nil {
			l.o.Log.Warn("a cgroup below the tasks' parent is nobody's task and cannot be removed; it is left", "cgroup", n, "err", err)
		}
	}
	return ctx.Err()
}

// sweepOne gives up in time: tasks wait for it.
func (l *Launcher) sweepOne(ctx context.Context, g *cgroup.Group) error {
	ctx, stop := context.WithTimeout(ctx, sweepWithin)
	defer stop()
	return errors.Join(g.Kill(ctx), g.Remove(ctx))
}
