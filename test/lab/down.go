package main

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

// down ends the lab and removes all that it made on the machine. It goes by
// what is there, not by what up should have made, so it cleans up after an up
// that was killed anywhere; run again, it does no harm.
func down(ctx context.Context, p paths, keepLogs bool, show *progress) error {
	if os.Geteuid() != 0 {
		return errors.New("cannot end a lab: it must run as root")
	}
	unlock, err := lock(ctx, "lab", show)
	if err != nil {
		return err
	}
	defer unlock()
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	show.doing("ending the lab's processes")
	namespaces := recordedNamespaces(p)
	errs := []error{
		endRecorded(ctx, p),
		groups.killAll(30 * time.Second),
		waitLoopsGone(p.dir, 20*time.Second),
		unmountBelow(p.dir),
		removeLinks(),
		groups.removeAll(),
		removeFolder(p, keepLogs),
	}
	show.doing("looking for leftovers")
	errs = append(errs, checkNothingLeft(ctx, p, groups, namespaces, keepLogs))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot remove all of the lab: %w", err)
	}
	show.line("the lab is gone")
	return nil
}

// endRecorded ends the control plane in order and kills the nodes' inits. The
// cgroups find the rest.
func endRecorded(ctx context.Context, p paths) error {
	var errs []error
	for n := 1; n <= maxNodes; n++ {
		if proc, alive := recordedProcess(p.pids(), nodeName(n)); alive {
			killPid(proc.pid)
		}
	}
	for _, name := range slices.Backward(controlPlaneNames()) {
		if proc, alive := recordedProcess(p.pids(), name); alive {
			killPid(proc.pid)
			errs = append(errs, proc.end(ctx, 0))
		}
	}
	return errors.Join(errs...)
}

func removeLinks() error {
	names, err := labLinks()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, deleteLink(name))
	}
	return errors.Join(errs...)
}

// unmountBelow unmounts what is mounted below dir in the machine's own mount
// namespace. The lab itself mounts nothing there; a person may have.
func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("cannot unmount %s: %w", m, err))
		}
	}
	return errors.Join(errs...)
}

func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot list the mounts: %w", err)
	}
	return parseMountsBelow(string(text), dir), nil
}

func parseMountsBelow(mountinfo, dir string) []string {
	var found []string
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			found = append(found, f[4])
		}
	}
	return found
}

func removeFolder(p paths, keepLogs bool) error {
	entries, err := os.ReadDir(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot list the lab's folder: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(p.dir, e.Name())
		if keepLogs && path == p.logs() {
			continue
		}
		errs = append(errs, os.RemoveAll(path))
	}
	if !keepLogs {
		errs = append(errs, os.Remove(p.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot remove the lab's folder: %w", err)
	}
	return nil
}

// recordedNamespaces are the namespaces of the running nodes, to tell later
// that nothing holds them any more.
func recordedNamespaces(p paths) []string {
	var all []string
	for n := 1; n <= maxNodes; n++ {
		proc, alive := recordedProcess(p.pids(), nodeName(n))
		if !alive {
			continue
		}
		for _, kind := range []string{"mnt", "net", "pid", "uts", "ipc"} {
			if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", proc.pid, kind)); err == nil {
				all = append(all, ns)
			}
		}
	}
	return all
}

// checkNothingLeft is down's own proof: it looks for each kind of thing that
// up makes and names what is there.
func checkNothingLeft(ctx context.Context, p paths, groups cgroups, namespaces []string, keepLogs bool) error {
	var left []string
	waitFor(ctx, 50*time.Millisecond, stableAfter(200, func() bool {
		left = leftovers(p, groups, namespaces, keepLogs)
		return len(left) == 0
	}))
	if len(left) > 0 {
		return fmt.Errorf("still there: %s", strings.Join(left, "; "))
	}
	return nil
}

// stableAfter gives up on what after so many tries: the kernel takes a moment
// to let go of interfaces and loop devices.
func stableAfter(tries int, what func() bool) func() bool {
	return func() bool {
		tries--
		return what() || tries <= 0
	}
}

func leftovers(p paths, groups cgroups, namespaces []string, keepLogs bool) []string {
	var left []string
	add := func(kind string, found []string, err error) {
		if err != nil {
			found = append(found, err.Error())
		}
		for _, f := range found {
			left = append(left, kind+" "+f)
		}
	}
	add("cgroup", groups.left(), nil)
	links, err := labLinks()
	add("interface", links, err)
	mounts, err := mountsBelow(p.dir)
	add("mount", mounts, err)
	loops, err := loopsBelow(p.dir)
	add("loop device", loops, err)
	add("process", namespaceUsers(namespaces), nil)
	if _, err := os.Stat(p.dir); err == nil && !keepLogs {
		left = append(left, "folder "+p.dir)
	}
	return left
}

// namespaceUsers lists the processes that are in one of the namespaces. The
// kernel gives a namespace that is gone its number again, so a process that
// began after this program is in another one of the same number.
func namespaceUsers(namespaces []string) []string {
	self, err := lookProcess(os.Getpid())
	if len(namespaces) == 0 || err != nil {
		return nil
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/*")
	if err != nil {
		return nil
	}
	var users []string
	for _, link := range links {
		ns, err := os.Readlink(link)
		if err != nil || !slices.Contains(namespaces, ns) {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(link, "/")[2])
		if err != nil {
			continue
		}
		// A zombie holds nothing; it waits for the machine's init.
		if p, err := lookProcess(pid); err == nil && p.start <= self.start {
			users = append(users, fmt.Sprintf("%d in namespace %s", pid, ns))
		}
	}
	return users
}
