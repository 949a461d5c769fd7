package keeper

import (
	"errors"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// Main is the whole program; it returns its exit code.
func Main() int {
	unix.CloseOnExec(plan.Socket)
	p, f, err := receive()
	if err != nil {
		return refuse(err)
	}
	if p == nil {
		return 0 // it was not needed
	}
	begun := now()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return refuse(err)
	}
	if f.out, err = high(pipe[1]); err != nil {
		return refuse(err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	l := launch(p, f)
	_ = unix.Close(f.out)
	if l.err != nil {
		return refuse(l.err)
	}
	for _, fd := range append(append([]int{f.null}, f.cgroups...), f.listen...) {
		_ = unix.Close(fd)
	}
	k := &keeper{plan: p, files: f, task: l.pid, proc: l.proc}
	told := toldOf(l)
	told[plan.KeyMain] = begun
	if err := k.write(plan.StartedFile, told); err != nil {
		_ = unix.Kill(l.pid, unix.SIGKILL)
		return refuse(err)
	}
	_, _ = unix.Write(plan.Socket, told.Lines())
	_ = unix.Close(plan.Socket)
	return k.keep(pipe[0], signals)
}

// refuse tells the agent why there is no task.
func refuse(err error) int {
	_, _ = unix.Write(plan.Socket, plan.Told{plan.KeyError: strings.ReplaceAll(err.Error(), "\n", ": ")}.Lines())
	return 1
}

// toldOf is what is kept of a launch. The keeper is still in the host's mount
// namespace, so /proc gives the host's numbers whatever its own pid is.
func toldOf(l launched) plan.Told {
	self, _ := os.Readlink("/proc/self")
	task := hostPid(l.pidfd)
	return plan.Told{
		plan.KeyKeeper: self, plan.KeyStart: startTime(self), plan.KeyTask: task, plan.KeyTStart: startTime(task),
		plan.KeyView: strconv.FormatInt(int64(l.view), 10), plan.KeyExec: strconv.FormatInt(int64(l.exec), 10),
		plan.KeyAt: now(),
	}
}

func hostPid(pidfd int) string {
	b := readFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	_, after, _ := strings.Cut(string(b), "\nPid:\t")
	pid, _, _ := strings.Cut(after, "\n")
	return pid
}

func startTime(pid string) string {
	b := readFile("/proc/" + pid + "/stat")
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
	if k.files.oom >= 0 {
		go k.watchOOM(k.files.oom)
	}
	if k.plan.Disk > 0 {
		go k.watchDisk()
	}
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

// watchOOM makes one group of the task on cgroup v1, where the kernel kills
// only one process when memory is out.
func (k *keeper) watchOOM(fd int) {
	var b [8]byte
	if n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, b[:]) }); err == nil && n == len(b) {
		k.end("oom")
	}
}
