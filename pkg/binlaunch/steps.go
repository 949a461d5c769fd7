package binlaunch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/health"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/lifecycle"
)

// longestLaunch bounds the start of one process; it takes milliseconds.
const longestLaunch = time.Minute

// fetch gets the artifacts, and then the process is started.
func (u *unit) fetch(t *task) {
	u.get(t, func(program Program, took time.Duration, err error) {
		switch {
		case err == nil:
			u.fetched(t, program, took)
			u.fire(t, lifecycle.Fetched, "")
		case refused(err):
			u.fire(t, lifecycle.Refused, err.Error())
		default:
			u.miss(t, err)
			u.fire(t, lifecycle.Failed, err.Error())
		}
	})
}

// prefetch does it while the old task still runs.
func (u *unit) prefetch(t *task) bool {
	if t.fetching || t.retry.After(time.Now()) {
		return false
	}
	t.fetching, t.then = true, ""
	u.get(t, func(program Program, took time.Duration, err error) {
		t.fetching = false
		switch {
		case err == nil:
			u.fetched(t, program, took)
		case refused(err):
			u.fire(t, lifecycle.Refused, err.Error())
		default:
			u.miss(t, err)
			t.message, t.retry = err.Error(), time.Now().Add(t.nextFetch)
			t.then = t.fetchedAgain()
			u.await(t, t.nextFetch)
		}
	})
	return false
}

// lastTry is how long before its deadline the new task of an update is fetched
// for the last time.
const lastTry = 30 * time.Second

// miss notes that a fetch failed, and when the next one is to be.
func (u *unit) miss(t *task, err error) {
	t.misses++
	longest := longestFetchPause
	if wrong := (*WrongError)(nil); errors.As(err, &wrong) {
		longest = longestWrongPause
	}
	t.nextFetch = fetchPause(t.misses, longest)
	if left := time.Until(t.deadline().Add(-lastTry)); t == u.next && left > 0 {
		t.nextFetch = min(t.nextFetch, left)
	}
}

func (t *task) fetchedAgain() string {
	return fmt.Sprintf("; fetched again in %s", t.nextFetch.Round(time.Second))
}

// get fetches beside the unit. What comes when nobody wants it any more is
// given back.
func (u *unit) get(t *task, done func(p Program, took time.Duration, err error)) {
	ctx, turn := u.begin(t)
	pins := u.pins
	u.s.running.Go(func() {
		began := time.Now()
		program, err := u.s.o.Fetcher.Get(ctx, t.owner, t.spec.Spec.Fetch, pins, func(done, total int64) {
			u.post(func() { t.progress(done, total) })
		})
		if err == nil && ctx.Err() != nil {
			u.s.o.Fetcher.Release(program, t.owner)
			return
		}
		u.post(func() {
			if t.turn == turn {
				done(program, time.Since(began), err)
			} else if err == nil {
				u.s.o.Fetcher.Release(program, t.owner)
			}
		})
	})
}

func (u *unit) fetched(t *task, p Program, took time.Duration) {
	t.program, t.misses, t.then = &p, 0, ""
	if p.Changed != "" {
		u.log.Warn("what a URL answers has changed; nothing vouches for it", "change", p.Changed)
	}
	u.pins = p.Pins
	t.phases["fetch"] = took
	maps.Copy(t.phases, p.Phases)
}

func (t *task) progress(done, total int64) {
	if t.state != v1alpha1.StateFetching && !t.fetching {
		return
	}
	if total > 0 {
		t.message = fmt.Sprintf("%d of %d MiB fetched", done>>20, total>>20)
		return
	}
	t.message = fmt.Sprintf("%d MiB fetched", done>>20)
}

// start starts the process. Its name is on the disk before it is there, so an
// agent that is killed in between finds it again.
func (u *unit) start(t *task) {
	t.id, t.proc = newID(u.name), nil
	env := environment(t.id, u.s.o.Host, t.spec, t.ports)
	launch := Launch{
		ID: t.id, Name: u.name, Program: *t.program, Command: command(t.spec.Spec.Command, env), Env: env,
		Sockets: u.held.of(t), Shut: shutOf(&t.spec.Spec),
	}
	u.save()
	t.launching = true
	// It is not cancelled with the task: what comes of it has to be known.
	u.s.running.Go(func() {
		ctx, cancel := context.WithTimeout(u.s.ctx, longestLaunch)
		defer cancel()
		began := time.Now()
		proc, record, err := u.s.o.Launcher.Start(ctx, launch)
		u.post(func() { u.launched(t, proc, record, time.Since(began), err) })
	})
}

func (u *unit) launched(t *task, proc Task, record Record, took time.Duration, err error) {
	t.launching = false
	if err == nil {
		u.forget(t)
		t.proc, t.record, t.ran = proc, record, true
		t.phases["start"] = took
		maps.Copy(t.phases, record.Phases)
	}
	switch {
	case t.state == v1alpha1.StateStopping:
		u.stop(t)
	case err == nil:
		u.watch(t, proc.Started(), false)
	case refused(err):
		u.fire(t, lifecycle.Refused, err.Error())
	default:
		u.fire(t, lifecycle.Failed, err.Error())
	}
}

// watch waits for the process's end and asks for its health.
func (u *unit) watch(t *task, started time.Time, wasUp bool) {
	proc, grace := t.proc, t.grace()
	u.beside(t, func(ctx context.Context) func() {
		exit, err := proc.Wait(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			exit = Exit{Code: -1, At: time.Now()}
			u.log.Error("cannot tell how the task ended", "task", proc.ID(), "err", err)
		}
		u.empty(ctx, proc, grace)
		return func() { u.exited(t, exit) }
	})
	checks := u.checks(t)
	u.beside(t, func(ctx context.Context) func() {
		checks.Watch(ctx, started, wasUp, func(r health.Report) {
			u.post(func() {
				if t.proc == proc { // not of an earlier process
					u.observed(t, r)
				}
			})
		})
		return nil
	})
}

func (u *unit) observed(t *task, r health.Report) {
	switch r.Verdict {
	case health.Passed:
		if t.state == v1alpha1.StateStarting {
			t.phases["healthy"] = time.Since(t.since)
		}
		u.fire(t, lifecycle.Passed, "")
	case health.Failing:
		u.fire(t, lifecycle.Failing, r.Reason)
		t.message = r.Reason
	case health.GiveUp:
		t.gaveUp = true
		u.fire(t, lifecycle.GaveUp, "its health check failed too often: "+r.Reason)
	case health.Ignored:
		if t.state == v1alpha1.StateStarting {
			t.message = r.Reason
		}
	}
}

// exited takes in the end of a process of which nothing is left.
func (u *unit) exited(t *task, e Exit) {
	t.ended(e)
	u.fire(t, afterExit(t.spec.Spec.RestartPolicy, e), t.lastExit.Message)
}

// ended keeps what the process wrote until the next one has started.
func (t *task) ended(e Exit) {
	t.lastExit, t.proc, t.past = exitStatus(e), nil, t.proc
	if e.OOMKilled {
		t.oomKills++
	}
}

// forget removes what is left of the process before.
func (u *unit) forget(t *task) {
	past := t.past
	t.past = nil
	if past == nil {
		return
	}
	u.s.running.Go(func() {
		if err := past.Forget(u.s.ctx); err != nil && u.s.ctx.Err() == nil {
			u.log.Warn("something of a task that ended is left", "task", past.ID(), "err", err)
		}
	})
}

// stop ends the process and everything it has started.
func (u *unit) stop(t *task) {
	if t.launching {
		return // launched calls again
	}
	proc, grace := t.proc, t.grace()
	u.beside(t, func(ctx context.Context) func() {
		exit := Exit{At: time.Now()}
		if proc != nil {
			exit = u.end(ctx, proc, grace)
		}
		return func() {
			if proc != nil {
				t.ended(exit)
			}
			if t.unwanted {
				u.fire(t, lifecycle.Emptied, t.message)
				return
			}
			u.fire(t, lifecycle.Ended, t.message)
		}
	})
}

func (u *unit) end(ctx context.Context, proc Task, grace time.Duration) Exit {
	u.empty(ctx, proc, grace)
	exit, err := proc.Wait(ctx)
	if err != nil {
		exit = Exit{Code: -1, At: time.Now()}
	}
	return exit
}

// empty ends what a process has started. It does not give up: nothing may be
// started in its place before.
func (u *unit) empty(ctx context.Context, proc Task, grace time.Duration) {
	for ctx.Err() == nil {
		err := proc.Stop(ctx, grace)
		if err == nil {
			return
		}
		u.log.Error("cannot end the task yet", "task", proc.ID(), "err", err)
		sleep(ctx, 2*time.Second)
	}
}

func (t *task) grace() time.Duration {
	return time.Duration(*t.spec.Spec.TerminationGracePeriodSeconds) * time.Second
}

// pause waits before the next try. A fetch that failed is no end of a process:
// it has pauses of its own.
func (u *unit) pause(t *task, from v1alpha1.State) {
	d := t.nextFetch
	if from == v1alpha1.StateFetching {
		t.then = t.fetchedAgain()
	} else {
		t.ends++
		d = backoff(t.ends)
		t.then = fmt.Sprintf("; started again in %s", d.Round(100*time.Millisecond))
	}
	u.beside(t, func(ctx context.Context) func() {
		sleep(ctx, d)
		return func() { u.fire(t, lifecycle.PauseOver, "") }
	})
}
