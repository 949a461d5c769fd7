package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Namespaces are the host's, as paths (/proc/1/ns/mnt). An empty one is the
// agent's own.
type Namespaces struct {
	Mount, Network, IPC, UTS, Cgroup string
}

// enter puts the calling thread into the host's namespaces.
func (n Namespaces) enter() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("cannot part from the agent's folders: %w", err)
	}
	for _, ns := range []struct {
		path string
		kind int
	}{{n.Network, unix.CLONE_NEWNET}, {n.IPC, unix.CLONE_NEWIPC}, {n.UTS, unix.CLONE_NEWUTS}, {n.Cgroup, unix.CLONE_NEWCGROUP}, {n.Mount, unix.CLONE_NEWNS}} {
		if ns.path == "" {
			continue
		}
		if err := setns(ns.path, ns.kind); err != nil {
			return fmt.Errorf("cannot enter the host's namespace %s: %w", ns.path, err)
		}
	}
	return nil
}

func setns(path string, kind int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), kind)
}

// check finds what would fail at each launch.
func (n Namespaces) check() error {
	if n.Mount == "" {
		return nil
	}
	host, err := os.Stat("/proc/1/ns/pid")
	if err != nil {
		return fmt.Errorf("cannot see the host's processes: %w", err)
	}
	own, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	if !os.SameFile(host, own) || unix.Getpid() == 1 {
		return errors.New("cannot launch from inside a pid namespace of its own, since one is entered downward only: the pod needs hostPID: true")
	}
	return nil
}
