package restart

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxName is the longest name the API server takes for a Restart: a DNS
// subdomain, RFC 1123.
const maxName = 253

// Name is the name of the one Restart a workload can have: deployment-checkout.
// It is the lock, so it depends on kind and name alone. Where that is too long
// for a name, its end is replaced by a hash of the whole.
func Name(kind, name string) string {
	return fitName(strings.ToLower(kind) + "-" + name)
}

func fitName(name string) string {
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	suffix := "-" + hex.EncodeToString(sum[:5])
	return strings.TrimRight(name[:maxName-len(suffix)], "-.") + suffix
}
