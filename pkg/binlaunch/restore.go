package binlaunch

import (
	"maps"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/ports"
)

// restore makes the units of an earlier agent anew, with their processes; they
// begin once they know what is wanted. What is left over is nobody's and is
// ended. The caller holds mu.
func (s *Supervisor) restore(left map[string]Task) {
	for name, m := range s.memories() {
		u := newUnit(s, name)
		u.source, u.from = m.Source, m.Source
		u.previous, u.rejected, u.rejectedGeneration, u.rejection = m.Previous, m.Rejected, m.RejectedGeneration, m.Rejection
		u.pins = m.Pins
		if m.Ports != nil {
			maps.Copy(u.ports, m.Ports)
		}
		u.current, u.next = u.again(m.Current, left), u.again(m.Next, left)
		for i := range m.Leaving {
			if t := u.again(&m.Leaving[i], left); t.proc != nil {
				u.leaving = append(u.leaving, t)
				t.unwanted = true
			}
		}
		// Until its source has told, it wants what it wanted.
		if m.Wanted != nil && !s.told[m.Source] {
			if s.sources[m.Source] == nil {
				s.sources[m.Source] = map[string]Wanted{}
			}
			s.sources[m.Source][name] = Wanted{Binary: m.Wanted, Admitted: m.Admitted}
		}
		u.post(u.resume)
		s.units[name] = u
	}
	owned := map[string]bool{}
	for _, u := range s.units {
		for _, t := range append([]*task{u.current, u.next}, u.leaving...) {
			if t != nil {
				owned[t.owner] = true
			}
		}
	}
	if err := s.o.Fetcher.Sweep(func(owner string) bool { return owned[owner] }); err != nil {
		s.log.Warn("programs that nothing uses are kept", "err", err)
	}
	for _, t := range left {
		s.log.Warn("a process that nobody knows is ended", "task", t.ID(), "pid", t.Pid())
		s.running.Go(func() { s.clearAway(t) })
	}
}

// again makes a task as it was. Its process is taken out of left.
func (u *unit) again(m *taskMemory, left map[string]Task) *task {
	if m == nil {
		return nil
	}
	t := newTask(m.Spec, specHash(&m.Spec.Spec))
	t.id, t.since, t.created, t.ports, t.restarts, t.ends = m.ID, m.Since, m.Created, m.Ports, m.Restarts, m.Ends
	t.misses = m.Misses
	t.oomKills, t.gaveUp, t.lastExit, t.message, t.record = m.OOMKills, m.GaveUp, m.LastExit, m.Message, m.Record
	if past := left[m.PastID]; past != nil {
		t.past = past
		delete(left, m.PastID)
	}
	if proc := left[m.ID]; proc != nil {
		t.proc, t.state, t.ran = proc, m.State, true
		delete(left, m.ID)
		if group(m.State) != "runs" {
			t.state = v1alpha1.StateStarting
		}
		t.program = &Program{Digest: m.Digest, Folder: m.Folder, Verified: m.Verified}
		u.s.claims[t] = claimsOf(u.name, t)
		return t
	}
	// One that failed is tried again: this agent may be allowed more, or have the
	// key that was missing.
	if m.State == v1alpha1.StateFinished {
		t.state = m.State
	} else {
		t.since, t.message = time.Now(), "the agent or the node started again"
	}
	return t
}

func claimsOf(name string, t *task) []ports.Claim {
	var claims []ports.Claim
	for i, p := range t.spec.Spec.Ports {
		if i < len(t.ports) {
			claims = append(claims, ports.Claim{Port: ports.Port{Number: t.ports[i], Protocol: p.Protocol}, By: "task " + name})
		}
	}
	return claims
}

// resume goes on with the processes that were found.
func (u *unit) resume() {
	if u.next != nil {
		u.awaitDeadline(u.next)
	}
	for _, t := range []*task{u.current, u.next} {
		if t == nil || t.proc == nil {
			continue
		}
		if err := u.takeBack(t); err != nil {
			u.log.Error("an update of this task will refuse connections", "err", err)
		}
		u.log.Info("task taken up again", "task", t.id, "pid", t.proc.Pid(), "state", string(t.state))
		u.watch(t, t.proc.Started(), t.state != v1alpha1.StateStarting)
	}
	for _, t := range u.leaving {
		t.state = v1alpha1.StateStopping
		u.stop(t)
	}
}

func (s *Supervisor) clearAway(t Task) {
	for s.ctx.Err() == nil {
		err := t.Stop(s.ctx, 10*time.Second)
		if err == nil {
			err = t.Forget(s.ctx)
		}
		if err == nil {
			return
		}
		s.log.Error("cannot end a process that nobody knows", "task", t.ID(), "err", err)
		sleep(s.ctx, 5*time.Second)
	}
}
