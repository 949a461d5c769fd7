package disk

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// maxRecordLine bounds what one line may make a reader hold.
const maxRecordLine = 4 << 20

// ErrCutShort tells that a recording ends without its last line, as one of an
// agent that was killed, or whose disk was full. What came before it holds.
var ErrCutShort = errors.New("the recording is cut short")

// Replay makes the verdicts of a recording again, by the code that made them
// when it was recorded: the watcher's, given looks instead of taking them. It
// holds as much memory as the watcher did.
type Replay struct {
	// Node and Began tell of the recording.
	Node  string
	Began time.Time
	// End is why the recording ended, once Next returned io.EOF.
	End string

	lines  *bufio.Scanner
	read   int // lines
	watch  *Watcher
	limits map[string]Limits // by pod UID
	places map[int]*place
	mounts map[string]*filesystem
	byKey  map[string]*track
}

// NewReplay reads a recording's head. The recording may be compressed or not.
func NewReplay(r io.Reader) (*Replay, error) {
	plain, err := plainOrZip(r)
	if err != nil {
		return nil, fmt.Errorf("cannot read the recording: %w", err)
	}
	p := &Replay{
		lines: bufio.NewScanner(plain), limits: make(map[string]Limits),
		places: make(map[int]*place), mounts: make(map[string]*filesystem), byKey: make(map[string]*track),
	}
	p.lines.Buffer(nil, maxRecordLine)
	l, err := p.line()
	switch {
	case err != nil:
		return nil, err
	case l.Head == nil || l.Head.Format != recordFormat:
		return nil, errors.New("cannot read the recording: it does not begin as one of nodeagent's")
	case l.Head.Version != recordVersion:
		return nil, fmt.Errorf("cannot read the recording: it has version %d of the format, this program knows %d", l.Head.Version, recordVersion)
	}
	p.Node, p.Began = l.Head.Node, l.Head.Began
	p.watch = &Watcher{
		opts:   Options{Node: p.Node, Limits: p, Policy: l.Head.Policy.policy()},
		tracks: make(map[key]*track), places: make(map[placeID]*place),
	}
	return p, p.SetPolicy(p.watch.opts.Policy)
}

// Policy is the one of the recording, or that of SetPolicy.
func (p *Replay) Policy() Policy { return p.watch.opts.Policy }

// SetPolicy has the verdicts made by another policy than the recorded one.
func (p *Replay) SetPolicy(policy Policy) error {
	if err := policy.Validate(); err != nil {
		return fmt.Errorf("cannot replay: %w", err)
	}
	p.watch.opts.Policy = policy
	return nil
}

// Limits implements Limiter: what was recorded of a pod last.
func (p *Replay) Limits(podUID string) Limits { return p.limits[podUID] }

// Facts are what the verdict made last on a container depends on, but for what
// its siblings hold. For those who compare verdicts with other predictions.
func (p *Replay) Facts(c runtime.Container) (Facts, bool) {
	t := p.watch.tracks[keyOf(c)]
	if t == nil {
		return Facts{}, false
	}
	return Facts{
		Container: t.container, Node: p.Node, At: t.verdict.At,
		Parts: t.holdings(), Limits: p.limits[t.container.Pod.UID],
	}, true
}

// Next is the next verdict. It returns io.EOF at the end, and ErrCutShort
// (wrapped) where the recording has none.
func (p *Replay) Next() (Verdict, error) {
	for {
		l, err := p.line()
		if err != nil {
			return Verdict{}, err
		}
		switch {
		case l.Container != nil:
			err = p.container(*l.Container)
		case l.Gone != "":
			p.gone(l.Gone)
		case l.Judged != nil:
			t, err := p.judged(*l.Judged)
			if err != nil {
				return Verdict{}, p.wrong(err)
			}
			return t.verdict, nil
		case l.End != "":
			p.End = l.End
			return Verdict{}, io.EOF
		}
		if err != nil {
			return Verdict{}, p.wrong(err)
		}
	}
}

func (p *Replay) line() (recordLine, error) {
	var l recordLine
	if !p.lines.Scan() {
		err := p.lines.Err()
		if err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) {
			return l, fmt.Errorf("%w after line %d", ErrCutShort, p.read)
		}
		return l, p.wrong(err)
	}
	p.read++
	if err := json.Unmarshal(p.lines.Bytes(), &l); err != nil {
		if p.read > 1 && !p.lines.Scan() && !errors.Is(p.lines.Err(), bufio.ErrTooLong) { // half a line, the last one
			return l, fmt.Errorf("%w after line %d", ErrCutShort, p.read-1)
		}
		return l, p.wrong(err)
	}
	return l, nil
}

func (p *Replay) wrong(err error) error {
	return fmt.Errorf("cannot read the recording: line %d: %w", p.read, err)
}

// container brings a track and its places in line with what was recorded, as
// the watcher's list does.
func (p *Replay) container(c recordContainer) error {
	t := p.byKey[c.Key]
	if t == nil {
		t = &track{}
		p.byKey[c.Key] = t
	}
	t.container = runtime.Container{Namespace: c.Namespace, ID: c.ID, Name: c.Name, Sandbox: c.Sandbox, Created: c.Created}
	if c.Pod != nil {
		t.container.Pod = runtime.Pod{Namespace: c.Pod.Namespace, Name: c.Pod.Name, UID: c.Pod.UID}
	}
	if keyOf(t.container).String() != c.Key {
		return fmt.Errorf("the container %s has the key %s", keyOf(t.container), c.Key)
	}
	p.watch.tracks[keyOf(t.container)] = t
	t.holds = nil
	for _, h := range c.Places {
		at := p.places[h.Place]
		if at == nil {
			at = &place{id: placeID{part: h.Part}}
			p.places[h.Place] = at
		}
		t.holds = append(t.holds, hold{place: at, shown: h.Shown})
	}
	p.letGo()
	return nil
}

func (p *Replay) gone(name string) {
	t := p.byKey[name]
	if t == nil {
		return
	}
	delete(p.byKey, name)
	delete(p.watch.tracks, keyOf(t.container))
	p.letGo()
}

// letGo drops the places that nobody holds any more.
func (p *Replay) letGo() {
	held := make(map[*place]bool)
	for _, t := range p.byKey {
		for _, h := range t.holds {
			held[h.place] = true
		}
	}
	for id, at := range p.places {
		if !held[at] {
			delete(p.places, id)
		}
	}
}

// judged gives a track's places what was seen and has the watcher judge.
func (p *Replay) judged(j recordJudged) (*track, error) {
	t := p.byKey[j.Container]
	if t == nil {
		return nil, fmt.Errorf("nothing was said of the container %s", j.Container)
	}
	if uid := t.container.Pod.UID; uid != "" && j.Limits != nil {
		p.limits[uid] = Limits{Pod: j.Limits.Pod, Containers: j.Limits.Containers}
	} else {
		delete(p.limits, uid)
	}
	for mount, u := range j.Filesystems {
		p.filesystem(mount).usage = u.usage()
	}
	for _, l := range j.Looks {
		at := p.places[l.Place]
		if at == nil {
			return nil, fmt.Errorf("nothing was said of the place %d", l.Place)
		}
		at.fs = p.filesystem(l.Mount)
		at.series = at.series[:len(at.series)-min(len(at.series), max(0, l.TakesBack))]
		at.sample(l.At, Usage{Bytes: l.Bytes, Inodes: l.Inodes}, FilesystemUsage{Used: l.FilesystemBytes, InodesUsed: l.FilesystemInodes})
		at.evidence = nil
		for _, g := range l.Grew {
			at.evidence = append(at.evidence, g.growth())
		}
	}
	if t.base() == nil {
		return nil, fmt.Errorf("no look at the container %s was recorded", j.Container)
	}
	p.watch.judge(t, j.At)
	return t, nil
}

func (p *Replay) filesystem(mount string) *filesystem {
	fs := p.mounts[mount]
	if fs == nil {
		fs = &filesystem{mount: mount}
		p.mounts[mount] = fs
	}
	return fs
}
