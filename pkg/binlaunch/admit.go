package binlaunch

import (
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/lifecycle"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/ports"
)

// portPoll is how often a task that waits looks whether its port is free.
const portPoll = time.Second

// admit gives a waiting task its ports, or says who has them. It is true when
// the task goes on.
func (u *unit) admit(t *task) bool {
	if t.spec.Spec.Profile == v1alpha1.ProfilePrivileged && !u.s.o.AllowPrivileged {
		u.fire(t, lifecycle.Refused, "profile privileged is not allowed on this node: set launch.allowPrivileged in its configuration")
		return true
	}
	if t.retry.After(time.Now()) {
		return false
	}
	numbers, trouble := u.s.assign(u, t)
	if trouble == "" {
		trouble = u.hold(t, numbers)
	}
	if trouble != "" {
		u.s.unclaim(t)
		if t.message != trouble {
			u.log.Info("waits for a port", "reason", trouble)
		}
		t.message, t.retry = trouble, time.Now().Add(portPoll)
		u.await(t, portPoll)
		return false
	}
	t.ports = numbers
	for i, p := range t.spec.Spec.Ports {
		u.ports[p.Name] = numbers[i]
	}
	u.fire(t, lifecycle.Admitted, "")
	return true
}

// assign settles a task's ports among all tasks of the node at once.
func (s *Supervisor) assign(u *unit, t *task) ([]int32, string) {
	var listeners []ports.Listener
	if slices.ContainsFunc(t.spec.Spec.Ports, func(p v1alpha1.Port) bool { return !u.held.covers(p) }) {
		all, err := ports.Listeners(s.o.networkOfHost())
		if err != nil {
			return nil, err.Error()
		}
		listeners = u.held.without(all)
	}
	var pods []ports.Claim
	if s.o.PodPorts != nil {
		pods = s.o.PodPorts()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := ports.View{Range: s.o.Range, Claims: pods, Listeners: listeners, Before: u.ports}
	for other, claims := range s.claims {
		for _, c := range claims {
			// A held socket is passed from one task of a unit to the next.
			if other != t && (other.spec.Name != u.name || !u.held.has(c.Number)) {
				v.Claims = append(v.Claims, c)
			}
		}
	}
	want := u.held.fixed(t.spec.Spec.Ports)
	numbers, conflict := ports.Assign(u.name, want, v)
	if conflict != nil {
		return nil, s.explain(*conflict)
	}
	claims := []ports.Claim{} // non-nil: a task without ports is no task without an answer
	for i, n := range numbers {
		claims = append(claims, ports.Claim{Port: ports.Port{Number: n, Protocol: want[i].Protocol}, By: "task " + u.name})
	}
	s.claims[t] = claims
	return numbers, ""
}

func (s *Supervisor) explain(c ports.Conflict) string {
	if c.Inode == 0 {
		return c.Sentence("")
	}
	h, ok := ports.FindHolder(s.o.Proc, c.Inode)
	if !ok {
		return c.Sentence("")
	}
	who := h.String()
	if h.PodUID != "" {
		name := h.PodUID
		if s.o.PodName != nil {
			if n := s.o.PodName(h.PodUID); n != "" {
				name = n
			}
		}
		who += " of pod " + name
	}
	return c.Sentence(who)
}

// networkOfHost is a process in the network namespace that the tasks are in.
func (o Options) networkOfHost() string {
	if o.Network == "" {
		return "/proc/self"
	}
	return o.Proc + "/1"
}

func (s *Supervisor) unclaim(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.claims, t)
}

// release gives a task's ports back, and lets others look whether it was those
// they wait for.
func (u *unit) release(t *task) {
	u.s.mu.Lock()
	defer u.s.mu.Unlock()
	if len(u.s.claims[t]) > 0 {
		for _, other := range u.s.units {
			other.post(func() {})
		}
	}
	delete(u.s.claims, t)
}
