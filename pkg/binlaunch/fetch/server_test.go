package fetch

import (
	"bytes"
	"context"
	"crypto/sha512"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// random is content that does not pack.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// breaking serves content and breaks each connection off after some bytes.
func breaking(content []byte, after int, etag string, broke *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		http.ServeContent(&breakingWriter{ResponseWriter: w, left: after, broke: broke}, r, "", time.Time{}, bytes.NewReader(content))
	}
}

type breakingWriter struct {
	http.ResponseWriter
	left  int
	broke *atomic.Int64
}

func (w *breakingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p[:min(len(p), w.left)])
	if w.left -= n; w.left == 0 {
		w.broke.Add(1)
		w.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestResume(t *testing.T) {
	content := random(1 << 20)
	for name, a := range map[string]Artifact{
		"digest":   {SHA256: digest(content)},
		"insecure": {Insecure: true}, // by If-Range alone
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			var broke atomic.Int64
			b.mux.HandleFunc("/x", breaking(content, 300_000, `"one"`, &broke))
			a.URL = b.server.URL + "/x"
			e, r := b.get(a)
			if got := read(t, e.Path, "x"); got != string(content) {
				t.Error("the content is another")
			}
			if broke.Load() != 3 || r.Artifacts[0].Resumes != 3 {
				t.Errorf("broke %d times, resumed %d times; want 3", broke.Load(), r.Artifacts[0].Resumes)
			}
		})
	}
}

// TestResumeWithoutRange: a server that always begins at the start.
func TestResumeWithoutRange(t *testing.T) {
	b := newBench(t)
	content := random(1 << 20)
	var asked atomic.Int64
	b.mux.HandleFunc("/x", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		n := min(len(content), int(asked.Add(1))*500_000)
		_, _ = w.Write(content[:n])
	})
	e, r := b.get(Artifact{URL: b.server.URL + "/x", SHA256: digest(content)})
	if got := read(t, e.Path, "x"); got != string(content) || r.Artifacts[0].Resumes != 2 {
		t.Errorf("%d bytes after %d resumes", len(got), r.Artifacts[0].Resumes)
	}
}

// TestChangedWhileFetched: two versions are never put together.
func TestChangedWhileFetched(t *testing.T) {
	b := newBench(t)
	first, second := random(1<<20), bytes.Repeat([]byte("second "), 1<<17)
	var asked, broke atomic.Int64
	b.mux.HandleFunc("/x", func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			breaking(first, 300_000, `"one"`, &broke)(w, r)
			return
		}
		w.Header().Set("ETag", `"two"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(second))
	})
	e, _ := b.get(Artifact{URL: b.server.URL + "/x", Insecure: true})
	if got := read(t, e.Path, "x"); got != string(second) {
		t.Errorf("%d bytes that are not the second version alone", len(got))
	}
}

func TestMirrors(t *testing.T) {
	content := random(1 << 20)
	good := func(b *bench) string { return b.serve("/good", content) }
	for name, bad := range map[string]http.HandlerFunc{
		"not found":   http.NotFound,
		"broken":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"wrong thing": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("wrong")) },
		"breaks off": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(content[:200_000])
			panic(http.ErrAbortHandler)
		},
		"hangs up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"leads inward": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.mux.HandleFunc("/bad", bad)
			e, r := b.get(Artifact{URL: b.server.URL + "/bad", Mirrors: []string{good(b)}, SHA256: digest(content), Path: "x"})
			if got := read(t, e.Path, "x"); got != string(content) {
				t.Error("the content is another")
			}
			if !strings.HasSuffix(r.Artifacts[0].Source, "/good") {
				t.Errorf("came from %s", r.Artifacts[0].Source)
			}
		})
	}
	t.Run("one has it not, the other later", func(t *testing.T) {
		b := newBench(t)
		b.mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		for _, urls := range [][]string{{"/none", "/busy"}, {"/busy", "/none"}} {
			a := Artifact{URL: b.server.URL + urls[0], Mirrors: []string{b.server.URL + urls[1]}, SHA256: digest(content), Path: "x"}
			if _, _, err := b.Get(context.Background(), []Artifact{a}, nil); err == nil || IsPermanent(err) {
				t.Errorf("%v: is not to be tried again", err)
			}
		}
	})
	t.Run("none has it", func(t *testing.T) {
		b := newBench(t)
		err := b.refused("404", Artifact{URL: b.server.URL + "/1", Mirrors: []string{b.server.URL + "/2"}, SHA256: digest(content)})
		if IsPermanent(err) || IsWrong(err) {
			t.Errorf("%v: is not to be tried again", err)
		}
		b.serve("/2", content) // somebody uploads it
		b.get(Artifact{URL: b.server.URL + "/1", Mirrors: []string{b.server.URL + "/2"}, SHA256: digest(content)})
	})
	t.Run("a page in place of the archive", func(t *testing.T) {
		b := newBench(t)
		archive := gz(t, tarOf(t, member{name: "x", body: "x"}))
		page := b.serve("/page.tar.gz", []byte("<html>Please log in</html>"))
		_, r := b.get(Artifact{URL: page, Mirrors: []string{b.serve("/good.tar.gz", archive)}, SHA256: digest(archive)})
		if !strings.HasSuffix(r.Artifacts[0].Source, "/good.tar.gz") {
			t.Errorf("came from %s", r.Artifacts[0].Source)
		}
	})
	t.Run("no such file", func(t *testing.T) {
		b := newBench(t)
		missing := Artifact{URL: "file:///none/x", Mirrors: []string{good(b)}, SHA256: digest(content)}
		if _, r := b.get(missing); !strings.HasSuffix(r.Artifacts[0].Source, "/good") {
			t.Errorf("came from %s", r.Artifacts[0].Source)
		}
		if err := b.fails(Artifact{URL: "file:///none/y", Insecure: true}); !strings.Contains(err, "cannot open it: no such file") {
			t.Error(err)
		}
	})
}

func TestRetries(t *testing.T) {
	b := newBench(t)
	var asked atomic.Int64
	b.mux.HandleFunc("/x", func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("x"))
	})
	b.get(Artifact{URL: b.server.URL + "/x", Insecure: true})
	if asked.Load() != 3 {
		t.Errorf("asked %d times", asked.Load())
	}
	b.server.Close()
	_, _, err := b.Get(context.Background(), []Artifact{{URL: b.server.URL + "/y", Insecure: true}}, nil)
	if err == nil || IsPermanent(err) || !strings.Contains(err.Error(), "after 3 tries") {
		t.Errorf("a server that is away: %v", err)
	}
}

// TestMutable: a URL without a digest is asked again by ETag, fetched when it
// changed, and its last known content used while the server is away.
func TestMutable(t *testing.T) {
	b := newBench(t)
	content, etag := []byte("one"), `"1"`
	var sent atomic.Int64
	b.mux.HandleFunc("/x", func(w http.ResponseWriter, r *http.Request) {
		if content == nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") != etag {
			sent.Add(1)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
	a := Artifact{URL: b.server.URL + "/x", Insecure: true}
	e1, r1 := b.get(a)
	if r1.Cached || !r1.Artifacts[0].Insecure {
		t.Errorf("first: %+v", r1)
	}
	a.Pinned = r1.Artifacts[0].SHA256
	if e, r := b.get(a); e.Digest != e1.Digest || !r.Cached || sent.Load() != 1 || r.Artifacts[0].Changed != "" {
		t.Errorf("unchanged: %+v, sent %d times", r, sent.Load())
	}
	content, etag = []byte("two"), `"2"`
	e2, r2 := b.get(a)
	if e2.Digest == e1.Digest || r2.Cached || r2.Artifacts[0].Changed != a.Pinned || read(t, e2.Path, "x") != "two" {
		t.Errorf("changed: %+v", r2)
	}
	content, etag = nil, ""
	if e, r := b.get(a); e.Digest != e2.Digest || !r.Stale || !strings.Contains(r.StaleReason, "404") {
		t.Errorf("it is there no more: %+v", r)
	}
	b.server.Close()
	e3, r3 := b.get(a)
	if e3.Digest != e2.Digest || !r3.Stale || !strings.Contains(r3.StaleReason, "refused") {
		t.Errorf("server away: %+v", r3)
	}
	// Known by the next agent, too.
	next, err := New(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	if e4, r4, err := next.Get(context.Background(), []Artifact{a}, nil); err != nil || e4.Digest != e2.Digest || !r4.Stale {
		t.Errorf("after a restart: %+v, %v", r4, err)
	}
}

// TestSingleFlight: many ask at once, one request is made, all get it; a caller
// that leaves does not take it from the others.
func TestSingleFlight(t *testing.T) {
	b := newBench(t)
	var asked atomic.Int64
	began, release := make(chan struct{}), make(chan struct{})
	b.mux.HandleFunc("/x", func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			close(began)
		}
		<-release
		_, _ = w.Write([]byte("x"))
	})
	a := []Artifact{{URL: b.server.URL + "/x", Insecure: true}}
	ctx, leave := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var left atomic.Int64
	wg.Go(func() {
		if _, _, err := b.Get(ctx, a, nil); err != nil {
			left.Add(1)
		}
	})
	<-began
	for range 8 {
		wg.Go(func() {
			if _, _, err := b.Get(context.Background(), a, nil); err != nil {
				t.Error(err)
			}
		})
	}
	b.awaitCallers(9)
	leave()
	for left.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if asked.Load() != 1 {
		t.Errorf("%d requests for nine calls", asked.Load())
	}
}

// TestSingleFlightByDigest: two name the same content by different URLs. It is
// fetched once; and where the first's source fails, the second's is tried.
func TestSingleFlightByDigest(t *testing.T) {
	content := random(1 << 20)
	long := sha512.Sum512(content)
	for name, vouched := range map[string]Artifact{
		"sha256": {SHA256: digest(content)},
		"sha512": {SHA512: map[string]string{"*": hex.EncodeToString(long[:])}},
	} {
		for what, fails := range map[string]bool{"shared": false, "the first fails": true} {
			t.Run(name+", "+what, func(t *testing.T) {
				b := newBench(t)
				var first, second atomic.Int64
				waits := make(chan struct{})
				b.mux.HandleFunc("/one", func(w http.ResponseWriter, r *http.Request) {
					if first.Add(1); fails && first.Load() > 1 {
						http.NotFound(w, r)
						return
					}
					w.Header().Set("Content-Length", fmt.Sprint(len(content)))
					_, _ = w.Write(content[:500_000])
					w.(http.Flusher).Flush()
					<-waits
					if fails {
						panic(http.ErrAbortHandler)
					}
					_, _ = w.Write(content[500_000:])
				})
				b.mux.HandleFunc("/two", func(w http.ResponseWriter, _ *http.Request) {
					second.Add(1)
					_, _ = w.Write(content)
				})
				var wg sync.WaitGroup
				ask := func(url string, told func(Progress)) (e Entry, r Result, err error) {
					a := vouched
					a.URL, a.Path = b.server.URL+url, "x"
					return b.Get(context.Background(), []Artifact{a}, told)
				}
				began := make(chan struct{}, 100)
				var firstErr error
				wg.Go(func() { _, _, firstErr = ask("/one", func(Progress) { began <- struct{}{} }) })
				<-began
				wg.Go(func() {
					e, r, err := ask("/two", nil)
					if err != nil {
						t.Error(err)
						return
					}
					if got := read(t, e.Path, "x"); got != string(content) || r.Artifacts[0].URL != b.server.URL+"/two" || r.Cached == fails {
						t.Errorf("%d bytes, %+v", len(got), r)
					}
				})
				b.awaitCallers(2)
				close(waits)
				wg.Wait()
				if (firstErr != nil) != fails || second.Load() != map[bool]int64{true: 1}[fails] {
					t.Errorf("the first: %v; the second's source was asked %d times", firstErr, second.Load())
				}
			})
		}
	}
}

// awaitCallers waits until so many take part in a flight.
func (b *bench) awaitCallers(want int) {
	for {
		b.flights.mu.Lock()
		n := 0
		for _, f := range b.flights.now {
			n += len(f.callers)
		}
		b.flights.mu.Unlock()
		if n == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestTLS(t *testing.T) {
	content := []byte("x")
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	defer server.Close()
	server.TLS.MinVersion = tls.VersionTLS12
	b := newBench(t)
	a := Artifact{URL: server.URL + "/x", SHA256: digest(content)}
	b.refused("certificate", a)
	ca := caOf(t, server)
	b.Fetcher.opts.CAFile = ca
	b.get(a)
	b2 := newBench(t, func(o *Options) { o.CAFile = ca })
	b2.mux.HandleFunc("/x", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	server.Config.Handler = http.RedirectHandler(b2.server.URL+"/x", http.StatusFound)
	b2.refused("from https to http", a)
}

// TestHeaders: a headers file's content goes to its host, and not along with a
// redirect, and not to whoever else names the file.
func TestHeaders(t *testing.T) {
	b := newBench(t)
	seen := make(chan string, 10)
	b.mux.HandleFunc("/x", func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("Authorization") + r.Header.Get("Private-Token")
		_, _ = w.Write([]byte("x"))
	})
	_, port, _ := strings.Cut(b.server.Listener.Addr().String(), ":")
	b.mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("Authorization") + r.Header.Get("Private-Token")
		http.Redirect(w, r, "http://localhost:"+port+"/x", http.StatusFound)
	})
	b.Fetcher.opts.HeadersDir, b.Fetcher.opts.ToPrivate = b.dir, true
	if err := os.WriteFile(filepath.Join(b.dir, "shop"), []byte("# for the shop\nHost: 127.0.0.1\nAuthorization: Bearer a\nPrivate-Token: b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.get(Artifact{URL: b.server.URL + "/x", Insecure: true, HeadersFile: "shop"})
	if got := <-seen; got != "Bearer ab" {
		t.Errorf("its host gets %q", got)
	}
	b.get(Artifact{URL: b.server.URL + "/away", Insecure: true, HeadersFile: "shop", Path: "y"})
	if got := <-seen; got != "Bearer ab" {
		t.Errorf("its host gets %q", got)
	}
	if got := <-seen; got != "" {
		t.Errorf("the host of a redirect gets %q", got)
	}
	b.get(Artifact{URL: "http://localhost:" + port + "/x", Insecure: true, HeadersFile: "shop"})
	if got := <-seen; got != "" {
		t.Errorf("another host gets %q", got)
	}
	for name, word := range map[string]string{"../shop": "not a path", "/etc/shadow": "not a path", "none": "no such file"} {
		if _, _, err := b.Get(context.Background(), []Artifact{{URL: b.server.URL + "/x?" + url.QueryEscape(name), Insecure: true, HeadersFile: name}}, nil); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProgress(t *testing.T) {
	b := newBench(t)
	content := random(4 << 20)
	b.mux.HandleFunc("/x", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		for i := range 4 {
			_, _ = w.Write(content[i<<20 : (i+1)<<20])
			w.(http.Flusher).Flush()
			time.Sleep(120 * time.Millisecond) // progress is told five times a second
		}
	})
	var told []Progress
	_, _, err := b.Get(context.Background(), []Artifact{{URL: b.server.URL + "/x", SHA256: digest(content)}}, func(p Progress) { told = append(told, p) })
	if err != nil {
		t.Fatal(err)
	}
	last := int64(-1)
	for _, p := range told {
		if p.Bytes <= last || p.Total != int64(len(content)) || !strings.HasSuffix(p.URL, "/x") {
			t.Errorf("progress %+v", p)
		}
		last = p.Bytes
	}
	if len(told) < 2 || last != int64(len(content)) {
		t.Errorf("told %d times, up to %d bytes", len(told), last)
	}
}

// TestManyAtOnce: more binaries than may be fetched at once, and nothing of it
// stays open in this process.
func TestManyAtOnce(t *testing.T) {
	b := newBench(t)
	for i := range 24 {
		b.serve(fmt.Sprintf("/%d", i), fmt.Append(nil, "content ", i))
	}
	round := func(from, to int) {
		var wg sync.WaitGroup
		for i := from; i < to; i++ {
			wg.Go(func() {
				e, _, err := b.Get(context.Background(), []Artifact{{URL: fmt.Sprintf("%s/%d", b.server.URL, i), Path: "x", Insecure: true}}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if got := read(t, e.Path, "x"); got != fmt.Sprint("content ", i) {
					t.Errorf("%d holds %q", i, got)
				}
			})
		}
		wg.Wait()
		b.server.CloseClientConnections()
	}
	round(0, 8)
	before := descriptors(t)
	round(8, 24)
	after := descriptors(t)
	for deadline := time.Now().Add(30 * time.Second); after > before+2 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		after = descriptors(t) // the server's connections come and go
	}
	if after > before+2 {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
	b.clean()
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
