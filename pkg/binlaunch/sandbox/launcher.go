package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/cgroup"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// Options of a Launcher.
type Options struct {
	State           string     // folder in memory, /run/nodeagent/tasks
	CgroupRoot      string     // "": /sys/fs/cgroup
	CgroupParent    string     // "": cgroup.Parent
	Keeper          string     // the keeper program, a path that can be executed (package keeper/binary)
	HostRoot        string     // where the host's root is seen here; "": /
	Namespaces      Namespaces // the host's, if they are not the agent's own
	AllowPrivileged bool
	FirstUID        uint32 // of the tasks' own; 0: 1879048192, past what systemd and containers use
	Log             *slog.Logger
}

const (
	defaultFirstUID = 1879048192
	// keepersGroup is the keepers' cgroup: no task's id has such a character.
	keepersGroup = "@keepers"
	// A start takes milliseconds. One that does not come to an end is stuck in
	// the kernel.
	startWithin = 20 * time.Second
)

// Launcher starts tasks and finds those that run.
type Launcher struct {
	o       Options
	facts   facts
	tree    *cgroup.Tree
	filter  []byte
	etc     *etc
	null    *os.File
	ready   chan spawned // keepers that wait
	keepers *cgroup.Aside

	mu    sync.Mutex
	uids  map[uint32]bool
	tasks sync.WaitGroup
	stop  context.Context
	end   context.CancelFunc
}

// New looks at the host and makes the folders and cgroups that all tasks share.
func New(o Options) (*Launcher, error) {
	o = o.defaulted()
	if err := o.Namespaces.check(); err != nil {
		return nil, err
	}
	l := &Launcher{o: o, facts: look(o.HostRoot), uids: map[uint32]bool{}}
	l.stop, l.end = context.WithCancel(context.Background())
	var err error
	if l.filter, err = filter(); err != nil {
		return nil, err
	}
	if l.tree, err = cgroup.Open(o.CgroupRoot, o.CgroupParent); err != nil {
		return nil, err
	}
	if l.keepers, err = l.tree.Aside(keepersGroup); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.State, 0o711); err != nil {
		return nil, fmt.Errorf("cannot make the tasks' state folder: %w", err)
	}
	l.etc = newEtc(filepath.Join(o.State, etcFolder), o.HostRoot)
	if l.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	l.ready = make(chan spawned, idle)
	return l, l.knowUIDs()
}

func (o Options) defaulted() Options {
	if o.CgroupRoot == "" {
		o.CgroupRoot = "/sys/fs/cgroup"
	}
	if o.HostRoot == "" {
		o.HostRoot = "/"
	}
	if o.CgroupParent == "" {
		o.CgroupParent = cgroup.Parent
	}
	if o.FirstUID == 0 {
		o.FirstUID = defaultFirstUID
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Close ends what the launcher itself does. The tasks run on.
func (l *Launcher) Close() error {
	l.end()
	l.tasks.Wait()
	for len(l.ready) > 0 {
		s := <-l.ready
		s.dismiss()
	}
	return errors.Join(l.null.Close(), l.keepers.Close())
}

// Remove takes away what all tasks share, when none is left and the launcher is
// closed: cgroups and folders. It refuses while there are tasks.
func (l *Launcher) Remove(ctx context.Context) error {
	if err := l.keepers.Remove(ctx); err != nil {
		return err
	}
	return errors.Join(l.tree.Remove(), os.RemoveAll(l.etc.folder), os.Remove(l.o.State))
}

// Start starts a task. It returns when the task's program runs, or why it does
// not; then nothing is left of it but its sandbox folder. It costs a few
// milliseconds.
func (l *Launcher) Start(ctx context.Context, s Spec) (*Task, Record, error) {
	begun := time.Now()
	s = s.defaulted()
	if err := s.validate(l.o.AllowPrivileged); err != nil {
		return nil, Record{}, fmt.Errorf("cannot launch %s: %w", s.ID, err)
	}
	state := filepath.Join(l.o.State, s.ID)
	if err := os.Mkdir(state, 0o700); err != nil {
		return nil, Record{}, fmt.Errorf("cannot launch %s a second time: %w", s.ID, err)
	}
	own := l.takeUID()
	t, err := l.start(ctx, s, state, own, begun)
	if err != nil {
		l.giveUID(own)
		return nil, Record{}, fmt.Errorf("cannot launch %s: %w", s.ID, errors.Join(err, os.RemoveAll(state)))
	}
	return t, t.record, nil
}

func (l *Launcher) start(ctx context.Context, s Spec, state string, own uint32, begun time.Time) (*Task, error) {
	if err := l.etc.refresh(l.facts.host); err != nil {
		return nil, err
	}
	at := placesOf(state, l.etc.folder, s)
	b, err := build(s, at, l.facts, l.tree.V2(), own, l.filter)
	if err != nil {
		return nil, err
	}
	if len(b.missing) > 0 && !s.BestEffort {
		return nil, fmt.Errorf("this node cannot enforce: %s (best effort would start it all the same)", strings.Join(b.missing, "; "))
	}
	if err := makePlaces(at, b.plan.UID, b.plan.GID); err != nil {
		return nil, err
	}
	record := Record{Phases: map[string]time.Duration{"prepare": time.Since(begun)}}
	mark := time.Now()
	group, refused, err := l.tree.Create(s.ID, b.limits)
	if err != nil {
		return nil, err
	}
	t := &Task{l: l, id: s.ID, state: state, group: group, dir: s.Dir, uid: own, ownPids: b.plan.OwnPids, done: make(chan struct{})}
	undo := func(err error) (*Task, error) {
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), startWithin)
		defer stop()
		return nil, errors.Join(err, group.Kill(ctx), group.Remove(ctx))
	}
	for _, r := range refused {
		if !s.BestEffort {
			return undo(r)
		}
		b.missing = append(b.missing, r.Error())
	}
	record.Enforced = append(b.enforced, enforcedLimits(b.limits, refused)...)
	record.NotEnforced = append(b.missing, b.absent...)
	record.Phases["cgroup"] = time.Since(mark)
	t.record = record
	if err := l.run(ctx, t, s, &b.plan, begun); err != nil {
		return undo(err)
	}
	return t, nil
}

// enforcedLimits names the cgroup's limits that hold.
func enforcedLimits(limits cgroup.Limits, refused []*cgroup.NotEnforcedError) (names []string) {
	not := map[string]bool{}
	for _, r := range refused {
		not[r.Limit] = true
	}
	for _, x := range []struct {
		name string
		set  bool
	}{
		{"cpu", limits.CPU > 0},
		{"memory", limits.Memory > 0},
		{"memory oom group", limits.Together},
		{"pids", limits.Pids > 0},
		{"cpuset cpus", limits.CPUs != ""},
		{"cpuset mems", limits.Mems != ""},
	} {
		if x.set && !not[x.name] {
			names = append(names, x.name)
		}
	}
	for _, d := range limits.IO {
		if name := "io " + d.Device; !not[name] {
			names = append(names, name)
		}
	}
	return names
}

// makePlaces makes the folders of one task.
func makePlaces(at places, uid, gid uint32) error {
	for _, dir := range []string{at.sandbox, at.work, at.sandbox + ".output"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cannot make the task's folder: %w", err)
		}
	}
	if err := os.Chmod(at.sandbox+".output", 0o700); err != nil {
		return fmt.Errorf("cannot close the folder of the task's output: %w", err)
	}
	if err := os.Chown(at.sandbox, int(uid), int(gid)); err != nil {
		return fmt.Errorf("cannot give the sandbox folder to the task: %w", err)
	}
	return os.Mkdir(at.view, 0o700)
}

// run starts the keeper and waits until the task's program runs.
func (l *Launcher) run(ctx context.Context, t *Task, s Spec, p *plan.Plan, begun time.Time) error {
	mark := time.Now()
	files, err := t.open(p, s)
	defer closeAll(files)
	if err != nil {
		return err
	}
	oom, err := t.oomEvents(p)
	defer closeAll(oom)
	if err != nil {
		return err
	}
	usage, err := t.cpuUsage(p)
	defer closeAll(usage)
	if err != nil {
		return err
	}
	id, err := t.group.ID()
	if err != nil {
		return err
	}
	k := kept{ID: s.ID, BootID: l.facts.bootID, CgroupID: id, Dir: s.Dir, UID: t.uid, OwnPids: p.OwnPids, Record: t.record}
	if err := k.write(t.state); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, startWithin)
	defer stop()
	sp, err := l.hand(p, slices.Concat(files, s.Files, oom, usage))
	if err != nil {
		return err
	}
	defer l.refill()
	spawnedAt := time.Now()
	t.record.Phases["keeper"] = spawnedAt.Sub(mark)
	told, err := sp.hear(ctx)
	if err != nil {
		_ = unix.Kill(sp.pid, unix.SIGKILL)
		reap(sp.pid)
		return errors.Join(err, unix.Close(sp.pidfd))
	}
	t.record.Phases["boot"] = time.Unix(0, told.Int(plan.KeyMain)).Sub(spawnedAt)
	t.record.Phases["tell"] = time.Since(time.Unix(0, told.Int(plan.KeyAt)))
	t.record.Phases["view"] = time.Duration(told.Int(plan.KeyView))
	t.record.Phases["exec"] = time.Duration(told.Int(plan.KeyExec))
	t.record.Phases["all"] = time.Since(begun)
	t.take(told)
	l.watch(t, sp.pidfd, sp.pid)
	return nil
}

// hand gives the plan to a keeper. One that waited may have been killed: then
// another one is started.
func (l *Launcher) hand(p *plan.Plan, files []*os.File) (spawned, error) {
	s, err := l.keeper(p.OwnPids)
	if err != nil {
		return s, err
	}
	if err := s.send(p, files); err == nil {
		return s, nil
	}
	_ = unix.Kill(s.pid, unix.SIGKILL)
	s.dismiss()
	if s, err = l.spawn(p.OwnPids); err != nil {
		return s, err
	}
	if err := s.send(p, files); err != nil {
		s.dismiss()
		return s, err
	}
	return s, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// reap takes the keeper's exit code off the kernel's hands, if it is a child.
func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
