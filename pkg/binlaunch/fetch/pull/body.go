package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// progress is how many bytes make it worth to begin counting tries anew.
const progress = 64 << 10

// body reads what the sources of an item hold as if it were one stream that
// never breaks: a response that ends early is asked for again from there on,
// by Range, from the next source if one byte more does not come.
type body struct {
	ctx     context.Context
	item    *Item
	sources []string
	client  *http.Client
	limits  Limits
	pause   *backoff.ExponentialBackOff
	told    func(done, total int64)

	cur     io.Reader // nil: not open
	end     func()    // ends cur
	at      int       // the source in use
	pos     int64     // bytes handed out
	total   int64     // -1: unknown
	tries   int       // in a row without much coming
	mark    int64     // pos when tries was 0 last
	resumes int
	seen    seen
	layer   *layer // what an oci source led to
	failed  error  // why the source before the last one did not do
}

// seen is what tells one version of a body from another.
type seen struct {
	source   string
	etag     string
	modified string
}

// validator is what If-Range takes; "": there is none (RFC 9110, 13.1.5).
func (s seen) validator() string {
	if s.etag != "" && !strings.HasPrefix(s.etag, "W/") {
		return s.etag
	}
	return ""
}

func newBody(ctx context.Context, client *http.Client, l Limits, it *Item, sources []string) *body {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval, pause.Multiplier = l.MinPause, l.MaxPause, 2
	return &body{ctx: ctx, item: it, sources: sources, client: client, limits: l, pause: pause, total: -1,
		told: func(int64, int64) {}}
}

// Close ends what is open.
func (b *body) Close() {
	if b.end != nil {
		b.end()
		b.end, b.cur = nil, nil
	}
}

// Read fails with a *fault alone, or io.EOF.
func (b *body) Read(p []byte) (int, error) {
	for {
		if b.cur == nil {
			if err := b.open(); err != nil {
				return 0, err
			}
		}
		n, err := b.cur.Read(p)
		b.pos += int64(n)
		if b.pos > b.limits.Download {
			return 0, unusable("more than %d bytes", b.limits.Download)
		}
		if n > 0 {
			b.told(b.pos, b.total)
		}
		if b.pos-b.mark >= progress { // less does not count: it could go on forever
			b.tries, b.mark = 0, b.pos
			b.pause.Reset()
		}
		switch {
		case errors.Is(err, io.EOF) && (b.total < 0 || b.pos >= b.total):
			b.Close()
			return n, io.EOF
		case errors.Is(err, io.EOF):
			err = fmt.Errorf("it ended after %d of %d bytes", b.pos, b.total)
		}
		if err != nil {
			b.broken(err)
			b.resumes++
		}
		if n > 0 {
			return n, nil
		}
	}
}

// broken notes why the source in use did not do, and turns to the next.
func (b *body) broken(err error) {
	b.failed = fmt.Errorf("%s: %w", b.sources[b.at], err)
	b.Close()
	if (b.pos == 0 || b.item.Sure) && len(b.sources) > 1 {
		b.at = (b.at + 1) % len(b.sources)
		b.layer = nil // that was the other's
	}
}

// open opens a source at pos, and tries until one does or none will.
func (b *body) open() error {
	hopeless, kind := 0, Kind("") // sources in a row that will not do later either
	for {
		if b.tries > 0 && b.tries%len(b.sources) == 0 { // each source was tried: a pause
			if err := b.wait(); err != nil {
				return err
			}
		}
		if err := b.ctx.Err(); err != nil {
			return fault{Network, context.Cause(b.ctx)}
		}
		b.tries++
		err := b.openSource()
		if err == nil {
			return nil
		}
		var f fault
		if !errors.As(err, &f) {
			f = fault{Network, err}
		}
		switch f.kind {
		case Again:
			return fault{Again, b.from(f.err)}
		case Network:
			hopeless, kind = 0, Network
		default:
			hopeless++
		}
		one := len(b.sources) == 1 || b.pos > 0 && !b.item.Sure
		if hopeless > 0 && (one || hopeless >= len(b.sources)) {
			return fault{f.kind, b.from(b.after(f.err))}
		}
		if b.tries >= b.limits.Tries*len(b.sources) { // one of them may do later
			return fault{cmp.Or(kind, f.kind), b.from(b.after(f.err))}
		}
		b.broken(f.err)
	}
}

// from names the source, unless it is the item's own URL, which the caller
// names.
func (b *body) from(err error) error {
	if b.sources[b.at] == b.item.Sources[0] {
		return err
	}
	return fmt.Errorf("from %s: %w", b.sources[b.at], err)
}

// after adds how often it was tried, and what was wrong with another source.
func (b *body) after(err error) error {
	if b.tries > 1 {
		err = fmt.Errorf("%w (after %d tries)", err, b.tries)
	}
	if b.failed != nil && len(b.sources) > 1 {
		err = fmt.Errorf("%w; before that %w", err, b.failed)
	}
	return err
}

// wait lets a growing, jittered while pass, or what a server asked for.
func (b *body) wait() error {
	d := b.pause.NextBackOff()
	var busy *busyError
	if errors.As(b.failed, &busy) && busy.after > d {
		d = min(busy.after, b.limits.MaxPause)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-b.ctx.Done():
		return fault{Network, fmt.Errorf("%w; last %w", context.Cause(b.ctx), b.failed)}
	}
}

func (b *body) openSource() error {
	source := b.sources[b.at]
	switch scheme, _, _ := strings.Cut(source, ":"); scheme {
	case "file":
		return b.openFile(source)
	case "oci", "oci+http":
		return b.openOCI(source)
	default:
		return b.openHTTP(source)
	}
}

func (b *body) openFile(source string) error {
	fd, ok := b.item.Files[source]
	if !ok {
		return fault{Absent, errors.New(cmp.Or(b.item.NoFiles[source], "it was not opened"))}
	}
	// The descriptor is shared by all who read it: each reads at its own place.
	f := os.NewFile(uintptr(fd), source)
	st, err := f.Stat()
	if err != nil {
		return fault{Disk, err}
	}
	b.total = st.Size()
	b.cur = io.NewSectionReader(f, b.pos, st.Size()-b.pos)
	b.end = func() { _ = f }
	return nil
}

func (b *body) openHTTP(source string) error {
	ctx, cancel := context.WithCancel(context.WithValue(b.ctx, itemKey{}, b.item))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		cancel()
		return fault{Refused, err}
	}
	b.ask(req, source)
	resp, err := b.client.Do(req) //nolint:bodyclose // b.end does it
	if err != nil {
		cancel()
		return whyNot(err)
	}
	if err := b.accept(resp, source); err != nil {
		_ = resp.Body.Close()
		cancel()
		return err
	}
	b.end = func() { cancel(); _ = resp.Body.Close() }
	b.cur = &stallReader{r: resp.Body, cancel: cancel, window: b.limits.Stall, rate: b.limits.StallRate}
	if b.pos > 0 && resp.StatusCode == http.StatusOK { // the whole once more
		if _, err := io.CopyN(io.Discard, b.cur, b.pos); err != nil {
			b.Close()
			return fmt.Errorf("cannot read again up to where it broke: %w", err)
		}
	}
	return nil
}

func (b *body) ask(req *http.Request, source string) {
	req.Header.Set("User-Agent", "nodeagent")
	req.Header.Set("Accept", "*/*")
	req.Header.Set("Accept-Encoding", "identity") // the digest is that of the bytes as they are stored
	setHeaders(req, b.item.Headers)
	if b.pos == 0 {
		return
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.pos))
	if v := b.seen.validator(); v != "" && source == b.seen.source {
		req.Header.Set("If-Range", v)
	}
}

// accept takes a response if its body goes on where the last one broke off.
func (b *body) accept(resp *http.Response, source string) error {
	now := seen{source: source, etag: resp.Header.Get("ETag"), modified: resp.Header.Get("Last-Modified")}
	switch resp.StatusCode {
	case http.StatusOK:
		if resp.ContentLength > b.limits.Download {
			return unusable("it has %d bytes, more than %d", resp.ContentLength, b.limits.Download)
		}
		if b.pos > 0 && !b.item.Sure && (now != b.seen || now.validator() == "") {
			return again("the connection broke after %d bytes, and the server cannot go on from there", b.pos)
		}
		b.total, b.seen = resp.ContentLength, now
		return nil
	case http.StatusPartialContent:
		from, total, ok := contentRange(resp.Header.Get("Content-Range"))
		if b.pos == 0 || !ok || from != b.pos || b.total >= 0 && total >= 0 && total != b.total {
			return fmt.Errorf("it answers with the range %q, not from %d on", resp.Header.Get("Content-Range"), b.pos)
		}
		if !b.item.Sure && (now.validator() == "" || now.etag != b.seen.etag) {
			return again("it changed while it was fetched, after %d bytes", b.pos)
		}
		if b.total < 0 {
			b.total = total
		}
		return nil
	default:
		return status(resp)
	}
}

// contentRange reads "bytes 5-9/10" (RFC 9110, 14.4). Total -1: unknown.
func contentRange(s string) (from, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	rng, all, ok2 := strings.Cut(s, "/")
	first, _, ok3 := strings.Cut(rng, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, false
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	if all == "*" {
		return from, -1, true
	}
	total, err = strconv.ParseInt(all, 10, 64)
	return from, total, err == nil
}
