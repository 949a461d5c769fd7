package keeper

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
	"github.com/nodeagent/nodeagent/pkg/osthread"
)

// Main is the whole program; it returns its exit code. All that can be done
// before a launch is done before, and the launch from prelude to answer is on one
// thread: it waits for none to be made or woken.
func Main() int {
	runtime.MemProfileRate = 0 // nobody reads it, and its tables are memory
	unix.CloseOnExec(plan.Socket)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	var output [2]int
	if err := unix.Pipe2(output[:], unix.O_CLOEXEC); err != nil {
		return refuse(err)
	}
	me, err := newSelf(output[1])
	if err != nil {
		return refuse(err)
	}
	var k *keeper
	err = osthread.Run(func() (err error) {
		k, err = serve(me, signals)
		return err
	})
	if errors.Is(err, errGone) {
		return 0
	}
	if err != nil {
		return refuse(err)
	}
	return k.keep(output[0], signals)
}

// serve launches what the agent wants launched.
func serve(me *self, signals <-chan os.Signal) (*keeper, error) {
	rehearse()
	first, p := &plan.Prelude{}, &plan.Plan{}
	if _, err := receive(first); err != nil {
		return nil, err
	}
	begun := now()
	for len(signals) > 0 {
		<-signals // they were not meant for a task that was not there
	}
	l := &launch{}
	if err := l.begin(first); err != nil {
		return nil, err
	}
	if _, err := receive(p); err != nil {
		return nil, err
	}
	if err := l.prepare(p, me); err != nil {
		return nil, err
	}
	f, err := receiveFiles(p)
	if err != nil {
		return nil, err
	}
	if err := l.run(f); err != nil {
		return nil, err
	}
	k := &keeper{plan: p, files: *f, task: l.pid, proc: l.proc}
	told := me.tell(l)
	told[plan.KeyMain] = begun
	if err := k.write(plan.StartedFile, told); err != nil {
		_ = unix.Kill(l.pid, unix.SIGKILL)
		return nil, err
	}
	_, _ = unix.Write(plan.Socket, told.Lines())
	_ = unix.Close(plan.Socket) // the agent waits for it
	for _, fd := range append(append([]int{me.null, me.output}, f.cgroups...), f.listen...) {
		_ = unix.Close(fd)
	}
	return k, nil
}

// refuse tells the agent why there is no task.
func refuse(err error) int {
	_, _ = unix.Write(plan.Socket, plan.Told{plan.KeyError: strings.ReplaceAll(err.Error(), "\n", ": ")}.Lines())
	return 1
}

// self is the keeper as the host sees it. Its /proc is the host's, which gives
// the host's numbers, whatever this process's own pid is and whatever /proc the
// calling thread sees by now.
type self struct {
	proc       int
	pid, start string
	// What the task gets as its input and output, out of the way of the other
	// descriptors that it gets.
	null, output int
}

func newSelf(output int) (*self, error) {
	proc, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(errors.New("cannot open /proc"), err)
	}
	pid, err := os.Readlink("/proc/self")
	if err != nil {
		return nil, err
	}
	s := &self{proc: proc, pid: pid}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if s.null, err = high(null); err != nil {
		return nil, err
	}
	if s.output, err = high(output); err != nil {
		return nil, err
	}
	s.start = s.startTime(pid)
	return s, nil
}

// tell is what is kept of a launch.
func (s *self) tell(l *launch) plan.Told {
	defer unix.Close(s.proc)
	task := s.hostPid(l.pidfd)
	return plan.Told{
		plan.KeyKeeper: s.pid, plan.KeyStart: s.start, plan.KeyTask: task, plan.KeyTStart: s.startTime(task),
		plan.KeyView: strconv.FormatInt(int64(l.view), 10), plan.KeyExec: strconv.FormatInt(int64(l.exec), 10),
		plan.KeyAt: now(),
	}
}

func (s *self) hostPid(pidfd int) string {
	b := readFileAt(s.proc, s.pid+"/fdinfo/"+strconv.Itoa(pidfd))
	_, after, _ := strings.Cut(string(b), "\nPid:\t")
	pid, _, _ := strings.Cut(after, "\n")
	return pid
}

func (s *self) startTime(pid string) string {
	b := readFileAt(s.proc, pid+"/stat")
	_, after, _ := strings.Cut(string(b), ") ")
	const field = 22 - 3 // starttime; the one after the name is the third
	if fields := strings.Fields(after); len(fields) > field {
		return fields[field]
	}
	return "" // it ended already
}

func now() string { return strconv.FormatInt(time.Now().UnixNano(), 10) }

// write makes a file in the state folder, whole or not at all.
func (k *keeper) write(name string, t plan.Told) error {
	fd, err := unix.Openat(k.files.state, name+".new", unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, t.Lines())
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return err
	}
	return unix.Renameat(k.files.state, name+".new", k.files.state, name)
}

// keeper watches one task to its end.
type keeper struct {
	plan   *plan.Plan
	files  files
	task   int
	proc   int
	reason atomic.Pointer[string] // why the keeper itself ended the task
}

func (k *keeper) keep(output int, signals <-chan os.Signal) int {
	pump := newPump(output, k.files.output, k.plan)
	go pump.run()
	go func() {
		for s := range signals {
			if n, ok := s.(syscall.Signal); ok && n != syscall.SIGPIPE {
				_ = unix.Kill(k.task, n)
			}
		}
	}()
	go k.watch()
	status := k.wait()
	k.endOthers()
	dropped := pump.finish()
	told := plan.Told{plan.KeyAt: now(), plan.KeyDropped: strconv.FormatInt(dropped, 10), plan.KeyCode: "-1"}
	if status.Signaled() {
		told[plan.KeySignal] = strconv.Itoa(int(status.Signal()))
	} else {
		told[plan.KeyCode] = strconv.Itoa(status.ExitStatus())
	}
	if r := k.reason.Load(); r != nil {
		told[plan.KeyReason] = *r
	}
	// The state folder is in memory; when even that is full, the place of
	// whatever was kept of the start will do.
	if k.write(plan.ExitFile, told) != nil {
		_ = unix.Unlinkat(k.files.state, plan.StartedFile, 0)
		if k.write(plan.ExitFile, told) != nil {
			return 1
		}
	}
	return 0
}

// wait reaps all that end until the task itself has.
func (k *keeper) wait() unix.WaitStatus {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err == nil && pid == k.task {
			return status
		}
		if errors.Is(err, unix.ECHILD) {
			return status // cannot be: the task is our child
		}
	}
}

// endOthers ends what the task has left behind, and reaps it. Without a pid
// namespace the agent does that by the cgroup.
func (k *keeper) endOthers() {
	if !k.plan.OwnPids {
		return
	}
	for {
		_ = unix.Kill(-1, unix.SIGKILL)
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			return
		}
	}
}

// end kills the task for a reason of the keeper's.
func (k *keeper) end(reason string) {
	k.reason.CompareAndSwap(nil, &reason)
	if k.plan.OwnPids {
		_ = unix.Kill(-1, unix.SIGKILL)
		return
	}
	_ = unix.Kill(-k.task, unix.SIGKILL)
	_ = unix.Kill(k.task, unix.SIGKILL)
}

// watch ends the task when it holds too much: on its disk, or, on cgroup v1, in
// memory. There the kernel kills only one process of the group when memory is
// out. It sleeps in poll and not in the runtime's timers, which would cost a
// thread and a second wake-up.
func (k *keeper) watch() {
	var oom []unix.PollFd
	if k.files.oom >= 0 {
		oom = []unix.PollFd{{Fd: int32(k.files.oom), Events: unix.POLLIN}}
	}
	var d *disk
	if k.plan.Disk > 0 {
		d = newDisk(k)
	}
	for d != nil || oom != nil {
		pause := time.Duration(-1)
		if d != nil {
			pause = d.pause
		}
		switch {
		case poll(oom, pause):
			k.end("oom")
			return
		case d != nil && d.look():
			k.end("disk")
			return
		}
	}
}

// poll waits until one of the descriptors has something, or for so long; a
// negative time is no end. A signal, such as that of a child's end, is not one.
func poll(fds []unix.PollFd, most time.Duration) bool {
	until := time.Now().Add(most)
	for {
		wait := -1
		if most >= 0 {
			// In whole milliseconds, rounded up: never before the time.
			wait = int(max(time.Until(until)+time.Millisecond-1, 0) / time.Millisecond)
		}
		n, err := unix.Poll(fds, wait)
		if !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}
