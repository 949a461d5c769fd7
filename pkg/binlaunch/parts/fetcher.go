package parts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// Fetcher is the supervisor's Fetcher.
type Fetcher struct {
	Fetch *fetch.Fetcher
	Store *store.Store
}

// Get implements binlaunch.Fetcher. The lease that it takes is a file, so it
// outlives the agent as the task does.
func (f *Fetcher) Get(ctx context.Context, owner string, artifacts []v1alpha1.Artifact, pins []string, progress func(done, total int64)) (binlaunch.Program, error) {
	var p binlaunch.Program
	wanted, err := artifactsOf(artifacts, pins)
	if err != nil {
		return p, &binlaunch.RefusedError{Err: err}
	}
	entry, result, err := f.Fetch.Get(ctx, wanted, func(at fetch.Progress) { progress(at.Bytes, at.Total) })
	switch {
	case fetch.IsPermanent(err):
		return p, &binlaunch.RefusedError{Err: err}
	case fetch.IsWrong(err):
		return p, &binlaunch.WrongError{Err: err}
	case err != nil:
		return p, err
	}
	if err := f.Store.Lease(entry.Digest, owner); err != nil {
		return p, err
	}
	p = binlaunch.Program{Digest: entry.Digest, Folder: entry.Path, Phases: phasesOf(result.Phases)}
	for i, a := range result.Artifacts {
		p.Verified, p.Pins = append(p.Verified, verifiedBy(artifacts[i], a, result.StaleReason)), append(p.Pins, a.SHA256)
		if a.Changed != "" {
			p.Changed = fmt.Sprintf("%s was %s and is %s", a.URL, a.Changed, a.SHA256)
		}
	}
	return p, nil
}

func artifactsOf(all []v1alpha1.Artifact, pins []string) ([]fetch.Artifact, error) {
	var out []fetch.Artifact
	for i, a := range all {
		mode, err := modeOf(a.Mode)
		if err != nil {
			return nil, err
		}
		b := fetch.Artifact{
			URL: a.URL, Mirrors: a.Mirrors, SHA256: digests(a.SHA256), SHA512: digests(a.SHA512), Insecure: a.Insecure,
			Format: string(a.Format), Path: a.Path, Mode: mode, Strip: a.StripComponents, HeadersFile: a.HeadersFile,
		}
		if a.Signature != nil {
			b.Signature = &fetch.Signature{Key: a.Signature.Key, URL: a.Signature.URL}
		}
		if a.Insecure && i < len(pins) {
			b.Pinned = pins[i]
		}
		out = append(out, b)
	}
	return out, nil
}

func modeOf(s string) (fs.FileMode, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("cannot read mode %q: want an octal mode such as 0755", s)
	}
	return fs.FileMode(n), nil
}

func digests(byArch map[string]v1alpha1.Digest) map[string]string {
	if len(byArch) == 0 {
		return nil
	}
	out := map[string]string{}
	for arch, d := range byArch {
		out[arch] = string(d)
	}
	return out
}

// verifiedBy says how an artifact was found to be the right one, and of an
// insecure one what it is and was.
func verifiedBy(asked v1alpha1.Artifact, got fetch.Fetched, stale string) string {
	var how []string
	if len(asked.SHA256) > 0 {
		how = append(how, "sha256")
	}
	if len(asked.SHA512) > 0 {
		how = append(how, "sha512")
	}
	if got.Signer != "" {
		how = append(how, "signed by "+got.Signer)
	}
	switch {
	case len(how) == 0 && !got.Insecure:
		return "digest in the URL"
	case len(how) > 0:
		return strings.Join(how, ", ")
	}
	text := "insecure: sha256 " + got.SHA256
	if got.Changed != "" {
		text += ", was " + got.Changed
	}
	if stale != "" {
		text += ", as last known: " + stale
	}
	return text
}

func phasesOf(p fetch.Phases) map[string]time.Duration {
	all := map[string]time.Duration{}
	for name, d := range map[string]time.Duration{
		"fetch-first-byte": p.FirstByte, "fetch-last-byte": p.LastByte, "fetch-verified": p.Verified, "fetch-stored": p.Stored,
	} {
		if d > 0 {
			all[name] = d
		}
	}
	return all
}

// Release implements binlaunch.Fetcher. A lease too many costs room, no more:
// the next Sweep finds it.
func (f *Fetcher) Release(p binlaunch.Program, owner string) { _ = f.Store.Release(p.Digest, owner) }

// Sweep gives back the leases of owners that are no more.
func (f *Fetcher) Sweep(owned func(owner string) bool) error {
	var errs []error
	for _, l := range f.Store.Leases() {
		if !owned(l.Owner) {
			errs = append(errs, f.Store.Release(l.Digest, l.Owner))
		}
	}
	return errors.Join(errs...)
}
