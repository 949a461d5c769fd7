package binlaunch

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/ports"
)

// Options are what a supervisor works with.
type Options struct {
	Node string
	// Host is the node's address: $HOST of the tasks, and where a probe asks
	// that loopback did not answer.
	Host string
	// Folder holds what has to be known again after a restart of the agent.
	Folder   string
	Fetcher  Fetcher
	Launcher Launcher
	Range    ports.Range   // of ports without a number
	Network  ports.Network // that the tasks are in
	Proc     string        // the host's /proc
	// PodPorts are the host ports of the node's pods; PodName names one by its
	// uid. Nil without a cluster.
	PodPorts func() []ports.Claim
	PodName  func(uid string) string
	// Role is the node's, and whether it is known yet: until then nothing is
	// started or stopped for it. Nil: every role fits.
	Role            func() (role string, known bool)
	AllowPrivileged bool
	Logger          *slog.Logger
}

// Wanted is one Binary as a source tells it.
type Wanted struct {
	Binary *v1alpha1.Binary
	// Admitted lets a change of its spec be carried out now.
	Admitted bool
}

// Supervisor keeps this node's Binaries running.
type Supervisor struct {
	o       Options
	log     *slog.Logger
	ctx     context.Context //nolint:containedctx // Run's, for the units that come later
	running sync.WaitGroup

	mu      sync.Mutex
	started bool
	sources map[string]map[string]Wanted // source, name
	told    map[string]bool              // sources that have told what they want
	units   map[string]*unit
	claims  map[*task][]ports.Claim
	shown   map[string]Instance
	clashes map[string]string // what was told of two sources with one name
	changed chan struct{}
}

// New makes a supervisor. Nothing happens before Run.
func New(o Options) *Supervisor {
	return &Supervisor{
		o: o, log: o.Logger, sources: map[string]map[string]Wanted{}, told: map[string]bool{}, units: map[string]*unit{},
		claims: map[*task][]ports.Claim{}, shown: map[string]Instance{}, clashes: map[string]string{}, changed: make(chan struct{}),
	}
}

// Run takes up what earlier agents left, keeps everything that is wanted
// running until ctx ends, and leaves it running then.
func (s *Supervisor) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.o.Folder, 0o700); err != nil {
		return fmt.Errorf("cannot make the folder of launched binaries: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.ctx = ctx
	left := s.attach(ctx)
	if ctx.Err() != nil {
		return nil // ended before anything is known
	}
	s.mu.Lock()
	s.restore(left)
	again := slices.Collect(maps.Values(s.units))
	s.started = true
	s.reconcile()
	for _, u := range again {
		s.begin(u)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.running.Wait()
	return nil
}

// attach asks until there is an answer: without one a second copy might be
// started of what runs.
func (s *Supervisor) attach(ctx context.Context) map[string]Task {
	for {
		found, err := s.o.Launcher.Attach(ctx)
		if err == nil {
			left := map[string]Task{}
			for _, t := range found {
				left[t.ID()] = t
			}
			return left
		}
		s.log.Error("cannot find what earlier agents started; nothing is started before that", "err", err)
		if !sleep(ctx, 5*time.Second) {
			return nil
		}
	}
}

// Want tells all that a source wants now, in place of what it told before. A
// source that has not told yet wants what it wanted when the last agent ended.
func (s *Supervisor) Want(source string, all []Wanted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byName := map[string]Wanted{}
	for _, w := range all {
		byName[w.Binary.Name] = w
	}
	s.sources[source], s.told[source] = byName, true
	s.reconcile()
}

// Poke makes every unit look again: a role, a pod or a port has changed.
func (s *Supervisor) Poke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.units {
		u.post(func() {})
	}
}

// reconcile hands every unit what is wanted of it. The caller holds mu.
func (s *Supervisor) reconcile() {
	if !s.started {
		return
	}
	names := map[string]bool{}
	for _, wanted := range s.sources {
		for name := range wanted {
			names[name] = true
		}
	}
	for name := range names {
		if s.units[name] == nil {
			s.begin(newUnit(s, name))
		}
	}
	for name, u := range s.units {
		source, wanted, ok := s.choose(name, u.source)
		u.source = source
		u.post(func() { u.want(source, wanted, ok) })
	}
}

// begin runs a unit. The caller holds mu.
func (s *Supervisor) begin(u *unit) {
	s.units[u.name] = u
	s.running.Go(func() { u.run(s.ctx) })
}

// choose settles which source a name belongs to: the one it has belonged to,
// else the first by name. Others that want it are told of in the log.
func (s *Supervisor) choose(name, before string) (string, Wanted, bool) {
	var who []string
	for _, source := range slices.Sorted(maps.Keys(s.sources)) {
		if _, ok := s.sources[source][name]; ok {
			who = append(who, source)
		}
	}
	if len(who) == 0 {
		return "", Wanted{}, false
	}
	chosen := who[0]
	if slices.Contains(who, before) {
		chosen = before
	}
	clash := ""
	if len(who) > 1 {
		clash = fmt.Sprint(who)
	}
	if clash != s.clashes[name] {
		s.clashes[name] = clash
		if clash != "" {
			s.log.Warn("a name is wanted twice", "binary", name, "by", clash, "taken", chosen)
		}
	}
	return chosen, s.sources[chosen][name], true
}

// ended forgets a unit of which nothing is left, unless it is wanted again.
func (s *Supervisor) ended(u *unit) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, _, wanted := s.choose(u.name, u.source); wanted {
		return false
	}
	delete(s.units, u.name)
	delete(s.shown, u.name)
	delete(s.clashes, u.name)
	s.notify()
	return true
}

// notify tells that something shown has changed. The caller holds mu.
func (s *Supervisor) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Changed returns a channel that is closed with the next change.
func (s *Supervisor) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// sleep is false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
