package sandbox

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// watch waits for the keeper's end; pidfd is taken over, child is the keeper's
// pid when it is a child of this process.
func (l *Launcher) watch(t *Task, pidfd, child int) {
	_ = unix.SetNonblock(pidfd, true)
	keeper := os.NewFile(uintptr(pidfd), "keeper")
	l.tasks.Go(func() {
		defer keeper.Close()
		stop := context.AfterFunc(l.stop, func() { _ = keeper.Close() })
		defer stop()
		if untilEnd(keeper) != nil {
			return // the launcher was closed
		}
		if child > 0 {
			reap(child)
		}
		t.ended()
	})
}

// untilEnd sleeps in the runtime's poller, so a running task costs no thread.
func untilEnd(keeper *os.File) error {
	raw, err := keeper.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n == 1
	})
}

// ended settles how the task ended, when its keeper has.
func (t *Task) ended() {
	if !t.ownPids || t.lost() {
		// Without a pid namespace nothing else ends what the task has left.
		if err := t.group.Kill(t.l.stop); err != nil && !errors.Is(err, context.Canceled) {
			t.l.o.Log.Error("cannot end what a task has left", "task", t.id, "err", err)
		}
	}
	told, err := told(t.state, plan.ExitFile)
	if err != nil {
		t.l.o.Log.Error("cannot read how a task ended", "task", t.id, "err", err)
	}
	t.exit = exitOf(told, t.group.OOMKills())
	close(t.done)
}

func (t *Task) lost() bool {
	_, err := os.Stat(t.state + "/" + plan.ExitFile)
	return err != nil
}
