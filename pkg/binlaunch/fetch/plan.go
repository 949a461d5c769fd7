package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/unpack"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/verify"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// Platform is what {{os}} and {{arch}} stand for.
type Platform struct{ OS, Arch string }

// item is an artifact with everything decided that can be without looking.
type item struct {
	url        string // expanded
	sources    []string
	signatures []string
	sha256     string // wanted, "": not known
	sha512     string
	manifest   string // wanted of an OCI artifact, with its algorithm
	key        *verify.Key
	insecure   bool
	pinned     string
	headers    string
	layout     unpack.Layout
}

// fixed reports whether its content is known by a digest.
func (it *item) fixed() bool { return it.sha256 != "" || it.sha512 != "" || it.manifest != "" }

// plan checks a spec and expands it for this node.
func plan(artifacts []Artifact, p Platform, keys map[string]verify.Key) ([]item, error) {
	if len(artifacts) == 0 {
		return nil, permanent("", "nothing is named: at least one artifact is needed")
	}
	items := make([]item, 0, len(artifacts))
	for _, a := range artifacts {
		it, err := planOne(a, p, keys)
		var absent *noKeyError
		if errors.As(err, &absent) { // it may be put there
			return nil, &Error{URL: a.URL, Err: err}
		}
		if err != nil {
			return nil, permanent(a.URL, "%w", err)
		}
		for _, other := range items {
			if it.layout.Format.Single() && other.layout.Format.Single() && it.layout.Path == other.layout.Path {
				return nil, permanent(it.url, "two artifacts claim the name %q: give one of them another path", it.layout.Path)
			}
		}
		items = append(items, it)
	}
	return items, nil
}

func planOne(a Artifact, p Platform, keys map[string]verify.Key) (item, error) {
	it := item{insecure: a.Insecure, pinned: strings.ToLower(a.Pinned), headers: a.HeadersFile}
	for _, raw := range append([]string{a.URL}, a.Mirrors...) {
		u, err := expandURL(raw, p)
		if err != nil {
			return it, err
		}
		it.sources = append(it.sources, u)
	}
	it.url = it.sources[0]
	it.manifest = ociDigest(it.url)
	var err error
	if it.layout, err = planLayout(a, it.url, p); err != nil {
		return it, err
	}
	if it.sha256, err = digestFor("sha256", a.SHA256, p.Arch, 64); err != nil {
		return it, err
	}
	if it.sha512, err = digestFor("sha512", a.SHA512, p.Arch, 128); err != nil {
		return it, err
	}
	if err := it.planSignature(a.Signature, p, keys); err != nil {
		return it, err
	}
	return it, it.vouched()
}

// vouched refuses what nobody vouches for, unless that is written out.
func (it *item) vouched() error {
	switch safe := it.fixed() || it.key != nil; {
	case !safe && !it.insecure:
		return fmt.Errorf("nobody vouches for it: give its sha256, its sha512 or a signature, or write insecure: true to run it all the same")
	case safe && it.insecure:
		return fmt.Errorf("insecure: true stands beside a digest or a signature: take one of them away")
	}
	return nil
}

// placeholder is what is replaced in a URL or path.
func placeholder() *regexp.Regexp { return regexp.MustCompile(`\{\{\s*([^{}]*?)\s*\}\}`) }

func expand(s string, p Platform) (string, error) {
	var unknown string
	out := placeholder().ReplaceAllStringFunc(s, func(m string) string {
		switch name := placeholder().FindStringSubmatch(m)[1]; name {
		case "os":
			return p.OS
		case "arch":
			return p.Arch
		default:
			unknown = name
			return m
		}
	})
	if unknown != "" {
		return "", fmt.Errorf("{{%s}} in %q is not known: only {{os}} and {{arch}} are", unknown, s)
	}
	return out, nil
}

func expandURL(raw string, p Platform) (string, error) {
	s, err := expand(raw, p)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("no URL: %w", err)
	}
	switch {
	case u.Scheme == "file" && (u.Host != "" || !strings.HasPrefix(u.Path, "/")):
		return "", fmt.Errorf("%q is no file on this node: write file:///PATH", s)
	case u.Scheme == "file":
	case u.Scheme != "http" && u.Scheme != "https" && !isOCI(u.Scheme):
		return "", fmt.Errorf("the scheme %q is not fetched: http, https, file and oci are (oci+http: a registry without TLS)", u.Scheme)
	case u.Hostname() == "":
		return "", fmt.Errorf("%q names no host", s)
	case u.User != nil:
		return "", fmt.Errorf("a user and password in a URL are seen by everyone: put them into a headers file")
	}
	if !isOCI(u.Scheme) {
		u.Fragment = ""
	}
	return u.String(), nil
}

func planLayout(a Artifact, expanded string, p Platform) (unpack.Layout, error) {
	u, err := url.Parse(expanded)
	if err != nil {
		return unpack.Layout{}, err
	}
	format, name := unpack.Guess(u.Path)
	if isOCI(u.Scheme) { // a layer has no name of its own but the title that is asked for
		if format, name = unpack.TarGz, "."; u.Fragment != "" {
			format, name = unpack.Guess(u.Fragment)
		}
	}
	if a.Format != "" {
		if format = unpack.Format(a.Format); !format.Known() {
			return unpack.Layout{}, fmt.Errorf("the format %q is not known: raw, gz, xz, zst, bz2, tar, tar.gz, tar.xz, tar.zst, tar.bz2 and zip are", a.Format)
		}
		if format == unpack.Raw && !isOCI(u.Scheme) {
			name = path.Base(u.Path)
		}
	}
	l := unpack.Layout{Format: format, Mode: a.Mode, Strip: a.Strip}
	if l.Path = "."; format.Single() && name != "/" {
		l.Path = name
	}
	if a.Path != "" {
		if l.Path, err = expand(a.Path, p); err != nil {
			return l, err
		}
	}
	return l, checkLayout(&l, a)
}

func checkLayout(l *unpack.Layout, a Artifact) error {
	clean := path.Clean(l.Path)
	switch {
	case path.IsAbs(l.Path) || clean == ".." || strings.HasPrefix(clean, "../"):
		return fmt.Errorf("the path %q leads out of the task's folder: it must be relative, with no .. in it", l.Path)
	case l.Format.Single() && (clean == "." || clean == "/" || strings.HasSuffix(l.Path, "/")):
		return fmt.Errorf("the path %q is no file's name, and the URL ends without one: set path", l.Path)
	case a.Strip < 0, a.Strip > 0 && l.Format.Single():
		return fmt.Errorf("strip: %d of a %s: there is nothing to strip", a.Strip, l.Format)
	case a.Mode&^0o777 != 0:
		return fmt.Errorf("the mode %#o has more than permission bits: 0 to 0777 are", uint32(a.Mode))
	}
	l.Path = clean
	return nil
}

func digestFor(what string, byArch map[string]string, arch string, digits int) (string, error) {
	if len(byArch) == 0 {
		return "", nil
	}
	d, ok := byArch[arch]
	if !ok {
		d, ok = byArch["*"]
	}
	if !ok {
		return "", fmt.Errorf("no %s for this node's architecture %s: there is one for %s", what, arch,
			strings.Join(slices.Sorted(maps.Keys(byArch)), ", "))
	}
	d = strings.ToLower(strings.TrimPrefix(d, what+":"))
	if _, err := hex.DecodeString(d); err != nil || len(d) != digits {
		return "", fmt.Errorf("the %s %q is not %d hex digits", what, d, digits)
	}
	return d, nil
}

func (it *item) planSignature(s *Signature, p Platform, keys map[string]verify.Key) error {
	if s == nil {
		return nil
	}
	key, ok := keys[s.Key]
	if !ok {
		return &noKeyError{s.Key, slices.Sorted(maps.Keys(keys))}
	}
	it.key = &key
	if s.URL != "" {
		u, err := expandURL(s.URL, p)
		it.signatures = []string{u}
		return err
	}
	for _, src := range it.sources {
		u, err := url.Parse(src)
		if err != nil {
			return err
		}
		if isOCI(u.Scheme) {
			return fmt.Errorf("the signature's url is needed for an oci artifact")
		}
		u.Path += key.SignatureSuffix()
		u.RawPath = ""
		it.signatures = append(it.signatures, u.String())
	}
	return nil
}

// noKeyError says that this node lacks the key by which something has to be
// signed.
type noKeyError struct {
	key  string
	have []string
}

func (e *noKeyError) Error() string {
	return fmt.Sprintf("it is to be signed by the key %q, which this node does not have: put it into the agent's folder of keys as %s%s (there are: %s)",
		e.key, e.key, verify.Suffix, strings.Join(e.have, ", "))
}

// requestKey tells one request from another, whatever they were before.
func requestKey(items []item) string {
	return keyOf(items, (*item).asked)
}

// contentKey tells what is asked for, as far as that is known beforehand: of
// what has a digest it does not matter where it comes from.
func contentKey(items []item) string {
	return keyOf(items, func(it *item) []any {
		if !it.fixed() || it.key != nil {
			return it.asked()
		}
		title := ""
		if it.manifest != "" {
			_, title, _ = strings.Cut(it.url, "#")
		}
		return []any{it.sha256, it.sha512, it.manifest, title, it.layout}
	})
}

func (it *item) asked() []any {
	signer := ""
	if it.key != nil {
		signer = it.key.Print
	}
	return []any{it.sources, it.signatures, it.sha256, it.sha512, signer, it.headers, it.layout}
}

func keyOf(items []item, of func(*item) []any) string {
	var parts []string
	for i := range items {
		b, _ := json.Marshal(of(&items[i]))
		parts = append(parts, string(b))
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:])
}

// entryDigest names the entry that the items make when they have these
// digests: the same content at the same places is the same entry, whatever
// its URL.
func entryDigest(items []item, sha256s []string) string {
	var parts []string
	for i := range items {
		l := items[i].layout
		parts = append(parts, fmt.Sprintf("%s %s %q %o %d", sha256s[i], l.Format, l.Path, l.Mode, l.Strip))
	}
	return store.DigestOf(parts)
}

// wantedDigest names the entry if that can be told beforehand.
func wantedDigest(items []item) (string, bool) {
	var sums []string
	for i := range items {
		if items[i].sha256 == "" {
			return "", false
		}
		sums = append(sums, items[i].sha256)
	}
	return entryDigest(items, sums), true
}

func isOCI(scheme string) bool { return scheme == "oci" || scheme == "oci+http" }

// ociDigest is the digest in an oci URL, "" without one.
func ociDigest(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || !isOCI(u.Scheme) {
		return ""
	}
	_, digest, _ := strings.Cut(u.Path, "@")
	return digest
}
