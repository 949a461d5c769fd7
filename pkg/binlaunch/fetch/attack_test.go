package fetch

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

func TestRefusedContent(t *testing.T) {
	file := member{name: "a", body: "a"}
	zeros := strings.Repeat("\x00", 48<<20)
	for _, c := range []struct {
		name    string
		url     string
		content func(t *testing.T) []byte
		word    string
		set     func(*Options)
	}{
		{"absolute path", "/x.tar", tarred(file, member{name: "/etc/cron.d/evil", body: "x"}), "absolute path", nil},
		{"dot-dot path", "/x.tar", tarred(file, member{name: "a/../../evil", body: "x"}), "leads up and out", nil},
		{"link out, absolute", "/x.tar", tarred(file, member{name: "l", kind: tar.TypeSymlink, link: "/etc"}), "not below the folder", nil},
		{"link out, relative", "/x.tar", tarred(member{name: "d/l", kind: tar.TypeSymlink, link: "../../etc"}), "may lead out", nil},
		{"link out, by a link on its way", "/x.tar", tarred(
			member{name: "a/b/d", kind: tar.TypeSymlink, link: "../.."}, member{name: "x", kind: tar.TypeSymlink, link: "a/b/d/../y"}), "may lead out", nil},
		{"file through a link", "/x.tar", tarred(
			member{name: "d", kind: tar.TypeDir}, member{name: "l", kind: tar.TypeSymlink, link: "d"}, member{name: "l/x", body: "x"}), "twice", nil},
		{"hard link out", "/x.tar", tarred(file, member{name: "l", kind: tar.TypeLink, link: "/etc/shadow"}), "absolute path", nil},
		{"hard link to nothing", "/x.tar", tarred(file, member{name: "l", kind: tar.TypeLink, link: "b"}), "no file before it", nil},
		{"character device", "/x.tar", tarred(member{name: "mem", kind: tar.TypeChar}), "the device", nil},
		{"block device", "/x.tar", tarred(member{name: "sda", kind: tar.TypeBlock}), "the device", nil},
		{"FIFO", "/x.tar", tarred(member{name: "fifo", kind: tar.TypeFifo}), "the FIFO", nil},
		{"duplicate file", "/x.tar", tarred(file, member{name: "./a", body: "b"}), "twice", nil},
		{"file over a folder", "/x.tar", tarred(member{name: "a/b", body: "b"}, file), "twice", nil},
		{"newline in a name", "/x.tar", tarred(member{name: "a\nb", body: "b"}), "printable", nil},
		{"nothing in it", "/x.tar", tarred(), "nothing came out", nil},
		{"no tar", "/x.tar", func(*testing.T) []byte { return []byte(strings.Repeat("no tar at all ", 100)) }, "no valid tar", nil},
		{"no gzip", "/x.gz", func(*testing.T) []byte { return []byte("no gzip") }, "no valid gz", nil},
		{"cut off", "/x.tar.gz", func(t *testing.T) []byte { b := gz(t, tarOf(t, file)); return b[:len(b)-9] }, "no valid tar.gz", nil},
		{"bomb by bytes", "/x.gz", func(t *testing.T) []byte { return gz(t, []byte(zeros)) }, "more than 1048576 bytes",
			func(o *Options) { o.Limits.Unpacked = 1 << 20 }},
		{"bomb by ratio", "/x.gz", func(t *testing.T) []byte { return gz(t, []byte(zeros)) }, "as a bomb has it", nil},
		{"bomb by ratio, zst", "/x.zst", func(t *testing.T) []byte { return zst(t, []byte(zeros)) }, "as a bomb has it", nil},
		{"bomb by ratio after the archive's end", "/x.tar.gz", func(t *testing.T) []byte { return gz(t, append(tarOf(t, file), zeros...)) }, "as a bomb has it", nil},
		{"bomb by files", "/x.tar", func(t *testing.T) []byte {
			var all []member
			for i := range 101 {
				all = append(all, member{name: fmt.Sprint(i)})
			}
			return tarOf(t, all...)
		}, "more than 100 files", func(o *Options) { o.Limits.Files = 100 }},
		{"bomb by holes", "/x.tar", sparseTar, "more than 1048576 bytes", func(o *Options) { o.Limits.Unpacked = 1 << 20 }},
		{"bomb by memory", "/x.tar.xz", hugeDictionary, "bytes of memory", nil},
		{"bomb by ratio, zip", "/x.zip", func(t *testing.T) []byte { return zipOf(t, "x", 0o644, zeros) }, "as a bomb has it", nil},
		{"zip with dot-dot", "/x.zip", zipped("../evil", 0o644), "leads up and out", nil},
		{"zip with an absolute path", "/x.zip", zipped("/evil", 0o644), "absolute path", nil},
		{"zip with a device", "/x.zip", zipped("dev", fs.ModeDevice), "neither file, folder nor link", nil},
		{"zip with a FIFO", "/x.zip", zipped("fifo", fs.ModeNamedPipe), "neither file, folder nor link", nil},
		{"zip with a link out", "/x.zip", zipped("link", fs.ModeSymlink|0o777), "not below the folder", nil},
		{"no zip", "/x.zip", func(*testing.T) []byte { return []byte("no zip") }, "no valid zip", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			if c.set != nil {
				c.set(&b.Fetcher.opts)
			}
			content := c.content(t)
			// Even with the right digest.
			err := b.refused(c.word, Artifact{URL: b.serve(c.url, content), SHA256: digest(content)})
			if c.name == "bomb by memory" { // it ends the process, who says no digest
				if IsPermanent(err) || !IsWrong(err) {
					t.Errorf("%v: is to be tried again, rarely", err)
				}
			} else if !IsPermanent(err) {
				t.Errorf("%v: is to be tried again", err)
			}
		})
	}
}

// TestRefusedWithoutItsDigest: where nothing tells that it is what was asked
// for, whoever sends it may be mended.
func TestRefusedWithoutItsDigest(t *testing.T) {
	b := newBench(t)
	page := []byte("<html>Please log in</html>")
	for word, a := range map[string]Artifact{
		"did somebody replace it": {URL: b.serve("/login.tar.gz", page), SHA256: digest([]byte("an archive"))},
		"no valid tar.gz":         {URL: b.serve("/any.tar.gz", page), Insecure: true},
		"nothing came out":        {URL: b.serve("/empty.tar", tarOf(t)), Insecure: true},
	} {
		if err := b.refused(word, a); IsPermanent(err) || !IsWrong(err) {
			t.Errorf("%v: permanent %v, wrong %v", err, IsPermanent(err), IsWrong(err))
		}
	}
}

func tarred(m ...member) func(*testing.T) []byte {
	return func(t *testing.T) []byte { return tarOf(t, m...) }
}

func zst(t *testing.T, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// zipped is a zip with one entry, whose content is an absolute path.
func zipped(name string, mode fs.FileMode) func(*testing.T) []byte {
	return func(t *testing.T) []byte { return zipOf(t, name, mode, "/etc/passwd") }
}

func zipOf(t *testing.T, name string, mode fs.FileMode, body string) []byte {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	h := &zip.FileHeader{Name: name, Method: zip.Deflate}
	h.SetMode(mode)
	f, err := w.CreateHeader(h)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write([]byte(body))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sparseTar has a file of 1 GiB of holes in a few hundred bytes. GNU tar makes
// it, since Go's cannot.
func sparseTar(t *testing.T) []byte {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "holes"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "holes"), 1<<30); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "-C", dir, "--sparse", "-c", "holes").Output()
	if err != nil {
		t.Fatal(err)
	}
	if len(out) > 1<<20 {
		t.Fatalf("the archive is not sparse: %d bytes", len(out))
	}
	return out
}

// hugeDictionary is an .xz that asks for a dictionary of 1.5 GiB: xz's own tool
// makes it, and writes the wish into its header.
func hugeDictionary(t *testing.T) []byte {
	cmd := exec.Command("xz", "-c", "--lzma2=preset=0,dict=1536MiB")
	cmd.Stdin = bytes.NewReader(tarOf(t, member{name: "a", body: "a"}))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRefusedWrongDigest(t *testing.T) {
	b := newBench(t)
	err := b.refused("did somebody replace it", Artifact{URL: b.serve("/x", []byte("evil")), SHA256: digest([]byte("good"))})
	if IsPermanent(err) || !IsWrong(err) { // a mirror may be mended
		t.Errorf("%v: permanent %v, wrong %v", err, IsPermanent(err), IsWrong(err))
	}
	b.refused("sha512", Artifact{URL: b.server.URL + "/x", SHA512: map[string]string{"*": strings.Repeat("0", 128)}})
}

// TestSHA512 is enough by itself, and beside a sha256 it counts too.
func TestSHA512(t *testing.T) {
	b := newBench(t)
	content := []byte("good")
	sum := sha512.Sum512(content)
	long := map[string]string{"*": hex.EncodeToString(sum[:])}
	b.serve("/x", content)
	b.refused("sha512", Artifact{URL: b.server.URL + "/x", SHA256: digest(content), SHA512: map[string]string{"*": strings.Repeat("0", 128)}})
	b.refused("sha256", Artifact{URL: b.server.URL + "/x", SHA256: digest([]byte("evil")), SHA512: long})
	for range 2 { // fetched, and out of the store
		if _, r := b.get(Artifact{URL: b.server.URL + "/x", SHA512: long}); r.Artifacts[0].SHA512 != long["*"] {
			t.Errorf("%+v", r)
		}
	}
}

func TestRefusedTwoArtifactsOneName(t *testing.T) {
	b := newBench(t)
	one, two := tarOf(t, member{name: "x", body: "1"}), tarOf(t, member{name: "x", body: "2"})
	b.refused("claim this name", Artifact{URL: b.serve("/1.tar", one), SHA256: digest(one)}, Artifact{URL: b.serve("/2.tar", two), SHA256: digest(two)})
	raw := []byte("raw")
	b.refused("claim this name", Artifact{URL: b.serve("/x", raw), SHA256: digest(raw)}, Artifact{URL: b.server.URL + "/1.tar", SHA256: digest(one)})
}

// endless answers with zeros until the client leaves.
func endless(w http.ResponseWriter, r *http.Request) {
	buf := make([]byte, 64<<10)
	for r.Context().Err() == nil {
		if _, err := w.Write(buf); err != nil {
			return
		}
	}
}

func TestRefusedEndlessBody(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Limits.Download = 8 << 20 })
	b.mux.HandleFunc("/x", endless)
	b.refused("more than 8388608 bytes", Artifact{URL: b.server.URL + "/x", Insecure: true})
}

func TestRefusedAnnouncedLength(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Limits.Download = 8 << 20 })
	b.mux.HandleFunc("/x", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "9000000000") })
	b.refused("it has 9000000000 bytes", Artifact{URL: b.server.URL + "/x", Insecure: true})
}

func TestRefusedTrickle(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Limits.Stall, o.Limits.Rate, o.Limits.Tries = time.Second, 1000, 2 })
	b.mux.HandleFunc("/x", func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = w.Write([]byte{0})
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	err := b.refused("the server sent", Artifact{URL: b.server.URL + "/x", SHA256: digest(nil)})
	if IsPermanent(err) {
		t.Errorf("%v: is not to be tried again", err)
	}
}

func TestRefusedSilence(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Limits.Deadline = 500 * time.Millisecond })
	b.mux.HandleFunc("/x", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	b.refused("it took longer than 500ms", Artifact{URL: b.server.URL + "/x", Insecure: true})
}

func TestRefusedRedirects(t *testing.T) {
	secret := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("secret")) }))
	defer secret.Close()
	_, port, _ := net.SplitHostPort(secret.Listener.Addr().String())
	for _, c := range []struct{ name, to, word string }{
		{"another port of loopback", secret.URL, "at the loopback address"},
		{"loopback by name", "http://localhost:" + port, "at the loopback address"},
		{"loopback by a decimal number", "http://2130706433:" + port, "lookup 2130706433"}, // it is a name, whatever DNS says of it
		{"loopback as IPv6", "http://[::1]:" + port, "at the loopback address"},
		{"loopback as mapped IPv6", "http://[::ffff:127.0.0.1]:" + port, "at the loopback address"},
		{"unspecified", "http://0.0.0.0:" + port, "at the special address"},
		{"a cloud's metadata", "http://169.254.169.254/latest/meta-data/", "at the link-local address"},
		{"private", "http://10.96.0.1/", "at the private address"},
		{"file", "file:///etc/passwd", "the scheme"},
		{"gopher", "gopher://127.0.0.1/x", "the scheme"},
		{"with a password", "https://a:b@example.com/", "user and password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.mux.HandleFunc("/x", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", c.to)
				w.WriteHeader(http.StatusFound)
			})
			b.refused(c.word, Artifact{URL: b.server.URL + "/x", Insecure: true})
		})
	}
	t.Run("in a circle", func(t *testing.T) {
		b := newBench(t)
		b.mux.HandleFunc("/x", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) })
		b.refused("more than 5 redirects", Artifact{URL: b.server.URL + "/x", Insecure: true})
	})
	t.Run("allowed", func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.ToPrivate = true })
		b.mux.HandleFunc("/x", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, secret.URL, http.StatusFound) })
		e, _ := b.get(Artifact{URL: b.server.URL + "/x", Insecure: true})
		if got := read(t, e.Path, "x"); got != "secret" {
			t.Errorf("got %q", got)
		}
	})
}

// TestRefusedDiskFull fills a small file system: what does not fit is refused,
// and the space is there again afterwards.
func TestRefusedDiskFull(t *testing.T) {
	for name, reserve := range map[string]float64{"to the last byte": -1, "down to the reserve": 0.5} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m,mode=0755"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			s, err := store.Open(store.Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			before := freeBytes(t, dir)
			b := newBench(t, func(o *Options) { o.Store, o.Reserve = s, reserve })
			b.mux.HandleFunc("/x", endless)
			err = b.refused("no space is left", Artifact{URL: b.server.URL + "/x", Insecure: true})
			var e *Error
			if !errors.As(err, &e) || !e.Full || e.Permanent {
				t.Errorf("%v: full %v, permanent %v", err, e.Full, e.Permanent)
			}
			if after := freeBytes(t, dir); after < before {
				t.Errorf("%d bytes are free, %d were before", after, before)
			}
			e2, _ := b.get(Artifact{URL: b.serve("/small", []byte("small")), Insecure: true})
			if got := read(t, e2.Path, "small"); got != "small" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func freeBytes(t *testing.T, dir string) uint64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Bavail
}

// TestCancelLeavesNothing: whoever asks leaves in the middle.
func TestCancelLeavesNothing(t *testing.T) {
	b := newBench(t)
	began := make(chan struct{}, 1)
	b.mux.HandleFunc("/x", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(make([]byte, 100000))
		w.(http.Flusher).Flush()
		began <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-began; cancel() }()
	if _, _, err := b.Get(ctx, []Artifact{{URL: b.server.URL + "/x", Insecure: true}}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	b.clean()
	b.empty()
}
