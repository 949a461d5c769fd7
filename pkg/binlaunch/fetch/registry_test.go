package fetch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// startRegistry runs Debian's registry (CNCF distribution) and returns where it
// is. With users, in htpasswd's form, it asks who comes.
func startRegistry(t *testing.T, users string) string {
	t.Helper()
	program := os.Getenv("NODEAGENT_TEST_REGISTRY")
	if program == "" {
		t.Fatal("NODEAGENT_TEST_REGISTRY is not set: it is the path of docker-registry. Run `make test`, which fetches it")
	}
	dir := t.TempDir()
	// It takes a port of its own choice and says which: one that was free a moment
	// ago may be anybody's by now.
	config := fmt.Sprintf("version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: 127.0.0.1:0}\n", dir)
	if users != "" {
		write(t, filepath.Join(dir, "htpasswd"), []byte(users))
		config += fmt.Sprintf("auth: {htpasswd: {realm: shop, path: %s/htpasswd}}\n", dir)
	}
	write(t, filepath.Join(dir, "config.yml"), []byte(config))
	cmd := exec.Command(program, "serve", filepath.Join(dir, "config.yml"))
	log, to := io.Pipe()
	cmd.Stdout, cmd.Stderr = to, to
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	at, heard := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(heard)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			_, _ = fmt.Fprintln(t.Output(), lines.Text())
			if _, after, ok := strings.Cut(lines.Text(), `msg="listening on `); ok {
				address, _, _ := strings.Cut(after, `"`)
				at <- address
			}
		}
	}()
	t.Cleanup(func() { _, _, _ = cmd.Process.Kill(), cmd.Wait(), to.Close(); <-heard })
	select {
	case address := <-at: // it takes connections from here on
		return address
	case <-time.After(60 * time.Second):
		t.Fatal("the registry does not say where it listens")
		return ""
	}
}

// pusher puts artifacts into a repository, as `oras push` does.
type pusher struct {
	t *testing.T
	*remote.Repository
}

func newPusher(t *testing.T, reference, user, password string) pusher {
	t.Helper()
	repo, err := remote.NewRepository(reference)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	if user != "" {
		repo.Client = &auth.Client{Client: http.DefaultClient, Credential: auth.StaticCredential(repo.Reference.Registry, auth.Credential{Username: user, Password: password})}
	}
	return pusher{t, repo}
}

func (p pusher) blob(mediaType, title string, b []byte) ocispec.Descriptor {
	p.t.Helper()
	d := content.NewDescriptorFromBytes(mediaType, b)
	if err := p.Push(p.t.Context(), d, bytes.NewReader(b)); err != nil {
		p.t.Fatal(err)
	}
	d.Annotations = map[string]string{ocispec.AnnotationTitle: title}
	return d
}

func (p pusher) manifest(tag string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	p.t.Helper()
	d, err := oras.PackManifest(p.t.Context(), p, oras.PackManifestVersion1_1, "application/vnd.example.tool", oras.PackManifestOptions{Layers: layers})
	if err == nil && tag != "" {
		err = p.Tag(p.t.Context(), d, tag)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

func (p pusher) index(tag string, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	p.t.Helper()
	raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
	if err != nil {
		p.t.Fatal(err)
	}
	d := content.NewDescriptorFromBytes(ocispec.MediaTypeImageIndex, raw)
	if err := p.PushReference(p.t.Context(), d, bytes.NewReader(raw), tag); err != nil {
		p.t.Fatal(err)
	}
	return d
}

// TestRegistry fetches what oras has pushed out of a real registry: by tag, by
// digest, by platform, by title, with a password.
func TestRegistry(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Platform = Platform{OS: "linux", Arch: "riscv64"} })
	at := startRegistry(t, "")
	p := newPusher(t, at+"/shop/tool", "", "")
	packed := gz(t, tarOf(t, member{name: "x", body: "binary", mode: 0o755}))
	layer := p.blob(ocispec.MediaTypeImageLayerGzip, "", packed)
	tool, conf := p.blob("application/octet-stream", "tool", []byte("tool")), p.blob("text/plain", "tool.conf", []byte("a=b"))
	single, both := p.manifest("v1", layer), p.manifest("both", tool, conf)
	other := p.manifest("", tool)
	single.Platform, other.Platform = &ocispec.Platform{OS: "linux", Architecture: "riscv64"}, &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	all := p.index("all", other, single)

	repo := "oci+http://" + at + "/shop/tool"
	for name, c := range map[string]struct {
		a    Artifact
		file string
		want string
	}{
		"tag":      {Artifact{URL: repo + ":v1", SHA256: digest(packed)}, "x", "binary"},
		"digest":   {Artifact{URL: repo + "@" + single.Digest.String()}, "x", "binary"},
		"platform": {Artifact{URL: repo + "@" + all.Digest.String()}, "x", "binary"},
		"by tag":   {Artifact{URL: repo + ":all", Insecure: true}, "x", "binary"},
		"title":    {Artifact{URL: repo + "@" + both.Digest.String() + "#tool"}, "tool", "tool"},
		"other":    {Artifact{URL: repo + ":both#tool.conf", SHA256: digest([]byte("a=b"))}, "tool.conf", "a=b"},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := b.get(c.a)
			if got := read(t, e.Path, c.file); got != c.want {
				t.Errorf("got %q", got)
			}
			if _, r := b.get(c.a); !r.Cached {
				t.Error("fetched again")
			}
		})
	}
	for url, want := range map[string]string{
		repo + ":none":         "not found",
		repo + ":both":         "2 layers",
		repo + ":both#nothing": "no layer has the title",
	} {
		if err := b.fails(Artifact{URL: url, Insecure: true}); !strings.Contains(err, want) {
			t.Error(err)
		}
	}
	if err := b.fails(Artifact{URL: repo + ":v1", SHA256: digest([]byte("another"))}); !strings.Contains(err, "sha256") {
		t.Error(err)
	}
	t.Run("the tag moves on", func(t *testing.T) {
		a := Artifact{URL: repo + ":both#tool", Insecure: true}
		b.get(a)
		p.manifest("both", p.blob("application/octet-stream", "tool", []byte("second")))
		if e, r := b.get(a); read(t, e.Path, "tool") != "second" || r.Cached {
			t.Errorf("%+v", r)
		}
	})
	t.Run("with a password", func(t *testing.T) {
		at := startRegistry(t, "shop:$2b$12$E8q/xqrh0ZvZYbWS8tjZZ.7ql5oQ.suH53rPS1fUBKmWYk1Ecv.ii\n") // secret
		p := newPusher(t, at+"/tool", "shop", "secret")
		p.manifest("v1", p.blob("application/octet-stream", "tool", []byte("tool")))
		b.Fetcher.opts.HeadersDir = b.dir
		write(t, b.dir+"/reg", []byte("Host: 127.0.0.1\nAuthorization: Basic c2hvcDpzZWNyZXQ=\n"))
		a := Artifact{URL: "oci+http://" + at + "/tool:v1#tool", SHA256: digest([]byte("tool"))}
		if err := b.fails(Artifact{URL: a.URL, Insecure: true}); !strings.Contains(err, "headers file") {
			t.Error(err)
		}
		a.HeadersFile = "reg"
		if e, _ := b.get(a); read(t, e.Path, "tool") != "tool" {
			t.Error("not what was pushed")
		}
	})
}
