package binlaunch

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/lifecycle"
)

// task keeps one process after the other running by one spec.
type task struct {
	spec    *v1alpha1.Binary // defaulted
	hash    string
	owner   string // of its program in the store
	state   v1alpha1.State
	since   time.Time
	created time.Time
	message string
	then    string // what is done about that, and when

	id       string // of its process, or of the last one
	ports    []int32
	program  *Program
	proc     Task
	past     Task // the one before, ended; what it wrote can be read until another runs
	record   Record
	phases   map[string]time.Duration
	lastExit *v1alpha1.ExitStatus

	restarts int32 // how often it was started again
	ends     int   // in a row, without having been stable
	misses   int   // fetches in a row that failed
	ran      bool  // a process of it has run since the last pause
	gaveUp   bool  // its health check did, at least once
	unwanted bool
	oomKills int32

	fetching  bool // while the old task of an update runs
	launching bool // the launcher has not answered yet

	nextFetch time.Duration // the pause after the last one that failed

	retry  time.Time       // not before: its port was taken
	turn   int             // counts the rows of states, so that late news of an earlier one is known
	ctx    context.Context //nolint:containedctx // of what goes on beside the unit in this row of states
	cancel context.CancelFunc
}

func newTask(b *v1alpha1.Binary, hash string) *task {
	now := time.Now()
	return &task{spec: b, hash: hash, owner: b.Name + "." + hash, state: v1alpha1.StateWaiting, since: now, created: now, cancel: func() {}, phases: map[string]time.Duration{}}
}

// newID names one process. Names of Binaries hold no dot.
func newID(name string) string {
	return name + "." + strings.ToLower(rand.Text()[:10])
}

// settleTime is how long a task without any check has to run before it may
// take over.
const settleTime = time.Second

func (t *task) settled(now time.Time) bool {
	switch t.state {
	case v1alpha1.StateFinished:
		return t.lastExit != nil && t.lastExit.Code == 0
	case v1alpha1.StateHealthy:
		return t.spec.Spec.Health != nil || t.spec.Spec.Readiness != nil || now.Sub(t.since) >= settleTime
	}
	return false
}

// mostEnds is how often the new task of an update may end before it is
// rejected.
const mostEnds = 3

func (t *task) broken(now time.Time) bool {
	switch t.state {
	case v1alpha1.StateHealthy:
		return false
	case v1alpha1.StateFailed:
		return true
	case v1alpha1.StateFinished:
		return t.lastExit == nil || t.lastExit.Code != 0
	}
	return t.gaveUp || t.ends >= mostEnds || !now.Before(t.deadline())
}

// group is a row of states in which the same things go on beside the unit.
func group(s v1alpha1.State) string {
	switch s {
	case v1alpha1.StateStarting, v1alpha1.StateHealthy, v1alpha1.StateUnhealthy:
		return "runs"
	}
	return string(s)
}

// fire tells a task what happened and begins what its new state asks for.
func (u *unit) fire(t *task, e lifecycle.Event, message string) {
	from := t.state
	to, ok := lifecycle.Next(from, e)
	if !ok {
		return
	}
	now := time.Now()
	u.log.Log(u.s.ctx, level(to), "state", "task", t.id, "from", string(from), "on", string(e), "to", string(to), "message", message)
	wasUp := now.Sub(t.since)
	t.state, t.since, t.message, t.then = to, now, message, ""
	if group(from) != group(to) {
		t.turn++
		t.cancel()
		t.ctx = nil
		if t == u.next {
			u.awaitDeadline(t)
		}
	}
	if from == v1alpha1.StateHealthy && stable(wasUp, t.ends) {
		t.ends = 0
	}
	switch to {
	case v1alpha1.StateFetching:
		u.fetch(t)
	case v1alpha1.StateStarting:
		u.start(t)
	case v1alpha1.StateHealthy:
		u.await(t, settleTime)
	case v1alpha1.StateStopping:
		u.stop(t)
	case v1alpha1.StateBackingOff:
		u.pause(t, from)
	case v1alpha1.StateFailed, v1alpha1.StateFinished:
		u.release(t)
	case v1alpha1.StateGone:
		u.release(t)
		u.letGo(t)
		u.forget(t)
	case v1alpha1.StateWaiting:
		if t.ran {
			t.restarts++
		}
		t.ran = false
	}
}

func level(s v1alpha1.State) slog.Level {
	switch s {
	case v1alpha1.StateBackingOff, v1alpha1.StateUnhealthy, v1alpha1.StateFailed:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// letGo gives the program back to the store.
func (u *unit) letGo(t *task) {
	if t.program != nil {
		u.s.o.Fetcher.Release(*t.program, t.owner)
	}
	t.program = nil
}

// beside runs f beside the unit until the task leaves the row of states it is
// in, and hands its outcome back: done is called by the unit's goroutine, and
// only while the task is still there.
func (u *unit) beside(t *task, f func(ctx context.Context) (done func())) {
	ctx, turn := u.begin(t)
	u.s.running.Go(func() {
		done := f(ctx)
		u.post(func() {
			if t.turn == turn && done != nil {
				done()
			}
		})
	})
}

// begin gives the context of what goes on beside the unit until the task
// leaves the row of states it is in, and that row's number.
func (u *unit) begin(t *task) (context.Context, int) {
	if t.ctx == nil {
		t.ctx, t.cancel = context.WithCancel(u.s.ctx)
	}
	return t.ctx, t.turn
}

// await makes the unit look again after d, if the task is still in this state.
func (u *unit) await(t *task, d time.Duration) {
	u.beside(t, func(ctx context.Context) func() {
		sleep(ctx, d)
		return nil // the post alone makes it look
	})
}

// awaitDeadline makes the unit look again when the new task of an update has had
// its time.
func (u *unit) awaitDeadline(t *task) {
	u.await(t, time.Until(t.deadline()))
}

// deadline is when a new task has to be up.
func (t *task) deadline() time.Time { return t.created.Add(t.spec.Spec.Update.Deadline.Duration) }

func exitStatus(e Exit) *v1alpha1.ExitStatus {
	s := &v1alpha1.ExitStatus{Code: int32(e.Code), Signal: e.Signal, OOMKilled: e.OOMKilled, At: metav1.NewTime(e.At)}
	switch {
	case e.OOMKilled:
		s.Message = "it used more memory than resources.memory allows and was killed"
	case e.Reason != "":
		s.Message = e.Reason
	case e.Signal != "":
		s.Message = "it ended by " + e.Signal
	default:
		s.Message = fmt.Sprintf("it ended with exit code %d", e.Code)
	}
	return s
}

// afterExit is what the end of a process means by the restart policy.
func afterExit(p v1alpha1.RestartPolicy, e Exit) lifecycle.Event {
	switch {
	case p == v1alpha1.RestartNever, p == v1alpha1.RestartOnFailure && e.Code == 0:
		return lifecycle.Completed
	}
	return lifecycle.Ended
}
