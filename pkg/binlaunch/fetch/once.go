package fetch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// startOvers bounds how often all is fetched anew because it changed while it
// was fetched.
const startOvers = 3

// fetch fetches all artifacts, from other sources too if one holds the wrong
// thing.
func (g *get) fetch(ctx context.Context) (Entry, Result, error) {
	if err := g.slots.Acquire(ctx, 1); err != nil {
		return Entry{}, Result{}, context.Cause(ctx)
	}
	defer g.slots.Release(1)
	var before []error
	for try := 1; ; try++ {
		e, r, err := g.once(ctx)
		err = g.blame(err)
		var wrong *wrongError
		var p *pullError
		switch {
		case errors.As(err, &wrong):
			if !g.without(wrong.source) {
				return e, r, with(before, err)
			}
			before = append(before, err)
			g.opts.Logger.Warn("a source holds the wrong thing; tries another", "source", wrong.source, "err", err)
		case errors.As(err, &p) && p.Kind == pull.Again && try < startOvers:
		case err != nil:
			return e, r, with(before, err)
		default:
			return e, r, nil
		}
	}
}

// blame says whose fault content is that cannot be used: of the spec where it
// has the digest that the spec names, else of the source.
func (g *get) blame(err error) error {
	var p *pullError
	if !errors.As(err, &p) || p.Kind != pull.Content || p.Item < 0 || p.Item >= len(g.items) || p.Source == "" {
		return err
	}
	it := &g.items[p.Item]
	if p.SHA256 == "" || it.sha256 == "" && it.sha512 == "" {
		return &Error{URL: it.url, Wrong: true, Err: &wrongError{p.Source, err}}
	}
	asked := item{url: it.url, sha256: it.sha256, sha512: it.sha512}
	if _, other := judge(&asked, pull.Report{Source: p.Source, SHA256: p.SHA256, SHA512: p.SHA512, Bytes: p.Bytes}); other != nil {
		return &Error{URL: it.url, Wrong: true, Err: &wrongError{p.Source, fmt.Errorf("%w; %w", other, err)}}
	}
	return &Error{URL: it.url, Permanent: true, Err: err}
}

// with tells an error and those of the sources before.
func with(before []error, err error) error {
	for _, b := range before {
		err = fmt.Errorf("%w; before that: %w", err, b)
	}
	return err
}

// without takes a source away, and reports whether its item has another.
func (g *get) without(source string) bool {
	for i := range g.items {
		it := &g.items[i]
		for at, s := range it.sources {
			if s != source || len(it.sources) == 1 {
				continue
			}
			it.sources = append(append([]string{}, it.sources[:at]...), it.sources[at+1:]...)
			if len(it.signatures) > len(it.sources) {
				it.signatures = append(append([]string{}, it.signatures[:at]...), it.signatures[at+1:]...)
			}
			return true
		}
	}
	return false
}

// answer is what a process told.
type answer struct {
	reports  []pull.Report
	files    []store.File
	confined pull.Confinement
}

// once fetches all artifacts into a draft, and commits it if they are the right
// ones.
func (g *get) once(ctx context.Context) (Entry, Result, error) {
	job, files, err := g.job(false)
	if err != nil {
		return Entry{}, Result{}, err
	}
	defer files.Close()
	if job.Limits.Unpack.Space, err = g.space(); err != nil {
		return Entry{}, Result{}, err
	}
	d, err := g.opts.Store.Begin(g.opts.UID, g.opts.GID)
	if err != nil {
		return Entry{}, Result{}, diskError(err)
	}
	defer d.Discard() //nolint:errcheck // what stays is swept at the next start
	a := answer{reports: make([]pull.Report, len(g.items))}
	err = g.run(ctx, job, files, d.Dir(), d.Files, func(m pull.Message) error { return g.hear(&a, m) })
	if err != nil {
		return Entry{}, Result{}, err
	}
	fetched, err := g.verdict(&a, files.tags)
	if err != nil {
		return Entry{}, Result{}, err
	}
	g.phases.Verified = time.Since(g.start)
	return g.commit(d, &a, fetched)
}

// hear takes in what the process says, within bounds: it may be anybody by now.
func (g *get) hear(a *answer, m pull.Message) error {
	switch {
	case m.Confined != nil:
		a.confined = *m.Confined
		g.phases.Started = time.Since(g.start)
		return held(a.confined, g.opts.UID)
	case m.Progress != nil && m.Progress.Item >= 0 && m.Progress.Item < len(g.items):
		g.told(Progress{Artifact: m.Progress.Item, URL: g.items[m.Progress.Item].url, Bytes: m.Progress.Bytes, Total: m.Progress.Total})
	case m.File != nil:
		if len(a.files) >= g.opts.Limits.Files {
			return fmt.Errorf("the process that fetches tells of more than %d files", g.opts.Limits.Files)
		}
		a.files = append(a.files, *m.File)
	case m.Report != nil && m.Report.Item >= 0 && m.Report.Item < len(g.items):
		a.reports[m.Report.Item] = *m.Report
		g.phase(*m.Report)
	}
	return nil
}

// held refuses to give a job to a process that is not confined.
func held(c pull.Confinement, uid int) error {
	if c.UID != uid || c.Capabilities || !c.NoNewPrivs {
		return fmt.Errorf("the process that fetches is not confined: %+v", c)
	}
	return nil
}

func (g *get) phase(r pull.Report) {
	p := &g.phases
	if at := p.Started + r.FirstByte; p.FirstByte == 0 || at < p.FirstByte {
		p.FirstByte = at
	}
	p.LastByte = max(p.LastByte, p.Started+r.LastByte)
	p.Unpacked = max(p.Unpacked, p.Started+r.Unpacked)
}

// verdict judges every artifact.
func (g *get) verdict(a *answer, tags map[string]string) ([]Fetched, error) {
	out := make([]Fetched, 0, len(g.items))
	for i := range g.items {
		f, err := judge(&g.items[i], a.reports[i])
		var wrong *wrongError
		if errors.As(err, &wrong) {
			return nil, &Error{URL: g.items[i].url, Wrong: true, Err: err}
		}
		if err != nil {
			return nil, err
		}
		if tag := tags[f.Source]; tag != "" {
			f.ETag = tag
		}
		out = append(out, f)
	}
	if len(a.files) == 0 {
		return nil, &Error{URL: g.items[0].url, Permanent: g.allFixed(), Wrong: !g.allFixed(),
			Err: fmt.Errorf("nothing came out of it: is strip %d too much?", g.items[0].layout.Strip)}
	}
	return out, nil
}

func (g *get) commit(d *store.Draft, a *answer, fetched []Fetched) (Entry, Result, error) {
	var sums []string
	for _, f := range fetched {
		sums = append(sums, f.SHA256)
	}
	e, err := d.Commit(entryDigest(g.items, sums), a.files)
	if err != nil {
		return Entry{}, Result{}, diskError(err)
	}
	g.phases.Stored = time.Since(g.start)
	g.remember(g.content, e, fetched)
	return e, Result{Artifacts: fetched, Confined: confinedBy(a.confined), Phases: g.phases}, nil
}

func confinedBy(c pull.Confinement) []string {
	out := []string{fmt.Sprintf("uid %d", c.UID), "no capabilities", "no_new_privs", "private root", "pid, ipc and uts namespaces", "rlimits"}
	if c.Landlock > 0 {
		out = append(out, fmt.Sprintf("landlock %d", c.Landlock))
	}
	return out
}

// space is how many bytes may be filled so that the reserve stays free.
// 0: no bound.
func (g *get) space() (int64, error) {
	if g.opts.Reserve < 0 {
		return 0, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(g.opts.Store.Dir(), &st); err != nil {
		return 0, fmt.Errorf("cannot tell the space left in %s: %w", g.opts.Store.Dir(), err)
	}
	free := int64(st.Bavail) * st.Bsize
	keep := int64(g.opts.Reserve * float64(st.Blocks) * float64(st.Bsize))
	if free <= keep {
		return 0, &Error{Full: true, Err: fmt.Errorf("the file system of %s has %d bytes left, and %d are kept free: make room there", g.opts.Store.Dir(), free, keep)}
	}
	return free - keep, nil
}

// diskError says of an error that this machine is full, if it is.
func diskError(err error) error {
	var full *store.FullError
	if errors.As(err, &full) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &Error{Full: true, Err: err}
	}
	return err
}

// unchanged asks whether all artifacts are as they were.
func (g *get) unchanged(ctx context.Context, k known) (bool, error) {
	job, files, err := g.job(true)
	if err != nil {
		return false, err
	}
	defer files.Close()
	var ask []pull.Item
	for i := range g.items {
		was := k.Artifacts[i]
		switch tag := files.tags[g.items[i].url]; {
		case g.items[i].fixed():
		case was.ETag == "" || was.Source != g.items[i].url:
			return false, nil // there is nothing to ask by
		case tag != "" && tag != was.ETag:
			return false, nil
		case job.Items[i].NoFiles[g.items[i].url] != "":
			return false, &pullError{pull.Failure{Item: i, Kind: pull.Absent, Message: job.Items[i].NoFiles[g.items[i].url]}}
		case tag == "":
			it := job.Items[i]
			it.ETag, it.Signatures = was.ETag, nil
			ask = append(ask, it)
		}
	}
	if len(ask) == 0 {
		return true, nil
	}
	return g.probe(ctx, job, ask)
}

func (g *get) probe(ctx context.Context, job pull.Job, ask []pull.Item) (bool, error) {
	job.Items = ask
	d, err := g.opts.Store.Begin(g.opts.UID, g.opts.GID)
	if err != nil {
		return false, diskError(err)
	}
	defer d.Discard() //nolint:errcheck // what stays is swept at the next start
	same := true
	err = g.run(ctx, job, &opened{}, d.Dir(), d.Files, func(m pull.Message) error {
		if m.Confined != nil {
			return held(*m.Confined, g.opts.UID)
		}
		if m.Report != nil && !m.Report.Unchanged {
			same = false
		}
		return nil
	})
	return same, err
}
