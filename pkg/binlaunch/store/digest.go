package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// scheme begins every digest of an entry.
const scheme = "sha256:"

// DigestOf is the digest that names an entry whose content is told by parts:
// for each artifact its own digest and where it goes in the tree.
func DigestOf(parts []string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s\n", len(p), p)
	}
	return scheme + hex.EncodeToString(h.Sum(nil))
}

// folderName is the digest as the name of a folder. A digest comes from other
// people's files too, so its form is checked.
func folderName(digest string) (string, error) {
	name, ok := strings.CutPrefix(digest, scheme)
	if b, err := hex.DecodeString(name); !ok || err != nil || len(b) != sha256.Size || strings.ToLower(name) != name {
		return "", fmt.Errorf("cannot name an entry %q: not %s and 64 hex digits", digest, scheme)
	}
	return name, nil
}
