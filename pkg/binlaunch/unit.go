package binlaunch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/lifecycle"
)

// unit is one Binary on this node. All its fields but the inbox belong to the
// goroutine of run.
type unit struct {
	s      *Supervisor
	name   string
	source string // guarded by the supervisor's mu
	log    *slog.Logger
	inbox  inbox

	wanted             *v1alpha1.Binary // defaulted; nil: not wanted
	from               string           // its source
	hash               string
	admitted           bool
	current, next      *task
	leaving            []*task
	previous           *v1alpha1.Binary // what ran before the task in place of it
	rejected           string           // hash
	rejectedGeneration int64
	rejection          string // why
	held               held
	ports              map[string]int32 // that its tasks had last
	pins               []string         // what its artifacts were last
	saved              []byte
	shares             atomic.Bool // two tasks may answer on one held socket
}

func newUnit(s *Supervisor, name string) *unit {
	return &unit{s: s, name: name, log: s.log.With("binary", name), inbox: inbox{wake: make(chan struct{}, 1)}, held: held{}, ports: map[string]int32{}}
}

// inbox is what has happened and was not yet dealt with. Posting never blocks.
type inbox struct {
	mu   sync.Mutex
	all  []func()
	wake chan struct{}
}

func (u *unit) post(f func()) {
	u.inbox.mu.Lock()
	defer u.inbox.mu.Unlock()
	u.inbox.all = append(u.inbox.all, f)
	select {
	case u.inbox.wake <- struct{}{}:
	default:
	}
}

func (u *unit) take() []func() {
	u.inbox.mu.Lock()
	defer u.inbox.mu.Unlock()
	all := u.inbox.all
	u.inbox.all = nil
	return all
}

// run deals with what happens to the unit until ctx ends or nothing is left of
// it.
func (u *unit) run(ctx context.Context) {
	defer u.held.close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.inbox.wake:
		}
		for _, f := range u.take() {
			f()
		}
		if u.settle() {
			return
		}
	}
}

// want is told by the supervisor.
func (u *unit) want(source string, w Wanted, ok bool) {
	if !ok {
		u.wanted, u.hash = nil, ""
		return
	}
	b := w.Binary.DeepCopy()
	b.Spec = *b.Spec.Defaulted()
	u.wanted, u.from, u.admitted, u.hash = b, source, w.Admitted, specHash(&b.Spec)
}

// specHash tells two specs apart by what they mean, not by what was left out.
// How an update goes about is no change of the program: it restarts nothing.
// A field that is new has to stay empty where it is not set, or an upgrade of the
// agent would exchange every task.
func specHash(s *v1alpha1.BinarySpec) string {
	d := s.DeepCopy()
	d.Update, d.Roles = v1alpha1.Update{}, nil
	raw, err := json.Marshal(d)
	if err != nil {
		raw = []byte(err.Error()) // plain data: it cannot fail
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// settle decides and applies until there is nothing more to do for now. It is
// true when nothing is left of the unit.
func (u *unit) settle() bool {
	for {
		u.sweep()
		what := decide(u.look())
		if what == remove {
			if err := u.unsave(); err != nil {
				u.log.Error("cannot remove its record", "err", err)
			}
			if u.s.ended(u) {
				return true
			}
			what = rest
		}
		if what == rest || !u.apply(what) {
			break
		}
	}
	u.save()
	u.show()
	return false
}

func (u *unit) look() view {
	v := view{
		Hash: u.hash, Rejected: u.rejected, Admitted: u.admitted, Previous: u.previous != nil, Leaving: len(u.leaving) > 0, Beside: true,
		Current: u.glimpse(u.current), Next: u.glimpse(u.next),
	}
	if u.wanted != nil {
		v.Wanted = u.fits()
		if u.current != nil {
			v.Beside = beside(&u.current.spec.Spec, &u.wanted.Spec)
		}
	}
	return v
}

// fits tells whether the node has one of the roles. As long as that is not
// known, what there is stays and nothing is begun.
func (u *unit) fits() bool {
	if u.s.o.Role == nil {
		return true
	}
	role, known := u.s.o.Role()
	if !known {
		return u.current != nil || u.next != nil
	}
	return slices.Contains(u.wanted.Spec.Roles, "*") || slices.Contains(u.wanted.Spec.Roles, role)
}

func (u *unit) glimpse(t *task) *glimpse {
	if t == nil {
		return nil
	}
	return &glimpse{Hash: t.hash, State: t.state, Fetched: t.program != nil, Settled: t.settled(time.Now()), Broken: t.broken(time.Now())}
}

// apply does one step, and is false when nothing came of it for now.
func (u *unit) apply(what step) bool {
	u.log.Debug("step", "step", string(what))
	switch what {
	case create:
		u.current, u.previous = newTask(u.wanted, u.hash), nil
	case createPrevious:
		u.current, u.previous = newTask(u.previous, specHash(&u.previous.Spec)), nil
		u.current.message = "back to the spec before: " + u.rejection
	case createNext:
		u.next = newTask(u.wanted, u.hash)
		u.awaitDeadline(u.next)
	case admitCurrent:
		return u.admit(u.current)
	case admitNext:
		return u.admit(u.next)
	case prefetchNext:
		return u.prefetch(u.next)
	case dropCurrent:
		u.drop(&u.current, "it is not wanted any more")
	case dropNext:
		u.drop(&u.next, "another change took its place")
	case yieldCurrent:
		u.previous = u.current.spec
		u.drop(&u.current, "the new task takes its ports")
	case rejectNext:
		u.reject()
	case promote:
		u.log.Info("the new task took over", "task", u.next.id, "generation", u.next.spec.Generation)
		u.drop(&u.current, "the new task took over")
		u.current, u.next, u.previous, u.rejected, u.rejectedGeneration = u.next, nil, nil, "", 0
	}
	return true
}

// drop lets a task go. While a process of it runs it is among the leaving.
func (u *unit) drop(which **task, why string) {
	t := *which
	if t == nil {
		return
	}
	*which = nil
	u.leaving = append(u.leaving, t)
	t.unwanted = true
	u.fire(t, lifecycle.Unwanted, why)
}

func (u *unit) reject() {
	t := u.next
	u.rejected, u.rejectedGeneration = t.hash, t.spec.Generation
	u.rejection = "the changed one did not become healthy: " + t.message
	u.log.Warn("a change is taken back", "generation", t.spec.Generation, "reason", t.message)
	u.drop(&u.next, t.message)
}

// sweep forgets tasks that are gone, and closes sockets that none has any more.
func (u *unit) sweep() {
	u.leaving = slices.DeleteFunc(u.leaving, func(t *task) bool { return t.state == v1alpha1.StateGone })
	two := u.next
	if two == nil && len(u.leaving) > 0 {
		two = u.leaving[0]
	}
	u.shares.Store(two != nil)
	u.held.keep(u.wanted, u.current, u.next, u.leaving)
}
