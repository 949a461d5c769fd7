package fetch

import (
	"encoding/hex"
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
