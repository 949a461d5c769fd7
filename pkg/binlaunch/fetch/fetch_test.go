package fetch

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// host is the static program that hosts the confined process in the tests: a
// test binary with the race detector is none.
var host string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	ChildMain() // a static test binary can be its own host: FETCH_HOST=/proc/self/exe
	if dir := os.Getenv("FETCH_AGENT"); dir != "" {
		fetchUntilKilled(dir, os.Getenv("FETCH_URL"))
	}
	dir, err := os.MkdirTemp("", "fetch-host-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if host = os.Getenv("FETCH_HOST"); host != "" { // another program, or a machine without Go
		return m.Run()
	}
	host = filepath.Join(dir, "host")
	build := exec.Command("go", "build", "-o", host, "./testdata/host")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the host program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// bench is a fetcher with a store of its own and a server.
type bench struct {
	*Fetcher
	t      testing.TB
	dir    string
	opts   Options
	server *httptest.Server
	mux    *http.ServeMux
}

func newBench(t testing.TB, set ...func(*Options)) *bench {
	t.Helper()
	if testing.Short() {
		t.Skip("starts confined processes")
	}
	if os.Geteuid() != 0 {
		t.Fatal("these tests confine a process as the agent does: run them as root")
	}
	b := &bench{t: t, dir: t.TempDir(), mux: http.NewServeMux()}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.server = httptest.NewServer(b.mux)
	t.Cleanup(b.server.Close)
	b.opts = Options{Executable: host, Environ: []string{}, Reserve: -1,
		Limits: Limits{MinPause: time.Millisecond, MaxPause: 5 * time.Millisecond, Tries: 3, Deadline: time.Minute}}
	for _, s := range set {
		s(&b.opts)
	}
	if b.opts.Store == nil {
		s, err := store.Open(store.Options{Dir: filepath.Join(b.dir, "store")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		b.opts.Store = s
	}
	f, err := New(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	b.Fetcher = f
	return b
}

// serve answers a path with content.
func (b *bench) serve(path string, content []byte) string {
	b.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
	return b.server.URL + path
}

// get fetches one artifact that must succeed.
func (b *bench) get(a ...Artifact) (Entry, Result) {
	b.t.Helper()
	e, r, err := b.Get(context.Background(), a, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.clean()
	return e, r
}

// refused fetches what must be refused for a reason that holds word, and
// leaves nothing behind.
func (b *bench) refused(word string, a ...Artifact) error {
	b.t.Helper()
	e, _, err := b.Get(context.Background(), a, nil)
	if err == nil {
		b.t.Fatalf("was fetched to %s; want an error about %q", e.Path, word)
	}
	if !strings.Contains(err.Error(), word) {
		b.t.Fatalf("error is %q, without %q", err, word)
	}
	b.t.Log(err)
	b.clean()
	b.empty()
	return err
}

// fails fetches what must fail, and returns why.
func (b *bench) fails(a ...Artifact) string {
	b.t.Helper()
	e, _, err := b.Get(context.Background(), a, nil)
	if err == nil {
		b.t.Fatalf("was fetched to %s", e.Path)
	}
	b.clean()
	return err.Error()
}

// clean fails when anything is left of the work.
func (b *bench) clean() {
	b.t.Helper()
	left, err := os.ReadDir(filepath.Join(b.opts.Store.Dir(), "tmp"))
	if err != nil || len(left) > 0 {
		b.t.Fatalf("left in tmp: %v, %v", left, err)
	}
}

func (b *bench) empty() {
	b.t.Helper()
	left, err := os.ReadDir(filepath.Join(b.opts.Store.Dir(), "entries"))
	if err != nil || len(left) > 0 {
		b.t.Fatalf("left in the store: %v, %v", left, err)
	}
}

func digest(b []byte) map[string]string {
	s := sha256.Sum256(b)
	return map[string]string{"*": hex.EncodeToString(s[:])}
}

// member is an entry of an archive that a test makes.
type member struct {
	name string
	body string
	mode fs.FileMode
	kind byte
	link string
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: int64(m.mode), Size: int64(len(m.body)), Typeflag: m.kind, Linkname: m.link}
		if m.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if m.mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestGetTarball(t *testing.T) {
	b := newBench(t)
	content := gz(t, tarOf(t, member{name: "x-1.0/x", body: "#!/bin/sh\necho hello\n", mode: 0o4777}, member{name: "x-1.0/etc/conf", body: "a=b"}))
	url := b.serve("/x-linux-1.0.tar.gz", content)
	a := Artifact{URL: strings.ReplaceAll(url, "linux", "{{os}}"), SHA256: digest(content), Strip: 1}
	e, r := b.get(a)
	if got := read(t, e.Path, "x") + read(t, e.Path, "etc/conf"); got != "#!/bin/sh\necho hello\na=b" {
		t.Errorf("content is %q", got)
	}
	st, err := os.Stat(filepath.Join(e.Path, "x"))
	if err != nil || st.Mode() != 0o755 {
		t.Errorf("mode is %v, %v; want 0755: setuid and others' write are dropped", st.Mode(), err)
	}
	if r.Cached || r.Phases.Stored == 0 || r.Artifacts[0].Bytes != int64(len(content)) || len(r.Confined) < 6 {
		t.Errorf("%+v", r)
	}
	if inside, err := os.ReadDir(filepath.Dir(e.Path)); err != nil || len(inside) != 3 {
		t.Errorf("in the entry: %v, %v", inside, err)
	}
	if _, r := b.get(a); !r.Cached {
		t.Error("fetched again what the store has")
	}
}
