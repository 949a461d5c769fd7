package binlaunch

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Instance is how one Binary stands on this node.
type Instance struct {
	Name     string
	Source   string
	Wanted   *v1alpha1.Binary // nil: on its way out
	Running  *v1alpha1.Binary // what the current task was started by
	Status   v1alpha1.BinaryInstanceStatus
	OOMKills int32
	Misses   int  // fetches in a row that failed, of the task or of the one that is to follow it
	task     Task // nil: none runs
	past     Task // the one before
}

// show publishes how the unit stands.
func (u *unit) show() {
	i := Instance{Name: u.name, Source: u.from, Wanted: u.wanted}
	t := u.current
	if t == nil {
		t = u.next
	}
	if t == nil && len(u.leaving) > 0 {
		t = u.leaving[0]
	}
	switch {
	case t != nil:
		i.Running, i.OOMKills, i.task, i.past = t.spec, t.oomKills, t.proc, t.past
		i.Status = t.status()
	case u.wanted != nil:
		i.Status = v1alpha1.BinaryInstanceStatus{State: v1alpha1.StateWaiting, Message: u.notHere()}
	}
	if u.wanted != nil {
		i.Status.ObservedGeneration = u.wanted.Generation
	}
	if u.rejected != "" && u.rejected == u.hash {
		i.Status.RejectedGeneration = u.wanted.Generation
		i.Status.Message = strings.TrimPrefix(i.Status.Message+"; "+u.rejection, "; ")
	}
	for _, t := range []*task{t, u.next} {
		if t != nil {
			i.Misses = max(i.Misses, t.misses)
		}
	}
	if u.next != nil && u.next != t {
		i.Status.Next = &v1alpha1.NextStatus{State: u.next.state, Message: u.next.message + u.next.then, Pid: pidOf(u.next.proc)}
	}
	switch {
	case u.wanted == nil || t == nil:
	case t.hash == u.hash && t.state == v1alpha1.StateHealthy:
		// The same program by a newer generation: roles or update changed alone.
		i.Status.RunningGeneration = u.wanted.Generation
	case t.spec.UID != u.wanted.UID:
		// It was deleted and made anew, and counts its generations from 1 again.
		i.Status.RunningGeneration = 0
	}
	u.s.mu.Lock()
	defer u.s.mu.Unlock()
	u.s.shown[u.name] = i
	u.s.notify()
}

func (u *unit) notHere() string {
	if u.s.o.Role != nil {
		if role, known := u.s.o.Role(); known {
			return fmt.Sprintf("this node's role is %s; it wants %s", role, strings.Join(u.wanted.Spec.Roles, ", "))
		}
		return "this node's role is not known yet"
	}
	return ""
}

func (t *task) status() v1alpha1.BinaryInstanceStatus {
	s := v1alpha1.BinaryInstanceStatus{
		State: t.state, Since: &metav1.Time{Time: t.since.Truncate(time.Second)}, Message: t.message + t.then, Pid: pidOf(t.proc), Restarts: t.restarts,
		LastExit: t.lastExit, Enforced: t.record.Enforced, NotEnforced: t.record.NotEnforced, Phases: map[string]metav1.Duration{},
	}
	if t.state == v1alpha1.StateHealthy {
		s.RunningGeneration = t.spec.Generation
	}
	if t.proc != nil {
		s.Started = &metav1.Time{Time: t.proc.Started().Truncate(time.Second)}
	}
	if t.program != nil {
		s.Digest, s.Verified = t.program.Digest, t.program.Verified
	}
	for name, d := range t.phases {
		s.Phases[name] = metav1.Duration{Duration: d.Round(10 * time.Microsecond)}
	}
	var shown []string
	for i, p := range t.spec.Spec.Ports {
		if i < len(t.ports) {
			s.Ports = append(s.Ports, v1alpha1.PortStatus{Name: p.Name, Port: t.ports[i], Protocol: p.Protocol})
			shown = append(shown, fmt.Sprintf("%s=%d", p.Name, t.ports[i]))
		}
	}
	s.Endpoints = strings.Join(shown, ",")
	return s
}

func pidOf(t Task) int64 {
	if t == nil {
		return 0
	}
	return int64(t.Pid())
}

// Instances returns how all Binaries stand, by name.
func (s *Supervisor) Instances() []Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.shown), func(a, b Instance) int { return cmp.Compare(a.Name, b.Name) })
}

// Instance returns how one stands.
func (s *Supervisor) Instance(name string) (Instance, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.shown[name]
	return i, ok
}

// Output opens what the process wrote that runs, or the last one.
func (i Instance) Output(follow bool) (io.ReadCloser, error) {
	switch {
	case i.task != nil:
		return i.task.Output(follow)
	case i.past != nil:
		return i.past.Output(follow)
	}
	return nil, fmt.Errorf("%s has not run yet: it is %s", i.Name, i.Status.State)
}

// Stats reads the current task's figures; false where nothing runs or they
// cannot be read.
func (i Instance) Stats() (Stats, bool) {
	if i.task == nil {
		return Stats{}, false
	}
	s, err := i.task.Stats()
	return s, err == nil
}
