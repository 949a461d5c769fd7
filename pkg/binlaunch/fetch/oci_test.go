package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	godigest "github.com/opencontainers/go-digest"
)

// registry serves blobs and manifests as the distribution specification has
// it, to pull from.
type registry struct {
	blobs map[string][]byte // by digest
	types map[string]string
	tags  map[string]string
	user  string // user:password it asks for, if any
}

func (r *registry) add(mediaType string, b []byte) ocispec.Descriptor {
	d := digestOf(b)
	r.blobs[d], r.types[d] = b, mediaType
	return ocispec.Descriptor{MediaType: mediaType, Digest: godigest.Digest(d), Size: int64(len(b))}
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (r *registry) addJSON(mediaType string, v any) ocispec.Descriptor {
	b, _ := json.Marshal(v)
	return r.add(mediaType, b)
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if user, password, _ := req.BasicAuth(); r.user != "" && user+":"+password != r.user {
		w.Header().Set("WWW-Authenticate", `Basic realm="shop"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	parts := strings.Split(req.URL.Path, "/")
	d := parts[len(parts)-1]
	if tagged, ok := r.tags[d]; ok {
		d = tagged
	}
	b, ok := r.blobs[d]
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", r.types[d])
	w.Header().Set("Docker-Content-Digest", d)
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	_, _ = w.Write(b)
}

func TestOCI(t *testing.T) {
	content := gz(t, tarOf(t, member{name: "x", body: "binary", mode: 0o755}))
	reg := &registry{blobs: map[string][]byte{}, types: map[string]string{}, tags: map[string]string{}}
	one := reg.add(ocispec.MediaTypeImageLayerGzip, content)
	raw := reg.add("application/octet-stream", []byte("raw"))
	raw.Annotations = map[string]string{ocispec.AnnotationTitle: "tool"}
	config := reg.add(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	manifest := func(layers ...ocispec.Descriptor) ocispec.Descriptor {
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers}
		m.SchemaVersion = 2
		return reg.addJSON(ocispec.MediaTypeImageManifest, m)
	}
	single, both := manifest(one), manifest(one, raw)
	single.Platform = &ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	other := manifest(raw)
	other.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{other, single}}
	index.SchemaVersion = 2
	root := reg.addJSON(ocispec.MediaTypeImageIndex, index)
	reg.tags = map[string]string{"v1": single.Digest.String(), "both": both.Digest.String(), "index": root.Digest.String()}

	b := newBench(t, func(o *Options) { o.Platform = Platform{OS: "linux", Arch: "riscv64"} })
	b.mux.Handle("/v2/", reg)
	repo := strings.Replace(b.server.URL, "http://", "oci+http://", 1) + "/shop/x"
	b.refused("nobody vouches", Artifact{URL: repo + ":v1"})
	b.refused("not found", Artifact{URL: repo + ":none", Insecure: true})
	b.refused("2 layers", Artifact{URL: repo + ":both", Insecure: true})
	b.refused("no layer has the title", Artifact{URL: repo + ":both#other", Insecure: true})
	b.refused("not found", Artifact{URL: repo + "@sha256:" + strings.Repeat("0", 64)})
	for name, a := range map[string]Artifact{
		"tag":                {URL: repo + ":v1", SHA256: digest(content)},
		"tag, insecure":      {URL: repo + ":v1", Insecure: true},
		"digest":             {URL: repo + "@" + single.Digest.String()},
		"digest of an index": {URL: repo + "@" + root.Digest.String()},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := b.get(a)
			if got := read(t, e.Path, "x"); got != "binary" {
				t.Errorf("got %q", got)
			}
			if _, r := b.get(a); !r.Cached {
				t.Error("fetched again")
			}
		})
	}
	t.Run("a layer by its title", func(t *testing.T) {
		e, _ := b.get(Artifact{URL: repo + "@" + both.Digest.String() + "#tool"})
		if got := read(t, e.Path, "tool"); got != "raw" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("the tag moves on", func(t *testing.T) {
		reg.tags["v1"] = manifest(reg.add(ocispec.MediaTypeImageLayerGzip, gz(t, tarOf(t, member{name: "x", body: "second"})))).Digest.String()
		e, r := b.get(Artifact{URL: repo + ":v1", Insecure: true})
		if got := read(t, e.Path, "x"); got != "second" || r.Cached {
			t.Errorf("got %q", got)
		}
	})
	t.Run("another blob than the manifest's", func(t *testing.T) {
		third := reg.add(ocispec.MediaTypeImageLayerGzip, gz(t, tarOf(t, member{name: "x", body: "third"})))
		m := manifest(third)
		reg.blobs[third.Digest.String()] = gz(t, tarOf(t, member{name: "x", body: "THIRD"}))
		if err := b.fails(Artifact{URL: repo + "@" + m.Digest.String()}); !strings.Contains(err, "the manifest leads to") {
			t.Error(err)
		}
	})
	t.Run("a mirror in place of a registry that lost the blob", func(t *testing.T) {
		lost := &registry{blobs: map[string][]byte{}, types: reg.types, tags: reg.tags}
		for d, c := range reg.blobs {
			if d != raw.Digest.String() {
				lost.blobs[d] = c
			}
		}
		other := newBench(t)
		other.mux.Handle("/v2/", lost)
		first := strings.Replace(other.server.URL, "http://", "oci+http://", 1) + "/shop/x:both#tool"
		e, r := other.get(Artifact{URL: first, Mirrors: []string{repo + ":both#tool"}, SHA256: digest([]byte("raw"))})
		if got := read(t, e.Path, "tool"); got != "raw" || !strings.HasPrefix(r.Artifacts[0].Source, repo) {
			t.Errorf("got %q from %s", got, r.Artifacts[0].Source)
		}
	})
	t.Run("with a password", func(t *testing.T) {
		reg.user = "shop:secret"
		b.Fetcher.opts.HeadersDir = b.dir
		write(t, b.dir+"/reg", []byte("Host: 127.0.0.1\nAuthorization: Basic c2hvcDpzZWNyZXQ=\n"))
		a := Artifact{URL: repo + ":both#tool", Insecure: true}
		if err := b.fails(a); !strings.Contains(err, "headers file") {
			t.Error(err)
		}
		a.HeadersFile = "reg"
		b.get(a)
	})
}
