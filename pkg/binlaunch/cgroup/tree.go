package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree is where this node's tasks have their cgroups.
type Tree struct {
	root        string // the cgroup file system, /sys/fs/cgroup
	parent      string // our folder in it
	v2          bool
	controllers []string // that the kernel has here and that we use
	hierarchies []string // v1: all folders of root that are a tree of cgroups
}

// used are the controllers whose limits or counters are ours. On v1 cpuset and
// blkio are joined only when a limit asks for them.
func used(v2 bool) []string {
	if v2 {
		return []string{"cpu", "memory", "pids", "io", "cpuset"}
	}
	return []string{"cpu", "cpuacct", "memory", "pids", "freezer", "cpuset", "blkio"}
}

// Parent is the folder at the root of a node's cgroups. It must be no name of a
// systemd unit: one that systemd starts (nodeagent.slice, because somebody puts
// a service into it) it takes as its own, and takes the controllers away from
// what is below. Other folders at the root, as the kubelet's cgroupfs driver
// makes one, it leaves alone (sandbox, TestUnderSystemd).
const Parent = "nodeagent"

// Open finds the cgroups at root and makes the folder parent in it.
func Open(root, parent string) (*Tree, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, fmt.Errorf("cannot look at the cgroups in %s: %w", root, err)
	}
	t := &Tree{root: root, parent: parent, v2: st.Type == unix.CGROUP2_SUPER_MAGIC}
	if err := t.find(); err != nil {
		return nil, err
	}
	for _, dir := range t.folders("") {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("cannot make the tasks' cgroup: %w", err)
		}
	}
	if t.v2 {
		return t, t.enable()
	}
	return t, t.inheritCPUs()
}

// V2 tells whether all controllers are in one tree.
func (t *Tree) V2() bool { return t.v2 }

func (t *Tree) find() error {
	if t.v2 {
		raw, err := os.ReadFile(filepath.Join(t.root, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("cannot read the cgroup controllers: %w", err)
		}
		has := strings.Fields(string(raw))
		t.controllers = slices.DeleteFunc(used(true), func(c string) bool { return !slices.Contains(has, c) })
	} else {
		all, err := filepath.Glob(filepath.Join(t.root, "*", "cgroup.procs"))
		if err != nil {
			return fmt.Errorf("cannot look for cgroups: %w", err)
		}
		for _, file := range all {
			t.hierarchies = append(t.hierarchies, filepath.Base(filepath.Dir(file)))
		}
		t.controllers = slices.DeleteFunc(used(false), func(c string) bool { return !slices.Contains(t.hierarchies, c) })
	}
	if len(t.controllers) == 0 {
		return fmt.Errorf("cannot limit tasks: no cgroup controller is mounted in %s", t.root)
	}
	return nil
}

// folders are those of a group, one on v2 and one for each controller on v1.
func (t *Tree) folders(name string) (all []string) {
	if t.v2 {
		return []string{filepath.Join(t.root, t.parent, name)}
	}
	for _, c := range t.controllers {
		all = append(all, t.folder(c, name))
	}
	return all
}

func (t *Tree) folder(controller, name string) string {
	if t.v2 {
		return filepath.Join(t.root, t.parent, name)
	}
	return filepath.Join(t.root, controller, t.parent, name)
}

// enable hands the controllers down to the tasks' groups.
func (t *Tree) enable() error {
	dir := t.root
	for _, part := range append([]string{""}, strings.Split(filepath.Clean(t.parent), "/")...) {
		dir = filepath.Join(dir, part)
		for _, c := range t.controllers {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
				return fmt.Errorf("cannot hand the controller %s down in %s: %w", c, dir, err)
			}
		}
	}
	return nil
}

// inheritCPUs fills our cpuset in, which v1 leaves empty.
func (t *Tree) inheritCPUs() error {
	if !slices.Contains(t.controllers, "cpuset") {
		return nil
	}
	dir := filepath.Join(t.root, "cpuset")
	for part := range strings.SplitSeq(filepath.Clean(t.parent), "/") {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := copyDown(dir, filepath.Join(dir, part), file); err != nil {
				return fmt.Errorf("cannot give the tasks' cgroup its cores: %w", err)
			}
		}
		dir = filepath.Join(dir, part)
	}
	return nil
}

func copyDown(from, to, file string) error {
	has, err := os.ReadFile(filepath.Join(to, file))
	if err != nil || strings.TrimSpace(string(has)) != "" {
		return err
	}
	value, err := os.ReadFile(filepath.Join(from, file))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, file), value, 0) //nolint:gosec // control files of our own folder
}

// Names lists the groups there are.
func (t *Tree) Names() ([]string, error) {
	seen := map[string]bool{}
	for _, dir := range t.folders("") {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() {
				seen[e.Name()] = true
			}
		}
	}
	names := make([]string, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

// Remove takes our folder away, if no group is left in it.
func (t *Tree) Remove() error {
	dirs := t.folders("")
	for _, h := range t.hierarchies {
		dirs = append(dirs, t.folder(h, ""))
	}
	var errs error
	for _, dir := range dirs {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}
