package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group is one task's cgroup.
type Group struct {
	tree *Tree
	name string
	in   []string // controllers it has a folder in (v1)
}

// NotEnforcedError names a limit that this node cannot keep.
type NotEnforcedError struct {
	Limit string
	Err   error
}

func (e *NotEnforcedError) Error() string {
	return fmt.Sprintf("cannot enforce %s on this node: %v", e.Limit, e.Err)
}

// Unwrap returns the kernel's reason.
func (e *NotEnforcedError) Unwrap() error { return e.Err }

// Create makes a group with its limits written. It returns those that could
// not be; the caller decides what that means. On any other failure nothing is
// left of the group.
func (t *Tree) Create(name string, l Limits) (*Group, []*NotEnforcedError, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\n") {
		return nil, nil, fmt.Errorf("cannot name a cgroup %q", name)
	}
	ws := writes(t.v2, l)
	g := &Group{tree: t, name: name, in: t.wanted(ws)}
	for _, dir := range g.folders() {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("cannot make a cgroup: %w", err), g.Remove(context.Background()))
		}
	}
	if !t.v2 && slices.Contains(g.in, "cpuset") {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := copyDown(t.folder("cpuset", ""), t.folder("cpuset", name), file); err != nil {
				return nil, nil, errors.Join(fmt.Errorf("cannot fill in the cgroup's cores: %w", err), g.Remove(context.Background()))
			}
		}
	}
	var missing []*NotEnforcedError
	for _, w := range ws {
		err := g.put(w)
		if err == nil || w.value == "" || (w.optional && errors.Is(err, fs.ErrNotExist)) {
			continue
		}
		missing = append(missing, &NotEnforcedError{w.what, err})
	}
	return g, missing, nil
}

// wanted are the controllers that a group joins: those for counting and ending
// always, cpuset and blkio when a limit asks.
func (t *Tree) wanted(ws []write) []string {
	return slices.DeleteFunc(slices.Clone(t.controllers), func(c string) bool {
		return !t.v2 && (c == "cpuset" || c == "blkio") && !slices.ContainsFunc(ws, func(w write) bool { return w.controller == c })
	})
}

func (g *Group) put(w write) error {
	if w.value == "" {
		return nil
	}
	if !slices.Contains(g.tree.controllers, w.controller) {
		return fmt.Errorf("the kernel has no cgroup controller %s here", w.controller)
	}
	return os.WriteFile(filepath.Join(g.tree.folder(w.controller, g.name), w.file), []byte(w.value), 0)
}

// Load finds a group made before.
func (t *Tree) Load(name string) (*Group, error) {
	g := &Group{tree: t, name: name}
	for _, c := range t.controllers {
		if _, err := os.Stat(t.folder(c, name)); err == nil {
			g.in = append(g.in, c)
		}
	}
	if len(g.in) == 0 {
		return nil, fmt.Errorf("cannot find the cgroup %s: %w", name, fs.ErrNotExist)
	}
	return g, nil
}

func (g *Group) folders() (all []string) {
	if g.tree.v2 {
		return g.tree.folders(g.name)
	}
	for _, c := range g.in {
		all = append(all, g.tree.folder(c, g.name))
	}
	return all
}

// path is a control file; "" when the group is not in that controller.
func (g *Group) path(controller, file string) string {
	return filepath.Join(g.tree.folder(controller, g.name), file)
}

// main is the controller that tells who is in the group.
func (g *Group) main() string {
	if slices.Contains(g.in, "freezer") {
		return "freezer"
	}
	return g.in[0]
}

// ID is the kernel's number of the group: with the boot's id it names one group
// for ever.
func (g *Group) ID() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(g.path(g.main(), ""), &st); err != nil {
		return 0, fmt.Errorf("cannot identify the cgroup %s: %w", g.name, err)
	}
	return st.Ino, nil
}

// Entrances are what a process needs to be born in the group: on v2 its folder,
// for CLONE_INTO_CGROUP; on v1 the tasks files that the cloning thread writes
// "0" to. The caller closes them.
func (g *Group) Entrances() ([]*os.File, error) {
	flags, file := os.O_WRONLY, "tasks"
	if g.tree.v2 {
		flags, file = unix.O_DIRECTORY|unix.O_PATH, ""
	}
	var all []*os.File
	for _, dir := range g.folders() {
		f, err := os.OpenFile(filepath.Join(dir, file), flags, 0)
		if err != nil {
			for _, f := range all {
				_ = f.Close()
			}
			return nil, fmt.Errorf("cannot open the cgroup %s: %w", g.name, err)
		}
		all = append(all, f)
	}
	return all, nil
}

// OOMEvents tells of memory that ran out on v1, where nothing ends the whole
// group by itself: an eventfd. On v2 it is nil.
func (g *Group) OOMEvents() (*os.File, error) {
	if g.tree.v2 || !slices.Contains(g.in, "memory") {
		return nil, nil
	}
	control, err := os.Open(g.path("memory", "memory.oom_control"))
	if err != nil {
		return nil, fmt.Errorf("cannot watch the cgroup's memory: %w", err)
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot watch the cgroup's memory: %w", err)
	}
	event := os.NewFile(uintptr(fd), "oom")
	line := fmt.Sprintf("%d %d", fd, control.Fd())
	if err := os.WriteFile(g.path("memory", "cgroup.event_control"), []byte(line), 0); err != nil {
		_ = event.Close()
		return nil, fmt.Errorf("cannot watch the cgroup's memory: %w", err)
	}
	return event, nil
}

// Procs are the processes in it, as this process's pid namespace numbers them.
func (g *Group) Procs() ([]int, error) {
	raw, err := os.ReadFile(g.path(g.main(), "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read who is in the cgroup %s: %w", g.name, err)
	}
	var pids []int
	for s := range strings.FieldsSeq(string(raw)) {
		if n, err := strconv.Atoi(s); err == nil {
			pids = append(pids, n)
		}
	}
	return pids, nil
}

// Kill ends all that is in the group, and returns nil only when the kernel says
// that it is empty.
func (g *Group) Kill(ctx context.Context) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		pids, err := g.Procs()
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := g.killOnce(pids); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot empty the cgroup %s: %d processes do not end: %w", g.name, len(pids), ctx.Err())
		case <-time.After(pause):
		}
	}
}

func (g *Group) killOnce(pids []int) error {
	if g.tree.v2 {
		err := os.WriteFile(g.path("", "cgroup.kill"), []byte("1"), 0)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Before Linux 5.14.
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return nil
	}
	// Frozen, none can fork while the list is gone through, and no number can
	// come to mean somebody else.
	freezer := slices.Contains(g.in, "freezer")
	if freezer {
		_ = os.WriteFile(g.path("freezer", "freezer.state"), []byte("FROZEN"), 0)
		if again, err := g.Procs(); err == nil {
			pids = again
		}
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	if freezer {
		return os.WriteFile(g.path("freezer", "freezer.state"), []byte("THAWED"), 0)
	}
	return nil
}

// Remove takes an empty group away. A group that is gone is no error.
func (g *Group) Remove(ctx context.Context) error {
	for _, dir := range g.folders() {
		if err := remove(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// remove tries for some five seconds: the kernel is not done with processes that
// have just ended, on a busy node not for long.
func remove(ctx context.Context, dir string) error {
	for pause, tries := time.Millisecond, 0; ; pause, tries = min(2*pause, 50*time.Millisecond), tries+1 {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || tries == 100 {
			return fmt.Errorf("cannot remove the cgroup %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot remove the cgroup %s: %w", dir, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// None stands for a group that is gone: it is empty, and counts nothing.
func (t *Tree) None(name string) *Group { return &Group{tree: t, name: name, in: t.controllers[:1]} }
