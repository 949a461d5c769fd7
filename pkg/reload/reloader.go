package reload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// Options is what a Reloader has to know.
type Options struct {
	Node      string // whose agent carries out what is asked for: this one
	Namespace string // the agent's own
	Excluded  func(namespace string) bool
	Deadline  time.Duration
	Now       func() time.Time // default time.Now
}

// Reloader restarts workloads whose configuration changed.
type Reloader struct {
	client  client.WithWatch
	options Options
	log     *slog.Logger
}

// New makes one. Its client knows ConfigMaps and Secrets, which no other part
// of the agent does.
func New(config *rest.Config, o Options, log *slog.Logger) (*Reloader, error) {
	mapper := restart.NewMapper()
	for _, kind := range []string{"ConfigMap", "Secret"} {
		mapper.Add(corev1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	c, err := restart.NewClientFor(config, mapper, "nodeagent")
	if err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Reloader{client: c, options: o, log: log}, nil
}

const (
	firstPause   = time.Second
	longestPause = time.Minute
	// patience bounds one pass over all workloads.
	patience = 2 * time.Minute
)

// Lead looks for changes until ctx ends, which is when this agent leads no
// longer. What fails is begun anew: all that has to be known stands in the API.
func (r *Reloader) Lead(ctx context.Context) {
	wait := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := r.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > longestPause {
			wait = firstPause
		}
		r.log.Warn("changes of ConfigMaps and Secrets not looked for; it is tried again", "error", err)
		sleep(ctx, wait)
		wait = min(2*wait, longestPause)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// session is one begin of it, until something fails.
func (r *Reloader) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	remembered, err := recall(ctx, r.client, r.options.Namespace)
	if err != nil {
		cancel()
		return err
	}
	seen := newCluster()
	wait := seen.follow(ctx, r.client)
	defer wait()
	defer cancel()
	p := &pass{Reloader: r, seen: seen, memory: remembered, known: map[object]known{}, first: true}
	for ctx.Err() == nil {
		next := p.at().Add(100 * time.Millisecond)
		if seen.ready() {
			if next, err = p.run(ctx); err != nil {
				return err
			}
		}
		timer := time.NewTimer(max(0, next.Sub(p.at())))
		select {
		case <-ctx.Done():
		case <-seen.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
	return ctx.Err()
}

// known is what was read of an object at one version.
type known struct {
	version string
	print   string
	seen    time.Time // when its data was seen to be another; zero: when this began
}

// pass goes over all workloads that ask, again and again.
type pass struct {
	*Reloader
	seen   *cluster
	memory *memory
	known  map[object]known
	first  bool
}

func (p *pass) at() time.Time { return p.options.Now() }

// run deals with all that is due and says when to look again. One workload that
// cannot be dealt with holds up no other.
func (p *pass) run(ctx context.Context) (next time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	next = p.at().Add(time.Hour)
	soon := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	there, used := map[types.UID]bool{}, map[object]bool{}
	for _, w := range p.seen.list() {
		if p.options.Excluded != nil && p.options.Excluded(w.namespace) {
			continue
		}
		there[w.uid] = true
		for _, ref := range w.refs {
			used[object{ref.Kind, w.namespace, ref.Name}] = true
		}
		until, err := p.deal(ctx, w)
		if err != nil {
			p.log.Warn("cannot tell whether a workload's configuration changed; it is tried again", "workload", name(w), "error", err)
			until = p.at().Add(longestPause / 6)
		}
		if !until.IsZero() {
			soon(until)
		}
	}
	for o := range p.known {
		if !used[o] {
			delete(p.known, o)
		}
	}
	p.first = false
	p.memory.keep(there)
	return next, p.memory.save(ctx)
}

func name(w workload) string {
	return w.namespace + "/" + strings.ToLower(w.target.Kind) + "/" + w.target.Name
}

// deal takes one workload's step. It gives when to look again, if that has to
// be before something changes.
func (p *pass) deal(ctx context.Context, w workload) (time.Time, error) {
	v := view{at: p.at(), refs: w.refs, applied: p.memory.get(w.uid)}
	var err error
	if v.now, v.changed, err = p.fingerprints(ctx, w); err != nil {
		return time.Time{}, err
	}
	if changed, _ := changes(v.refs, v.applied, v.now); len(changed) > 0 {
		if v.restart, err = p.restartOf(ctx, w); err != nil {
			return time.Time{}, err
		}
	}
	s := decide(v)
	switch s.action {
	case remember:
		p.memory.set(w.uid, s.applied)
	case ask:
		return p.at().Add(poll), p.ask(ctx, w, s)
	case later:
		return s.until, nil
	case nothing:
	}
	return time.Time{}, nil
}

// fingerprints of all that a workload uses; read anew where the version is
// another. changed is when the latest change of data was seen.
func (p *pass) fingerprints(ctx context.Context, w workload) (now prints, changed time.Time, err error) {
	now = prints{}
	for _, ref := range w.refs {
		o := object{ref.Kind, w.namespace, ref.Name}
		k, ok := p.known[o]
		if version := p.seen.version(o); !ok || k.version != version {
			read := known{version: version, seen: k.seen}
			if version != "" {
				if read.print, err = p.read(ctx, o); err != nil {
					return nil, changed, err
				}
			}
			if ok && read.print != k.print {
				read.seen = p.at()
			}
			p.known[o], k = read, read
		}
		now[ref.String()] = k.print
		if k.seen.After(changed) {
			changed = k.seen
		}
	}
	return now, changed, nil
}

// read makes the fingerprint of an object's data, and drops the data.
func (p *pass) read(ctx context.Context, o object) (string, error) {
	key := client.ObjectKey{Namespace: o.namespace, Name: o.name}
	salt := string(o.kind) + "/" + o.namespace + "/" + o.name
	data := map[string][]byte{}
	var err error
	if o.kind == secret {
		var s corev1.Secret
		if err = p.client.Get(ctx, key, &s); err == nil {
			data = s.Data
		}
	} else {
		var c corev1.ConfigMap
		if err = p.client.Get(ctx, key, &c); err == nil {
			for name, value := range c.Data {
				data[name] = []byte(value)
			}
			for name, value := range c.BinaryData {
				data[name] = value
			}
		}
	}
	if apierrors.IsNotFound(err) {
		return absent, nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read %s %s: %w", o.kind, key, err)
	}
	return fingerprint(salt, data), nil
}

func (p *pass) restartOf(ctx context.Context, w workload) (*v1alpha1.Restart, error) {
	var r v1alpha1.Restart
	err := p.client.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: restart.Name(w.target.Kind, w.target.Name)}, &r)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the Restart of %s: %w", name(w), err)
	}
	return &r, nil
}

func (p *pass) ask(ctx context.Context, w workload, s step) error {
	r, outcome, err := restart.Ask(ctx, p.client, restart.Wish{
		Namespace: w.namespace, Target: w.target, TargetUID: string(w.uid), Scope: v1alpha1.ScopeWorkload, Node: p.options.Node,
		Reason: v1alpha1.ReasonConfigChange, Message: "Changed: " + strings.Join(s.changed, ", ") + ".",
		Deadline: p.options.Deadline, Annotations: map[string]string{AnnotationDigest: s.digest},
	}, p.at())
	if err != nil {
		return err
	}
	if r == nil {
		return errors.New("no Restart was made")
	}
	p.log.Info("a workload's configuration changed", "workload", name(w), "changed", s.changed, "restart", r.Name, "outcome", string(outcome))
	return nil
}
