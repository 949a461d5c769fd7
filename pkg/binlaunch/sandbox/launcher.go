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
	"sync/atomic"
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
	refills atomic.Bool // one is on its way

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
	if err := os.MkdirAll(filepath.Join(o.State, viewFolder), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the tasks' state folder: %w", err)
	}
	l.etc = newEtc(filepath.Join(o.State, etcFolder), o.HostRoot)
	if l.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	l.ready = make(chan spawned, idle)
	if err := l.knowUIDs(); err != nil {
		return nil, err
	}
	l.refill()
	return l, nil
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
	return errors.Join(l.tree.Remove(), os.RemoveAll(l.etc.folder), os.Remove(filepath.Join(l.o.State, viewFolder)), os.Remove(l.o.State))
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
	at := placesOf(l.o.State, s)
	sp, err := l.call(s.ownPids(), prelude(s, at, l.facts))
	if err != nil {
		return nil, err
	}
	defer l.refill()
	// From here on the keeper works beside what is made here.
	called := time.Now()
	t, err := l.equip(s, state, at, own, sp, begun)
	if err != nil {
		sp.dismiss()
		return nil, errors.Join(err, t.undo(ctx))
	}
	told, err := sp.hear(ctx)
	if err != nil {
		sp.end()
		return nil, errors.Join(err, t.undo(ctx))
	}
	t.record.Phases["boot"] = time.Unix(0, told.Int(plan.KeyMain)).Sub(called)
	t.record.Phases["view"] = time.Duration(told.Int(plan.KeyView))
	t.record.Phases["exec"] = time.Duration(told.Int(plan.KeyExec))
	t.record.Phases["tell"] = time.Since(time.Unix(0, told.Int(plan.KeyAt)))
	t.record.Phases["all"] = time.Since(begun)
	t.take(told)
	l.watch(t, sp.pidfd, sp.pid)
	return t, nil
}

// equip makes what the task needs, and gives it to the keeper. What of a cgroup is
// made is the returned Task's, with an error as well.
func (l *Launcher) equip(s Spec, state string, at places, own uint32, sp spawned, begun time.Time) (*Task, error) {
	t := &Task{l: l, id: s.ID, state: state, dir: s.Dir, uid: own, ownPids: s.ownPids(), done: make(chan struct{})}
	b, err := build(s, at, l.facts, l.tree.V2(), own, l.filter)
	if err != nil {
		return t, err
	}
	if len(b.missing) > 0 && !s.BestEffort {
		return t, fmt.Errorf("this node cannot enforce: %s (best effort would start it all the same)", strings.Join(b.missing, "; "))
	}
	if err := makePlaces(at, b.plan.UID, b.plan.GID); err != nil {
		return t, err
	}
	// A keeper that has ended by now has told why: that is heard later.
	if err := sp.send(&b.plan); err != nil && !errors.Is(err, unix.EPIPE) {
		return t, err
	}
	t.record.Phases = map[string]time.Duration{"prepare": time.Since(begun)}
	mark := time.Now()
	group, refused, err := l.tree.Create(s.ID, b.limits)
	if err != nil {
		return t, err
	}
	t.group = group
	for _, r := range refused {
		if !s.BestEffort {
			return t, r
		}
		b.missing = append(b.missing, r.Error())
	}
	t.record.Enforced = append(b.enforced, enforcedLimits(b.limits, refused)...)
	t.record.NotEnforced = append(b.missing, b.absent...)
	if err := l.give(t, s, sp, mark); err != nil && !errors.Is(err, unix.EPIPE) {
		return t, err
	}
	return t, nil
}

// undo takes the cgroup of a task that did not start away.
func (t *Task) undo(ctx context.Context) error {
	if t.group == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), startWithin)
	defer stop()
	return errors.Join(t.group.Kill(ctx), t.group.Remove(ctx))
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
	return nil
}

// give writes down what the next agent has to know of the task, and gives the
// keeper what it waits for.
func (l *Launcher) give(t *Task, s Spec, sp spawned, mark time.Time) error {
	files, h, err := t.open(s)
	defer closeAll(files)
	if err != nil {
		return err
	}
	id, err := t.group.ID()
	if err != nil {
		return err
	}
	t.record.Phases["cgroup"] = time.Since(mark)
	k := kept{ID: s.ID, BootID: l.facts.bootID, CgroupID: id, Dir: s.Dir, UID: t.uid, OwnPids: t.ownPids, Record: t.record}
	if err := k.write(t.state); err != nil {
		return err
	}
	return sp.send(&h, slices.Insert(files[:len(files):len(files)], plan.Fixed+h.Cgroups, s.Files...)...)
}

// call has a keeper begin a launch. One that waited may have been killed: then
// another one is started.
func (l *Launcher) call(ownPids bool, p *plan.Prelude) (spawned, error) {
	s, err := l.keeper(ownPids)
	if err != nil {
		return s, err
	}
	if err := s.send(p); err == nil {
		return s, nil
	}
	s.dismiss()
	if s, err = l.spawn(ownPids); err != nil {
		return s, err
	}
	if err := s.send(p); err != nil {
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
