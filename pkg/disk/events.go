//go:build linux

package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// drainEvery is how old what is known of the queue may be.
	drainEvery = 200 * time.Millisecond
	// queueLong is how many events let the queue be read before its second is
	// over. It takes 16,384 by default.
	queueLong = 4000
	// listBuffer takes some 800 names of a folder at a time.
	listBuffer = 32 << 10
	// forgetAfter: a layer nobody asks for any more is forgotten.
	forgetAfter = 15 * time.Minute
)

// EventsOptions are what an Events needs. Each has a default.
type EventsOptions struct {
	// HostRoot is where the host's root folder is mounted. Default "/".
	HostRoot string
	// CheckEvery is how often a layer is walked in full, to find out by how
	// much its figure is wrong: what is written through a mapping of a file
	// that stays open raises no event. Default 10 min; a layer whose walk is
	// costly is checked more seldom.
	CheckEvery time.Duration
	Logger     *slog.Logger // nil: silent
}

// Events measures layers by following what happens to them: the kernel tells
// (fanotify(7)) in which folder which name was written, made, moved or removed,
// and only that is looked at. An idle layer costs five system calls a look,
// whatever it holds. It counts what Walker counts.
//
// Each folder is listened to until a file in it is written all the time; then its
// files are looked at by every look instead, and their writers spared the events. When the queue of events overflowed, or what
// they tell is not enough (a new hard link to a file elsewhere), the layer is
// read again in full, and ErrLater told while that would cost too much. A file
// system that cannot be followed is walked; Look.Method tells.
//
// It needs the capabilities SYS_ADMIN and DAC_READ_SEARCH. Memory: some 250
// bytes a folder, and 150 for each file of those folders that had events; both
// bounded.
type Events struct {
	opts    EventsOptions
	walker  *Walker
	group   *fanGroup
	names   atomic.Int64  // kept in all trees
	pinned  atomic.Int64  // folders whose inodes are kept in the kernel's memory
	buffers sync.Pool     // of *[listBuffer]byte: a tree needs one while it reads a folder, and there are many trees
	every   time.Duration // drainEvery
	quiet   time.Duration // quietAfter

	mu      sync.Mutex
	index   map[string]*folder
	marked  map[fsid]error
	layers  map[string]*eventLayer
	drained time.Time
	broken  error
	woken   map[string]bool // upper folders with events since they were last told
}

// eventLayer is a layer that is followed.
type eventLayer struct {
	upper  string
	mu     sync.Mutex // of one Measure at a time
	tree   *tree
	cost   time.Duration // of reading it in full
	next   time.Time     // not read in full before
	check  time.Time     // when it is to be checked
	walked time.Time     // until then, as it is too large to be followed
	files  []Item
	dirs   []Item

	// Guarded by Events.mu.
	dirty map[*folder]*woken
	stale bool // events were lost
	asked time.Time
	gone  bool
}

// NewEvents opens the queue of events. It fails where ProbeEvents tells why.
func NewEvents(o EventsOptions) (*Events, error) {
	o.HostRoot = cmp.Or(o.HostRoot, "/")
	o.CheckEvery = cmp.Or(o.CheckEvery, 10*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	g, err := newFanGroup()
	if err != nil {
		return nil, missingCapability(err, "SYS_ADMIN")
	}
	return &Events{
		opts: o, walker: NewWalker(o.HostRoot), group: g, every: drainEvery, quiet: quietAfter,
		index: make(map[string]*folder), marked: make(map[fsid]error), layers: make(map[string]*eventLayer),
		woken: make(map[string]bool), buffers: sync.Pool{New: func() any { return new([listBuffer]byte) }},
	}, nil
}

// Close ends the following. No Measure may run or come after it.
func (e *Events) Close() error { return e.group.close() }

// Method implements Meter.
func (*Events) Method() string { return "events" }

// Run reads the queue of events a second after the first came, sooner when it is
// long, so that it never overflows because nobody measures. While nothing
// happens it sleeps. It ends with ctx, or when the queue cannot be read any
// more: then everything is walked.
func (e *Events) Run(ctx context.Context) {
	defer context.AfterFunc(ctx, e.group.interrupt)()
	var swept time.Time
	for e.group.wait() == nil {
		select {
		case <-ctx.Done():
			return
		case now := <-time.After(drainEvery):
			age := time.Second
			if e.group.waiting() > queueLong {
				age = 0
			}
			if _, err := e.drain(now, age); err != nil {
				e.opts.Logger.Error("layers are walked from now on", "err", err)
				return
			}
			if now.Sub(swept) > forgetAfter/15 {
				swept = now
				e.forgetOld(now)
			}
		}
	}
	if ctx.Err() == nil {
		e.opts.Logger.Warn("the queue of file events is read once a second only: it cannot be waited for")
	}
}

// Woken implements Listener. It costs one system call when nothing happened.
func (e *Events) Woken(each func(upper string)) (time.Time, error) {
	until, err := e.drain(time.Now(), e.every)
	if err != nil {
		return time.Time{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for upper := range e.woken {
		each(upper)
	}
	clear(e.woken)
	return until, nil
}

// Rest implements Listener.
func (e *Events) Rest(upper string) {
	e.mu.Lock()
	l := e.layers[upper]
	e.mu.Unlock()
	if l == nil || !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	if l.tree != nil && l.tree.still() {
		l.tree.rest()
	}
}

// Forget tells that a layer is gone.
func (e *Events) Forget(upper string) {
	e.mu.Lock()
	l := e.layers[upper]
	delete(e.layers, upper)
	if l != nil {
		l.gone = true
	}
	e.mu.Unlock()
	e.walker.Forget(upper)
	if l != nil && l.mu.TryLock() { // else its Measure does it
		e.discard(l)
		l.mu.Unlock()
	}
}

func (e *Events) forgetOld(now time.Time) {
	var old []string
	e.mu.Lock()
	for upper, l := range e.layers {
		if now.Sub(l.asked) > forgetAfter {
			old = append(old, upper)
		}
	}
	e.mu.Unlock()
	for _, upper := range old {
		e.Forget(upper)
	}
}

// drain reads the queue unless that was done less than age ago, and tells until
// when all that happened is known.
func (e *Events) drain(now time.Time, age time.Duration) (time.Time, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken != nil {
		return time.Time{}, e.broken
	}
	if now.Sub(e.drained) < age {
		return e.drained, nil
	}
	now = time.Now()
	if err := e.group.read(e.sort); err != nil {
		e.broken = err
		return time.Time{}, err
	}
	e.drained = now
	return now, nil
}

// sort hands an event to its layer. A folder that is not known is in none, or
// is below one whose own event tells of it.
func (e *Events) sort(v event) {
	if v.overflow() {
		e.opts.Logger.Warn("the queue of file events overflowed, all layers are read again")
		for _, l := range e.layers {
			l.stale = true
			e.woken[l.upper] = true
		}
		return
	}
	f := e.index[string(v.folder)]
	if f == nil {
		return
	}
	l := f.tree.layer
	if l.dirty == nil {
		l.dirty = make(map[*folder]*woken)
	}
	w := l.dirty[f]
	if w == nil {
		w = &woken{}
		l.dirty[f] = w
	}
	w.add(v.name, v.mask)
	e.woken[l.upper] = true
}

func (e *Events) of(t *tree, key string) *folder {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.index[key]; f != nil && f.tree == t {
		return f
	}
	return nil
}

func (e *Events) add(f *folder) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.index) >= foldersKept || e.index[f.key] != nil {
		return false
	}
	e.index[f.key] = f
	return true
}

func (e *Events) remove(f *folder) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.index[f.key] == f {
		delete(e.index, f.key)
	}
}

// follow makes sure that the file system of an open folder is followed.
func (e *Events) follow(id fsid, fd int) error {
	e.mu.Lock()
	err, tried := e.marked[id]
	e.mu.Unlock()
	if tried {
		return err
	}
	err = e.group.follow(fd) // without the lock: the file system may hang
	if err != nil {
		e.opts.Logger.Warn("layers of a file system are walked", "err", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.marked[id] = err
	return err
}

func (e *Events) layer(upper string) *eventLayer {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.layers[upper]
	if l == nil {
		l = &eventLayer{upper: upper}
		e.layers[upper] = l
	}
	l.asked = time.Now()
	return l
}

// discard forgets what is known of a layer.
func (e *Events) discard(l *eventLayer) {
	e.mu.Lock()
	l.dirty = nil
	e.mu.Unlock()
	if t := l.tree; t != nil {
		l.tree = nil
		t.lost = append(t.lost, t.root)
		for len(t.lost) > 0 {
			f := t.lost[len(t.lost)-1]
			t.lost = t.lost[:len(t.lost)-1]
			if f != nil && !f.dead {
				t.drop(f)
			}
		}
	}
}

// Measure implements Meter.
func (e *Events) Measure(ctx context.Context, target Target) (Look, error) {
	upper := target.Layer.Upper
	l := e.layer(upper)
	l.mu.Lock()
	defer l.mu.Unlock()
	look, err := e.measure(ctx, l, target)
	if errors.Is(err, ErrGone) {
		e.mu.Lock()
		l.gone = true
		if e.layers[upper] == l {
			delete(e.layers, upper)
		}
		e.mu.Unlock()
	}
	e.mu.Lock()
	gone := l.gone
	e.mu.Unlock()
	if gone {
		e.discard(l)
	}
	if err != nil {
		return Look{}, fmt.Errorf("cannot follow %s: %w", upper, err)
	}
	return look, nil
}

// Probe implements Prober, for layers that are walked.
func (e *Events) Probe(ctx context.Context, target Target) (Look, error) {
	look, err := e.walker.Probe(ctx, target)
	look.Method = e.walker.Method()
	return look, err
}

func (e *Events) measure(ctx context.Context, l *eventLayer, target Target) (Look, error) {
	begun := time.Now()
	fd, err := openLayer(e.opts.HostRoot, target.Layer.Upper)
	if err != nil {
		return Look{}, err
	}
	defer func() { _ = unix.Close(fd) }()
	look, err := e.followed(ctx, l, target, fd)
	if errors.Is(err, errUnfollowed) || errors.Is(err, errTooMany) {
		if errors.Is(err, errTooMany) {
			if l.tree != nil {
				l.tree.deafenAll(fd)
			}
			e.discard(l)
			l.walked = time.Now().Add(e.opts.CheckEvery)
		}
		look, err = e.walker.Measure(ctx, target)
		look.Method = e.walker.Method()
		return look, err
	}
	if err != nil {
		if !errors.Is(err, ErrLater) {
			e.discard(l) // half done: not to be trusted
		}
		return Look{}, err
	}
	if look.Filesystem, err = fstatfs(fd); err != nil {
		return Look{}, err
	}
	look.Method = e.Method()
	look.Took = max(0, time.Since(begun)-look.Started.Sub(begun))
	return look, nil
}

var errUnfollowed = errors.New("file system cannot be followed")

// followed measures a layer by what events told.
func (e *Events) followed(ctx context.Context, l *eventLayer, target Target, fd int) (Look, error) {
	if time.Now().Before(l.walked) {
		return Look{}, errUnfollowed
	}
	id, err := fsidOf(fd)
	if err != nil {
		return Look{}, err
	}
	if err := e.follow(id, fd); err != nil {
		return Look{}, errUnfollowed
	}
	at, err := e.drain(time.Now(), e.every)
	if err != nil {
		return Look{}, errUnfollowed
	}
	if l.tree != nil && !l.tree.isRoot(fd) {
		e.discard(l) // another folder has its path now
	}
	if l.tree != nil {
		l.tree.mount = fd
	}
	stale, dirty := e.take(l)
	before := l.tree
	switch {
	case before == nil || stale:
		err = e.read(ctx, l, id, fd)
		at = time.Now()
	case at.After(l.check):
		err = e.check(ctx, l, target, dirty, id, fd)
		at = time.Now()
	default:
		err = e.update(ctx, l, dirty)
	}
	if err != nil {
		return Look{}, err
	}
	if t := l.tree; t.changed {
		t.changed = false
		l.files, l.dirs = t.files(target.Since), t.folders(target.Since)
	}
	return Look{
		Started: at, Usage: l.tree.usage, Device: l.tree.dev, Files: l.files, Folders: l.dirs,
		Checked: l.tree.checked, Error: l.tree.wrong, Still: l.tree.still(),
		Whole: l.tree != before || l.tree.checked,
	}, nil
}

func (t *tree) isRoot(fd int) bool {
	return handleOf(fd, []byte{0}, &t.handle) == nil && t.handle.key(t.fs) == t.root.key
}

func (e *Events) take(l *eventLayer) (stale bool, dirty map[*folder]*woken) {
	e.mu.Lock()
	defer e.mu.Unlock()
	dirty, l.dirty = l.dirty, nil
	if dirty == nil {
		dirty = make(map[*folder]*woken)
	}
	return l.stale, dirty
}

// update follows the events, and reads the layer in full where they are not
// enough.
func (e *Events) update(ctx context.Context, l *eventLayer, dirty map[*folder]*woken) error {
	t := l.tree
	t.checked, t.wrong = false, Usage{}
	late, sure, err := t.update(dirty, ctx.Err)
	if err != nil {
		return err
	}
	if len(late) > 0 {
		e.putBack(l, late)
		return fmt.Errorf("a large folder changes: %w", ErrLater)
	}
	if !sure {
		return e.read(ctx, l, t.fs, t.mount)
	}
	return nil
}

// putBack lets folders wait for their turn.
func (e *Events) putBack(l *eventLayer, late map[*folder]*woken) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for f, w := range l.dirty {
		if old := late[f]; old != nil {
			old.whole = true
		} else {
			late[f] = w
		}
	}
	l.dirty = late
}

// read reads a layer in full.
func (e *Events) read(ctx context.Context, l *eventLayer, id fsid, fd int) error {
	begun := time.Now()
	if l.tree != nil && begun.Before(l.next) {
		e.mu.Lock()
		l.stale = true
		e.mu.Unlock()
		return fmt.Errorf("the layer must be read in full: %w", ErrLater)
	}
	e.discard(l)
	e.mu.Lock()
	l.stale = false
	e.mu.Unlock()
	l.tree = &tree{
		ev: e, layer: l, fs: id, mount: fd, links: make(map[uint64]*link), awake: make(map[*folder]bool),
		changed: true,
	}
	if err := l.tree.build(ctx.Err); err != nil {
		return err
	}
	l.tree.dropLost()
	l.tree.settleLinks()
	l.cost = time.Since(begun)
	l.next = time.Now().Add(listShare * l.cost)
	l.plan(e.opts.CheckEvery)
	return nil
}

// plan sets when the next check is due; not all at once.
func (l *eventLayer) plan(every time.Duration) {
	every = max(every, 5*listShare*l.cost)
	l.check = time.Now().Add(every - time.Duration(rand.Int64N(int64(every)/4+1))) //nolint:gosec // spreads load
}

// check walks a layer in full, as if nothing was known of it, and tells by how
// much the figure was wrong. What changed during the walk is no error.
func (e *Events) check(ctx context.Context, l *eventLayer, target Target, dirty map[*folder]*woken, id fsid, fd int) error {
	if err := e.update(ctx, l, dirty); err != nil {
		return err
	}
	before := l.tree.usage
	walked, _, err := e.walker.walk(ctx, target)
	if err != nil {
		return err
	}
	if _, err := e.drain(time.Now(), 0); err != nil {
		return errUnfollowed
	}
	if _, dirty = e.take(l); true {
		if err := e.update(ctx, l, dirty); err != nil {
			return err
		}
	}
	after := l.tree.usage
	wrong := Usage{
		Bytes:  outside(walked.Usage.Bytes, before.Bytes, after.Bytes),
		Inodes: outside(walked.Usage.Inodes, before.Inodes, after.Inodes),
	}
	l.plan(e.opts.CheckEvery)
	if wrong != (Usage{}) {
		l.next = time.Time{}
		if err := e.read(ctx, l, id, fd); err != nil {
			return err
		}
	}
	l.tree.checked, l.tree.wrong = true, wrong
	return nil
}
