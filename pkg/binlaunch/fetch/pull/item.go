package pull

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/ahead"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/unpack"
)

// maxSignature bounds what is read as a signature, in bytes. A sigstore bundle
// with certificates has some 10 KiB.
const maxSignature = 64 << 10

// puller works on one job.
type puller struct {
	job    Job
	client *http.Client
	tree   *unpack.Tree
	start  time.Time
	say    func(Message)
}

// sums hashes a body in each way that is wanted.
type sums struct {
	sha256, sha512, blake2 hash.Hash
	all                    io.Writer
}

func newSums(it *Item) (*sums, error) {
	s := &sums{sha256: sha256.New()}
	all := []io.Writer{s.sha256}
	if it.SHA512 {
		s.sha512 = sha512.New()
		all = append(all, s.sha512)
	}
	if it.Blake2 {
		h, err := blake2b.New512(nil)
		if err != nil {
			return nil, err
		}
		s.blake2 = h
		all = append(all, h)
	}
	s.all = io.MultiWriter(all...)
	return s, nil
}

func sum(h hash.Hash) string {
	if h == nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// pull fetches and unpacks one artifact.
func (p *puller) pull(outer context.Context, i int) (Report, error) {
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	it := &p.job.Items[i]
	s, err := newSums(it)
	if err != nil {
		return Report{}, err
	}
	rep := Report{Item: i}
	b := newBody(ctx, p.client, p.job.Limits, it, it.Sources)
	defer b.Close()
	b.told = p.progress(i, &rep)
	a := ahead.New(io.TeeReader(&lastByte{b, func() { rep.LastByte = time.Since(p.start) }}, s.all))
	err = p.unpack(a, cancel, it.Layout)
	cancel() // a body that waits ends, then the goroutine that reads it
	a.Close()
	if err != nil {
		return rep, p.accuse(outer, it, b.sources[b.at], err)
	}
	rep.Unpacked = time.Since(p.start)
	rep.Source, rep.Bytes, rep.Resumes, rep.ETag = b.sources[b.at], b.pos, b.resumes, b.seen.etag
	if b.layer != nil {
		rep.Manifests = b.layer.manifests
	}
	rep.SHA256, rep.SHA512, rep.Blake2 = sum(s.sha256), sum(s.sha512), sum(s.blake2)
	return rep, nil
}

// contentError says of content that cannot be used where it came from, and its
// digests.
type contentError struct {
	source, sha256, sha512 string
	bytes                  int64
	err                    error
}

func (e *contentError) Error() string { return e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

// accuse finds out who is at fault for content that cannot be used: its source,
// which sends something else than what was asked for, or whoever asked for it.
// The digest tells, for which all of it is fetched once more, from that source.
func (p *puller) accuse(ctx context.Context, it *Item, source string, err error) error {
	var content *unpack.RefusedError
	var f fault
	if !errors.As(err, &content) && (!errors.As(err, &f) || f.kind != Content) {
		return err
	}
	e := &contentError{source: source, err: err}
	if !it.Sure || content == nil {
		return e
	}
	s, sumsErr := newSums(it)
	if sumsErr != nil {
		return e
	}
	b := newBody(ctx, p.client, p.job.Limits, it, []string{source})
	defer b.Close()
	if _, readErr := io.Copy(s.all, &measured{b}); readErr == nil {
		e.sha256, e.sha512, e.bytes = sum(s.sha256), sum(s.sha512), b.pos
	}
	return e
}

// measured is a body that ends: its server told beforehand where.
type measured struct{ b *body }

func (m *measured) Read(p []byte) (int, error) {
	n, err := m.b.Read(p)
	if err == nil && m.b.total < 0 {
		return 0, errors.New("its server does not tell how long it is")
	}
	return n, err
}

// lastByte tells when the end of a stream was read.
type lastByte struct {
	r    io.Reader
	told func()
}

func (l *lastByte) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if errors.Is(err, io.EOF) {
		l.told()
	}
	return n, err
}

// progress tells how far a body is, five times a second at most, and its end.
func (p *puller) progress(i int, rep *Report) func(done, total int64) {
	var last time.Time
	return func(done, total int64) {
		now := time.Now()
		if last.IsZero() {
			rep.FirstByte = now.Sub(p.start)
		}
		if now.Sub(last) < 200*time.Millisecond && done != total {
			return
		}
		last = now
		p.say(Message{Progress: &Progress{Item: i, Bytes: done, Total: total}})
	}
}

func (p *puller) unpack(r io.Reader, stop func(), l unpack.Layout) error {
	if l.Format != unpack.Zip {
		return p.tree.Stream(r, stop, l)
	}
	// A zip's list of files stands at its end: it is kept in a file without a
	// name until it is there whole.
	fd, err := unix.Open(p.job.Dest, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, uint32(fileMode))
	if err != nil {
		return fmt.Errorf("cannot keep the zip: %w", err)
	}
	spool := os.NewFile(uintptr(fd), "zip")
	defer spool.Close()
	size, err := io.Copy(spool, r)
	if err != nil {
		return err
	}
	return p.tree.Zip(spool, size, l)
}

// signature fetches an artifact's signature.
func (p *puller) signature(ctx context.Context, i int) ([]byte, error) {
	it := &p.job.Items[i]
	if len(it.Signatures) == 0 {
		return nil, nil
	}
	l := p.job.Limits
	l.Download = maxSignature
	b := newBody(ctx, p.client, l, it, it.Signatures)
	defer b.Close()
	sig, err := io.ReadAll(b)
	if err != nil {
		var f fault
		if errors.As(err, &f) {
			return nil, fault{f.kind, fmt.Errorf("its signature: %w", f.err)}
		}
		return nil, fmt.Errorf("its signature: %w", err)
	}
	return sig, nil
}

// probe asks whether an artifact changed since its ETag.
func (p *puller) probe(ctx context.Context, i int) (Report, error) {
	it := &p.job.Items[i]
	rep := Report{Item: i, Source: it.Sources[0]}
	if it.ETag == "" {
		return rep, nil
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, itemKey{}, it), p.job.Limits.Connect+p.job.Limits.Header)
	defer cancel()
	if strings.HasPrefix(it.ETag, OCITag) {
		var err error
		rep.Unchanged, err = p.probeOCI(ctx, it)
		return rep, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, it.Sources[0], nil)
	if err != nil {
		return rep, fault{Refused, err}
	}
	req.Header.Set("User-Agent", "nodeagent")
	setHeaders(req, it.Headers)
	req.Header.Set("If-None-Match", it.ETag)
	resp, err := p.client.Do(req)
	if err != nil {
		return rep, whyNot(err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNotModified:
		rep.Unchanged = true
	case http.StatusOK:
	default:
		return rep, status(resp)
	}
	return rep, nil
}
