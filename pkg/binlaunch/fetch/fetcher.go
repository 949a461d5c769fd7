package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/verify"
)

// Fetcher fetches. Its methods may be called by many at once.
type Fetcher struct {
	opts    Options
	flights flights
	slots   *semaphore.Weighted
}

// New makes a Fetcher.
func New(o Options) (*Fetcher, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	f := &Fetcher{opts: o, slots: semaphore.NewWeighted(int64(o.Concurrent))}
	f.sweepKnown()
	return f, nil
}

// sweepKnown forgets what led to entries that the store no longer has.
func (f *Fetcher) sweepKnown() {
	notes, err := os.ReadDir(f.knownPath(""))
	if err != nil {
		return
	}
	for _, n := range notes {
		var k known
		b, err := os.ReadFile(f.knownPath(n.Name()))
		if err != nil || json.Unmarshal(b, &k) != nil || !f.opts.Store.Has(k.Digest) {
			_ = os.Remove(f.knownPath(n.Name()))
		}
	}
}

// Get brings the artifacts of one binary into the store, or finds them there.
// The entry stays at least for the store's grace; for longer it wants a lease.
// Progress, if it is not nil, is called a few times a second for each artifact;
// it must not block. An error is an *Error, or the context's.
func (f *Fetcher) Get(ctx context.Context, artifacts []Artifact, progress func(Progress)) (Entry, Result, error) {
	items, err := f.plan(artifacts)
	if err != nil {
		return Entry{}, Result{}, err
	}
	content := contentKey(items)
	return f.flights.do(ctx, content, requestKey(items)+pins(items), progress, func(ctx context.Context, told func(Progress)) (Entry, Result, error) {
		g := &get{Fetcher: f, items: items, content: content, told: told, start: time.Now()}
		e, r, err := g.get(ctx)
		return e, r, classify(items, err)
	})
}

func (f *Fetcher) plan(artifacts []Artifact) ([]item, error) {
	keys := map[string]verify.Key{}
	signed := slices.ContainsFunc(artifacts, func(a Artifact) bool { return a.Signature != nil })
	if signed && f.opts.KeysDir != "" {
		var err error
		if keys, err = verify.ReadKeys(f.opts.KeysDir); err != nil {
			return nil, &Error{Err: err}
		}
	}
	return plan(artifacts, f.opts.Platform, keys)
}

// pins are part of what a caller asks for, though not of what is fetched.
func pins(items []item) string {
	out := ""
	for i := range items {
		out += " " + items[i].pinned
	}
	return out
}

// get is one fetch under way.
type get struct {
	*Fetcher
	items   []item
	content string // its key
	told    func(Progress)
	start   time.Time
	phases  Phases
}

func (g *get) get(ctx context.Context) (Entry, Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, g.opts.Limits.Deadline,
		fmt.Errorf("it took longer than %v", g.opts.Limits.Deadline))
	defer cancel()
	if digest, ok := wantedDigest(g.items); ok && !g.signed() {
		e, ok, err := g.opts.Store.Lookup(digest)
		if err != nil || ok {
			return e, g.cached(nil), err
		}
	}
	k, e, ok, err := g.recall(g.content, len(g.items))
	if err != nil {
		return Entry{}, Result{}, err
	}
	if !ok {
		return g.fetch(ctx)
	}
	if g.allFixed() {
		return e, g.cached(&k), nil
	}
	return g.again(ctx, k, e)
}

// again asks whether what is known is still so, and fetches it if not.
func (g *get) again(ctx context.Context, k known, e Entry) (Entry, Result, error) {
	same, err := g.unchanged(ctx, k)
	if err == nil && same {
		return e, g.cached(&k), nil
	}
	if err == nil {
		fresh, res, fetchErr := g.fetch(ctx)
		if fetchErr == nil {
			return fresh, res, nil
		}
		err = fetchErr
	}
	var p *pullError
	if errors.As(err, &p) && (p.Kind == pull.Network || p.Kind == pull.Absent) {
		r := g.cached(&k)
		r.Stale, r.StaleReason = true, err.Error()
		return e, r, nil
	}
	return Entry{}, Result{}, err
}

func (g *get) signed() bool {
	for i := range g.items {
		if g.items[i].key != nil {
			return true
		}
	}
	return false
}

func (g *get) allFixed() bool {
	for i := range g.items {
		if !g.items[i].fixed() {
			return false
		}
	}
	return true
}

// cached is the result when the store had it.
func (g *get) cached(k *known) Result {
	r := Result{Cached: true}
	for i := range g.items {
		it := &g.items[i]
		f := Fetched{URL: it.url, SHA256: it.sha256, SHA512: it.sha512}
		if k != nil {
			f = k.Artifacts[i]
			f.URL = it.url
			if f.Changed = ""; it.insecure && it.pinned != "" && it.pinned != f.SHA256 {
				f.Changed = it.pinned
			}
		}
		r.Artifacts = append(r.Artifacts, f)
	}
	return r
}

// job is what the process is told, and the files that go with it.
func (g *get) job(probe bool) (pull.Job, *opened, error) {
	job := pull.Job{Dest: pull.Dest, Limits: g.opts.Limits.pull(0), ToPrivate: g.opts.ToPrivate,
		Proxies: proxies(g.opts.Environ), Probe: probe}
	if g.opts.CAFile != "" {
		b, err := os.ReadFile(g.opts.CAFile)
		if err != nil {
			return job, nil, fmt.Errorf("cannot read the CA file: %w", err)
		}
		job.CA = b
	}
	for i := range g.items {
		it := &g.items[i]
		headers, err := readHeaders(g.opts.HeadersDir, it.headers)
		if err != nil { // it may be put there
			return job, nil, &Error{URL: it.url, Err: err}
		}
		job.Items = append(job.Items, pull.Item{
			Sources: it.sources, Sure: it.fixed() || ociOnly(it.sources), SHA512: it.sha512 != "", Blake2: it.key != nil && it.key.Minisign(),
			Signatures: it.signatures, Headers: headers, Layout: it.layout, OS: g.opts.Platform.OS, Arch: g.opts.Platform.Arch,
		})
	}
	files := openFiles(g.items, &job, g.opts.UID, g.opts.GID)
	return job, files, nil
}

// ociOnly: a layer is known by its manifest's digest of it.
func ociOnly(sources []string) bool {
	for _, s := range sources {
		if !strings.HasPrefix(s, "oci") {
			return false
		}
	}
	return len(sources) == 1
}

// run has a confined process work on a job in a folder of the draft.
func (g *get) run(ctx context.Context, job pull.Job, files *opened, dir, dest string, each func(pull.Message) error) error {
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("cannot make the process's root: %w", err)
	}
	defer os.Remove(root)
	c, err := startChild(ctx, jail{root: root, dest: dest, executable: g.opts.Executable, etc: etcFiles()}, &g.opts, files.files)
	if err == nil {
		err = c.talk(job, each)
	}
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return err
	case errors.Is(cause, context.Canceled):
		return cause
	default: // the deadline
		return &pullError{pull.Failure{Kind: pull.Network, Message: cause.Error()}}
	}
}
