package fetch

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// known is what an earlier fetch of the same request came to. It lies in the
// store's folder, so that a request whose digest is not known beforehand finds
// its entry after a restart of the agent, and its server is asked by ETag.
type known struct {
	Digest    string    // of the entry
	Artifacts []Fetched // in the order of the request
}

func (f *Fetcher) knownPath(request string) string {
	return filepath.Join(f.opts.Store.Dir(), "known", request)
}

// recall finds what is known of a request, if the store still has it.
func (f *Fetcher) recall(request string, n int) (known, Entry, bool, error) {
	b, _ := os.ReadFile(f.knownPath(request)) // not there: not known
	var k known
	_ = json.Unmarshal(b, &k) // half a note is none
	if len(k.Artifacts) != n {
		return known{}, Entry{}, false, nil
	}
	e, ok, err := f.opts.Store.Lookup(k.Digest)
	if err == nil && !ok {
		_ = os.Remove(f.knownPath(request))
	}
	return k, e, ok, err
}

// remember keeps it for the next time. A full disk only costs that.
func (f *Fetcher) remember(request string, e store.Entry, artifacts []Fetched) {
	b, err := json.Marshal(known{Digest: e.Digest, Artifacts: artifacts})
	if err == nil {
		err = f.opts.Store.WriteKnown(request, b)
	}
	if err != nil {
		f.opts.Logger.Warn("cannot remember what was fetched; it will be asked for again", "err", err)
	}
}
