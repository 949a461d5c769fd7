package fetch

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// known is what an earlier fetch of the same content came to. It lies in the
// store's folder, so that a request whose digest is not known beforehand finds
// its entry after a restart of the agent, and its server is asked by ETag.
type known struct {
	Digest    string    // of the entry
	Artifacts []Fetched // in the order of the request
}

func (f *Fetcher) knownPath(content string) string {
	return filepath.Join(f.opts.Store.Dir(), "known", content)
}

// recall finds what is known of a content by its key, if the store still has it.
func (f *Fetcher) recall(content string, n int) (known, Entry, bool, error) {
	b, _ := os.ReadFile(f.knownPath(content)) // not there: not known
	var k known
	_ = json.Unmarshal(b, &k) // half a note is none
	if len(k.Artifacts) != n {
		return known{}, Entry{}, false, nil
	}
	e, ok, err := f.opts.Store.Lookup(k.Digest)
	if err == nil && !ok {
		_ = os.Remove(f.knownPath(content))
	}
	return k, e, ok, err
}

// remember keeps it for the next time. A full disk only costs that.
func (f *Fetcher) remember(content string, e store.Entry, artifacts []Fetched) {
	b, err := json.Marshal(known{Digest: e.Digest, Artifacts: artifacts})
	if err == nil {
		err = f.opts.Store.WriteKnown(content, b)
	}
	if err != nil {
		f.opts.Logger.Warn("cannot remember what was fetched; it will be asked for again", "err", err)
	}
}
