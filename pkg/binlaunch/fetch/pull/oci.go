package pull

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// maxManifest bounds a manifest, in bytes, as registries do.
const maxManifest = 4 << 20

// OCITag begins the ETag of what came from a registry: the rest is the digest
// that the reference led to.
const OCITag = "oci "

// layer is what an OCI reference led to. The manifests on the way are kept for
// whoever judges: each holds the digest of the next, the last the layer's.
type layer struct {
	repo      *remote.Repository
	desc      ocispec.Descriptor
	manifests [][]byte
	root      string
}

// openOCI opens a layer at pos. The reference is looked up once: whatever a tag
// becomes meanwhile, the body stays that of one layer.
func (b *body) openOCI(source string) error {
	ctx, cancel := context.WithCancel(context.WithValue(b.ctx, itemKey{}, b.item))
	if b.layer == nil {
		l, err := findLayer(ctx, b.client, b.item, source)
		if err != nil {
			cancel()
			return whyNotOCI(err)
		}
		if l.desc.Size > b.limits.Download {
			cancel()
			return unusable("it has %d bytes, more than %d", l.desc.Size, b.limits.Download)
		}
		b.layer, b.total, b.seen.etag = l, l.desc.Size, OCITag+l.root
	}
	rc, err := b.layer.repo.Blobs().Fetch(ctx, b.layer.desc)
	if err == nil && b.pos > 0 {
		err = skip(rc, b.pos)
	}
	if err != nil {
		cancel()
		return whyNotOCI(err)
	}
	b.end = func() { cancel(); _ = rc.Close() }
	b.cur = &stallReader{r: rc, cancel: cancel, window: b.limits.Stall, rate: b.limits.StallRate}
	return nil
}

func skip(r io.Reader, n int64) error {
	if s, ok := r.(io.Seeker); ok {
		_, err := s.Seek(n, io.SeekStart)
		return err
	}
	_, err := io.CopyN(io.Discard, r, n)
	return err
}

// repository opens the registry that a source names, and returns its reference
// there and the title of the layer that is wanted.
func repository(client *http.Client, it *Item, source string) (*remote.Repository, string, string, error) {
	u, err := url.Parse(source)
	if err != nil {
		return nil, "", "", err
	}
	repo, err := remote.NewRepository(u.Host + u.Path)
	if err != nil {
		return nil, "", "", fault{Refused, err}
	}
	repo.PlainHTTP = u.Scheme == "oci+http"
	repo.Client = &auth.Client{
		Client: client, Cache: auth.NewCache(), Header: http.Header{"User-Agent": {"nodeagent"}},
		Credential: func(_ context.Context, hostport string) (auth.Credential, error) {
			if hostport != u.Host {
				return auth.Credential{}, nil
			}
			return credential(it.Headers[u.Hostname()]), nil
		},
	}
	return repo, repo.Reference.ReferenceOrDefault(), u.Fragment, nil
}

// credential takes user and password, or a token, out of the header that other
// servers get as it is.
func credential(headers []Header) auth.Credential {
	for _, h := range headers {
		if !strings.EqualFold(h.Name, "Authorization") {
			continue
		}
		kind, value, _ := strings.Cut(h.Value, " ")
		if strings.EqualFold(kind, "bearer") {
			return auth.Credential{AccessToken: value}
		}
		if b, err := base64.StdEncoding.DecodeString(value); err == nil {
			user, password, _ := strings.Cut(string(b), ":")
			return auth.Credential{Username: user, Password: password}
		}
	}
	return auth.Credential{}
}

// findLayer follows a reference through an index to a manifest to a layer.
func findLayer(ctx context.Context, client *http.Client, it *Item, source string) (*layer, error) {
	repo, ref, title, err := repository(client, it, source)
	if err != nil {
		return nil, err
	}
	desc, rc, err := repo.FetchReference(ctx, ref)
	if err != nil {
		return nil, err
	}
	l := &layer{repo: repo, root: desc.Digest.String()}
	for range 3 { // an index may hold an index
		if desc.Size > maxManifest {
			_ = rc.Close()
			return nil, refused("its manifest has %d bytes, more than %d", desc.Size, maxManifest)
		}
		b, err := content.ReadAll(rc, desc)
		_ = rc.Close()
		if err != nil {
			return nil, err
		}
		l.manifests = append(l.manifests, b)
		next, done, err := nextOf(b, it, title)
		if err != nil || done {
			l.desc = next
			return l, err
		}
		desc = next
		if rc, err = repo.Fetch(ctx, desc); err != nil {
			return nil, err
		}
	}
	return nil, refused("its index leads to ever more indexes")
}

// nextOf tells what a manifest leads to: the layer (done) or, from an index,
// the manifest for this platform.
func nextOf(b []byte, it *Item, title string) (ocispec.Descriptor, bool, error) {
	var m struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
		Layers    []ocispec.Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return ocispec.Descriptor{}, false, refused("no manifest: %v", err)
	}
	for _, d := range m.Manifests {
		if d.Platform != nil && d.Platform.OS == it.OS && d.Platform.Architecture == it.Arch {
			return d, false, nil
		}
	}
	if len(m.Manifests) > 0 {
		return ocispec.Descriptor{}, false, fault{Absent, fmt.Errorf("there is none for %s/%s", it.OS, it.Arch)}
	}
	for _, d := range m.Layers {
		if d.Annotations[ocispec.AnnotationTitle] == title && title != "" || title == "" && len(m.Layers) == 1 {
			return d, true, nil
		}
	}
	if title == "" {
		return ocispec.Descriptor{}, false, refused("%d layers, and one is fetched: name its title behind a # in the URL", len(m.Layers))
	}
	return ocispec.Descriptor{}, false, fault{Absent, fmt.Errorf("no layer has the title %q", title)}
}

// probeOCI asks what a reference leads to now.
func (p *puller) probeOCI(ctx context.Context, it *Item) (bool, error) {
	repo, ref, _, err := repository(p.client, it, it.Sources[0])
	if err != nil {
		return false, err
	}
	desc, err := repo.Resolve(ctx, ref)
	if err != nil {
		return false, whyNotOCI(err)
	}
	return OCITag+desc.Digest.String() == it.ETag, nil
}

// whyNotOCI tells what a registry will not give from one that is away.
func whyNotOCI(err error) error {
	var known fault
	var answer *errcode.ErrorResponse
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, errdef.ErrNotFound):
		return fault{Absent, err}
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fault{Absent, fmt.Errorf("%w: does it need a headers file?", err)}
	case errors.Is(err, content.ErrMismatchedDigest):
		return fault{Refused, err}
	case errors.As(err, &answer) && answer.StatusCode >= 400 && answer.StatusCode < 500 && answer.StatusCode != http.StatusTooManyRequests:
		return fault{Absent, err}
	}
	return whyNot(err)
}
