package keeper

import (
	"cmp"
	"errors"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// launch is one on its way. All of it is on one thread.
type launch struct {
	plan  *plan.Plan
	image *image

	pid, pidfd int // pid as the keeper sees it
	proc       int // its /proc, -1 if it is the host's
	view, exec time.Duration
}

// begin makes the namespaces and the view's beginning.
func (l *launch) begin(p *plan.Prelude) error {
	begun := time.Now()
	if err := unix.Unshare(int(p.Unshare) | unix.CLONE_FS); err != nil {
		return errors.Join(errors.New("cannot make the task's namespaces"), err)
	}
	if p.Unshare&unix.CLONE_NEWNET != 0 {
		if err := loopbackUp(); err != nil {
			return errors.Join(errors.New("cannot bring the task's loopback interface up"), err)
		}
	}
	// What the host mounts later still comes in; nothing goes back.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return errors.Join(errors.New("cannot part with the host's mounts"), err)
	}
	err := makeView(p.Steps)
	l.view = time.Since(begun)
	return err
}

// prepare makes all else that needs no cgroup of the task: its view, and what its
// clone takes with it.
func (l *launch) prepare(p *plan.Plan, me *self) error {
	begun := time.Now()
	l.plan = p
	if !p.OwnPids {
		// What the task leaves behind comes to the keeper, not to process 1.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if err := enter(p); err != nil {
		return err
	}
	path, err := find(p)
	if err != nil {
		return err
	}
	m, err := newImage(p, path)
	if err != nil {
		return err
	}
	if m.landlock, err = ruleset(&p.Landlock); err != nil {
		return err
	}
	if m.landlock >= 0 {
		if m.landlock, err = high(m.landlock); err != nil {
			return err
		}
	}
	m.in, m.out = me.null, me.output
	l.image = m
	l.view += time.Since(begun)
	return nil
}

// enter makes the rest of what is seen in the namespaces.
func enter(p *plan.Plan) error {
	if p.Hostname != "" {
		if err := unix.Sethostname([]byte(p.Hostname)); err != nil {
			return errors.Join(errors.New("cannot name the task's host"), err)
		}
	}
	if err := makeView(p.Steps); err != nil {
		return err
	}
	if err := unix.Chdir(p.Cwd); err != nil {
		return errors.Join(errors.New("cannot enter "+p.Cwd), err)
	}
	return nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

// run clones the task and waits until its program runs.
func (l *launch) run(f *files) error {
	begun := time.Now()
	p, m := l.plan, l.image
	var failed, wait [2]int
	if err := unix.Pipe2(failed[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(failed[0])
	if err := unix.Pipe2(wait[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer func() { _ = unix.Close(wait[0]) }()
	for _, fd := range []*int{&failed[1], &wait[0]} {
		moved, err := high(*fd)
		if err != nil {
			return err
		}
		*fd = moved
	}
	m.failed, m.listen = failed[1], f.listen
	var flags uint64
	if p.OwnUser {
		flags, m.wait = unix.CLONE_NEWUSER, wait[0]
	}
	group := -1
	if p.CgroupIsFD {
		group = f.cgroups[0]
	} else {
		m.join = f.cgroups
	}
	defer runtime.KeepAlive(m) // the child lives in it until it executes
	var err error
	l.pid, l.pidfd, err = m.clone(flags, group)
	_ = unix.Close(failed[1])
	if err != nil {
		_ = unix.Close(wait[1])
		return err
	}
	if p.OwnUser {
		err = writeMaps(p, l.pid)
	}
	if err == nil && p.ReadOnlyProc {
		err = unix.Mount("", "/proc", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if err == nil && p.OwnUser {
		_, err = unix.Write(wait[1], []byte{1})
	}
	_ = unix.Close(wait[1]) // ends the child if it is still waiting
	if err := cmp.Or(err, failure(failed[0])); err != nil {
		return err
	}
	l.proc = -1
	if p.OwnPids {
		l.proc, _ = unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	l.exec = time.Since(begun)
	return nil
}

func writeMaps(p *plan.Plan, pid int) error {
	dir := "/proc/" + strconv.Itoa(pid)
	one := func(inner, outer uint32) []byte {
		return []byte(strconv.FormatUint(uint64(inner), 10) + " " + strconv.FormatUint(uint64(outer), 10) + " 1\n")
	}
	if err := writeFile(dir+"/uid_map", one(p.InnerUID, p.UID)); err != nil {
		return err
	}
	return writeFile(dir+"/gid_map", one(p.InnerGID, p.GID))
}
