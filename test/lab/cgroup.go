package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cgroupName is the folder of the lab in every cgroup hierarchy. Membership in
// its version 2 tree is how down finds each process of the lab, also those of
// an up that was killed before it could write a pid down.
const cgroupName = "nodeagent-lab"

// cgroups knows the machine's cgroup mounts. On a hybrid machine the version 1
// controllers carry the pods' limits and the version 2 tree finds processes;
// where only version 2 is mounted, one tree does both.
type cgroups struct {
	v1 []string // mount points, one a hierarchy, named ones as well
	v2 string   // mount point of the version 2 tree
}

func findCgroups() (cgroups, error) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return cgroups{}, fmt.Errorf("cannot find the cgroup mounts: %w", err)
	}
	c := parseCgroupMounts(string(text))
	if c.v2 == "" {
		return cgroups{}, errors.New("no cgroup version 2 tree is mounted: the lab keeps track of its processes with one; mount it with `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`")
	}
	return c, nil
}

func parseCgroupMounts(mounts string) cgroups {
	var c cgroups
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		switch {
		case f[2] == "cgroup" && !slices.Contains(c.v1, f[1]):
			c.v1 = append(c.v1, f[1])
		case f[2] == "cgroup2" && c.v2 == "":
			c.v2 = f[1]
		}
	}
	return c
}

// trees are all hierarchies.
func (c cgroups) trees() []string { return append(slices.Clone(c.v1), c.v2) }

// make creates the lab's cgroup called name (slashes allowed) in the version 2
// tree, for processes that are no pods, and returns its folder.
func (c cgroups) make(name string) (string, error) {
	dir := filepath.Join(c.v2, cgroupName, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the cgroup %s: %w", dir, err)
	}
	return dir, nil
}

// makeRoot creates the cgroup below which a node's kubelet puts its pods, in
// every hierarchy, ready for use: a cpuset takes no process before its cpus
// and mems are filled, a version 2 folder has only the controllers its parent
// hands down.
func (c cgroups) makeRoot(node string) error {
	for _, tree := range c.v1 {
		dir := tree
		for _, name := range []string{cgroupName, node} {
			parent := dir
			dir = filepath.Join(dir, name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("cannot make the cgroup %s: %w", dir, err)
			}
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				if err := inherit(parent, dir, file); err != nil {
					return err
				}
			}
		}
	}
	if _, err := c.make(node); err != nil {
		return err
	}
	if len(c.v1) > 0 {
		return nil
	}
	for _, dir := range []string{c.v2, filepath.Join(c.v2, cgroupName)} {
		if err := handDownControllers(dir); err != nil {
			return err
		}
	}
	return nil
}

func inherit(parent, dir, file string) error {
	value, err := os.ReadFile(filepath.Join(parent, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not the cpuset hierarchy
	}
	if err != nil {
		return fmt.Errorf("cannot read the parent's %s: %w", file, err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
		return fmt.Errorf("cannot fill %s of %s: %w", file, dir, err)
	}
	return nil
}

func handDownControllers(dir string) error {
	all, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cannot read the controllers of %s: %w", dir, err)
	}
	for _, name := range strings.Fields(string(all)) {
		if !slices.Contains([]string{"cpu", "cpuset", "hugetlb", "io", "memory", "pids"}, name) {
			continue // the kubelet wants no other
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+name), 0o644); err != nil {
			return fmt.Errorf("cannot enable the controller %s below %s: %w", name, dir, err)
		}
	}
	return nil
}

// pids lists the processes of the lab's cgroup called name and of all below
// it, in every hierarchy.
func (c cgroups) pids(name string) ([]int, error) {
	var pids []int
	for _, tree := range c.trees() {
		err := walkCgroup(filepath.Join(tree, cgroupName, name), func(dir string) error {
			text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				return err
			}
			for _, f := range strings.Fields(string(text)) {
				// 0 is a process of another pid namespace than ours.
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("cannot list the lab's processes: %w", err)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// kill ends every process of the lab's cgroup called name and waits until the
// kernel has let go of them.
func (c cgroups) kill(name string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		pids, err := c.pids(name)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of the lab's cgroup %q are still there %s after SIGKILL", pids, name, patience)
		}
		for _, pid := range pids {
			killPid(pid)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// remove deletes the lab's empty cgroup called name in every hierarchy.
func (c cgroups) remove(name string) error {
	var errs []error
	for _, tree := range c.trees() {
		var dirs []string
		err := walkCgroup(filepath.Join(tree, cgroupName, name), func(dir string) error {
			dirs = append(dirs, dir)
			return nil
		})
		errs = append(errs, err)
		for _, dir := range slices.Backward(dirs) {
			if err := removeCgroupDir(dir); err != nil {
				errs = append(errs, fmt.Errorf("cannot remove the cgroup %s: %w", dir, err))
			}
		}
	}
	return errors.Join(errs...)
}

// removeCgroupDir retries for a moment: a cgroup stays busy until the last
// exiting process is really gone.
func removeCgroupDir(dir string) error {
	var err error
	for range 100 {
		err = os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// own lists the lab's cgroups directly below its top one, in any hierarchy,
// that are to go with the lab. Not among them is the cgroup of another lab
// command that is building.
func (c cgroups) own() ([]string, error) {
	var names []string
	for _, tree := range c.trees() {
		entries, err := os.ReadDir(filepath.Join(tree, cgroupName))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot list the lab's cgroups: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() && !isLivingBuild(e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// killAll and removeAll do so for all of the lab's own cgroups.
func (c cgroups) killAll(patience time.Duration) error {
	names, err := c.own()
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, c.kill(name, patience))
	}
	return errors.Join(errs...)
}

func (c cgroups) removeAll() error {
	names, err := c.own()
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, c.remove(name))
	}
	c.removeTop()
	return errors.Join(errs...)
}

// removeTop removes the top cgroup unless somebody is building in it; whether
// that was right is for left to say.
func (c cgroups) removeTop() {
	for _, tree := range c.trees() {
		_ = os.Remove(filepath.Join(tree, cgroupName))
	}
}

// left names the lab's cgroups that exist, but those of a build.
func (c cgroups) left() []string {
	var left []string
	for _, tree := range c.trees() {
		top := filepath.Join(tree, cgroupName)
		entries, err := os.ReadDir(top)
		if err != nil {
			continue
		}
		building := false
		for _, e := range entries {
			switch {
			case !e.IsDir():
			case isLivingBuild(e.Name()):
				building = true
			default:
				left = append(left, filepath.Join(top, e.Name()))
			}
		}
		if !building {
			left = append(left, top)
		}
	}
	return left
}

// walkCgroup visits dir and the cgroups below it, parents first. One that
// vanishes meanwhile is passed over.
func walkCgroup(dir string, visit func(dir string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = visit(path)
		}
		if errors.Is(err, fs.ErrNotExist) || isNoDevice(err) {
			return nil
		}
		return err
	})
}
