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

// launched is a task that runs its own program by now.
type launched struct {
	pid, pidfd int // pid as the keeper sees it
	proc       int // its /proc, -1 if it is the host's
	view, exec time.Duration
	err        error
}

// onThread runs f on a thread that is thrown away afterwards, for f changes what
// a Go program takes to be the same everywhere: namespaces, root, cgroup.
func onThread(f func()) {
	done := make(chan struct{})
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread cannot be thrown away: hold it until
			// another one was taken.
			other := make(chan struct{})
			go func() { defer close(other); run() }()
			<-other
			runtime.UnlockOSThread()
			return
		}
		defer close(done)
		f()
	}
	go run()
	<-done
}

// start launches on the calling thread.
func start(p *plan.Plan, f files) (l launched) {
	l.proc = -1
	fail := func(err error) launched { l.err = err; return l }
	begun := time.Now()
	if err := enter(p); err != nil {
		return fail(err)
	}
	path, err := find(p)
	if err != nil {
		return fail(err)
	}
	m, err := newImage(p, path)
	if err != nil {
		return fail(err)
	}
	if m.landlock, err = ruleset(&p.Landlock); err != nil {
		return fail(err)
	}
	if m.landlock >= 0 {
		if m.landlock, err = high(m.landlock); err != nil {
			return fail(err)
		}
	}
	m.in, m.out, m.listen = f.null, f.out, f.listen
	l.view, begun = time.Since(begun), time.Now()
	if l.pid, l.pidfd, err = run(p, f, m); err != nil {
		return fail(err)
	}
	if p.OwnPids {
		l.proc, _ = unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	l.exec = time.Since(begun)
	return l
}

// enter makes the namespaces and what is seen in them.
func enter(p *plan.Plan) error {
	if err := unix.Unshare(int(p.Unshare) | unix.CLONE_FS); err != nil {
		return errors.Join(errors.New("cannot make the task's namespaces"), err)
	}
	if p.Hostname != "" {
		if err := unix.Sethostname([]byte(p.Hostname)); err != nil {
			return errors.Join(errors.New("cannot name the task's host"), err)
		}
	}
	if p.Unshare&unix.CLONE_NEWNET != 0 {
		if err := loopbackUp(); err != nil {
			return errors.Join(errors.New("cannot bring the task's loopback interface up"), err)
		}
	}
	unix.Umask(0) // the steps have the modes that they mean
	if err := makeView(p.Steps); err != nil {
		return err
	}
	unix.Umask(0o022)
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
func run(p *plan.Plan, f files, m *image) (pid, pidfd int, err error) {
	var failed, wait [2]int
	if err := unix.Pipe2(failed[:], unix.O_CLOEXEC); err != nil {
		return 0, -1, err
	}
	defer unix.Close(failed[0])
	if err := unix.Pipe2(wait[:], unix.O_CLOEXEC); err != nil {
		return 0, -1, err
	}
	defer func() { _ = unix.Close(wait[0]) }()
	for _, fd := range []*int{&failed[1], &wait[0]} {
		if *fd, err = high(*fd); err != nil {
			return 0, -1, err
		}
	}
	m.failed = failed[1]
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
	pid, pidfd, err = m.clone(flags, group)
	_ = unix.Close(failed[1])
	if err != nil {
		_ = unix.Close(wait[1])
		return 0, -1, err
	}
	if p.OwnUser {
		err = writeMaps(p, pid)
	}
	if err == nil && p.ReadOnlyProc {
		err = unix.Mount("", "/proc", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if err == nil && p.OwnUser {
		_, err = unix.Write(wait[1], []byte{1})
	}
	_ = unix.Close(wait[1]) // ends the child if it is still waiting
	return pid, pidfd, cmp.Or(err, failure(failed[0]))
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
