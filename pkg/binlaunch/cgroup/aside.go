package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Aside is a group for processes that must outlive whoever starts them. It has
// a folder in every hierarchy of the node, also in those that limit nothing:
// whoever ends a pod's container goes by the devices hierarchy, systemd by its
// own, and a process that stayed there with its parent would end with it.
type Aside struct {
	tree  *Tree
	name  string
	tasks []*os.File // v1: what the starting thread writes "0" to
	into  *os.File   // the folder of version 2 that a process is cloned into; nil: there is none
}

// Aside makes the group, or finds the one that there is.
func (t *Tree) Aside(name string) (*Aside, error) {
	a := &Aside{tree: t, name: name}
	for _, dir := range a.folders() {
		if err := a.enter(dir); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot make the cgroup %s: %w", name, err), a.Close())
		}
	}
	return a, nil
}

func (a *Aside) folders() []string {
	if a.tree.v2 {
		return a.tree.folders(a.name)
	}
	var all []string
	for _, h := range a.tree.hierarchies {
		all = append(all, a.tree.folder(h, a.name))
	}
	return all
}

func (a *Aside) enter(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if dir == a.tree.folder("cpuset", a.name) && !a.tree.v2 && slices.Contains(a.tree.controllers, "cpuset") {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := copyDown(a.tree.folder("cpuset", ""), dir, file); err != nil {
				return err
			}
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, "tasks"), os.O_WRONLY, 0)
	if err == nil {
		a.tasks = append(a.tasks, f)
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	a.into, err = os.OpenFile(dir, unix.O_DIRECTORY|unix.O_PATH, 0)
	return err
}

// Start forks a process into the group. It has to be called on a thread that
// is thrown away afterwards, for the thread joins the group too.
func (a *Aside) Start(program string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	for _, f := range a.tasks {
		if _, err := unix.Write(int(f.Fd()), []byte("0")); err != nil {
			return 0, fmt.Errorf("cannot join the cgroup %s: %w", a.name, err)
		}
	}
	if a.into != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(a.into.Fd())
	}
	pid, err = syscall.ForkExec(program, argv, attr)
	if !a.tree.v2 && a.into != nil && (errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL)) {
		// Before Linux 5.7 nothing is cloned into a group. Here it holds no
		// limit.
		attr.Sys.UseCgroupFD = false
		pid, err = syscall.ForkExec(program, argv, attr)
	}
	return pid, err
}

// Close gives the descriptors back. The group stays.
func (a *Aside) Close() error {
	var errs error
	for _, f := range a.tasks {
		errs = errors.Join(errs, f.Close())
	}
	if a.into != nil {
		errs = errors.Join(errs, a.into.Close())
	}
	return errs
}

// Remove takes the empty group away.
func (a *Aside) Remove(ctx context.Context) error {
	for _, dir := range a.folders() {
		if err := remove(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}
