package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/verify"
)

// judge decides whether what was fetched is what was asked for. A wrong digest
// is the source's fault, so another source may still do.
func judge(it *item, r pull.Report) (Fetched, error) {
	f := Fetched{URL: it.url, Source: r.Source, SHA256: r.SHA256, SHA512: r.SHA512, Bytes: r.Bytes, Resumes: r.Resumes, ETag: r.ETag}
	if it.sha256 != "" && r.SHA256 != it.sha256 {
		return f, &wrongError{r.Source, fmt.Errorf("its sha256 is %s, and %s was asked for: did somebody replace it? (%d bytes)", r.SHA256, it.sha256, r.Bytes)}
	}
	if it.sha512 != "" && r.SHA512 != it.sha512 {
		return f, &wrongError{r.Source, fmt.Errorf("its sha512 is %s, and %s was asked for: did somebody replace it? (%d bytes)", r.SHA512, it.sha512, r.Bytes)}
	}
	if err := chained(it.manifest, r); err != nil {
		return f, &wrongError{r.Source, err}
	}
	if it.key != nil {
		d, err := digests(r)
		if err != nil {
			return f, err
		}
		if f.Signer, err = it.key.Check(r.Signature, d); err != nil {
			return f, &wrongError{r.Source, err}
		}
	}
	f.Insecure = it.insecure
	if it.insecure && it.pinned != "" && it.pinned != r.SHA256 {
		f.Changed = it.pinned
	}
	return f, nil
}

func digests(r pull.Report) (verify.Digests, error) {
	var d verify.Digests
	var err error
	if d.SHA256, err = hex.DecodeString(r.SHA256); err != nil {
		return d, err
	}
	d.Blake2, err = hex.DecodeString(r.Blake2)
	return d, err
}

// wrongError says that a source holds something else than what was asked for.
type wrongError struct {
	source string
	err    error
}

func (e *wrongError) Error() string { return e.err.Error() }
func (e *wrongError) Unwrap() error { return e.err }

// chained checks that the digest in an OCI reference leads, through the
// manifests, to what was fetched.
func chained(want string, r pull.Report) error {
	if want == "" && len(r.Manifests) == 0 {
		return nil
	}
	for _, m := range r.Manifests {
		sum := sha256.Sum256(m)
		got := "sha256:" + hex.EncodeToString(sum[:])
		if want != "" && got != want {
			return fmt.Errorf("its manifest has the digest %s, and %s was asked for", got, want)
		}
		next := leadsTo(m)
		if want = next[0]; len(next) > 1 { // which one is for this node, the process chose
			want = chosen(next, r)
		}
	}
	if want != "sha256:"+r.SHA256 {
		return fmt.Errorf("it has sha256 %s, and the manifest leads to %q", r.SHA256, want)
	}
	return nil
}

// leadsTo lists the digests that a manifest holds, or one that nothing has.
func leadsTo(manifest []byte) []string {
	var m struct{ Manifests, Layers []struct{ Digest string } }
	if json.Unmarshal(manifest, &m) != nil || len(m.Manifests)+len(m.Layers) == 0 {
		return []string{"none"}
	}
	var out []string
	for _, d := range append(m.Manifests, m.Layers...) {
		out = append(out, d.Digest)
	}
	return out
}

// chosen is the one of several digests that the report holds the content of.
func chosen(digests []string, r pull.Report) string {
	have := map[string]bool{"sha256:" + r.SHA256: true}
	for _, m := range r.Manifests {
		sum := sha256.Sum256(m)
		have["sha256:"+hex.EncodeToString(sum[:])] = true
	}
	for _, d := range digests {
		if have[d] {
			return d
		}
	}
	return "none"
}
