package reload

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"maps"
	"slices"
)

// absent is the fingerprint of what is not there.
const absent = ""

// fingerprint is of an object's data: its keys and values in their order. The
// object's uid is no part of it: deleted and made again with the same data it
// is the same. 96 bits: nobody looks for two that are alike.
func fingerprint(salt string, data map[string][]byte) string {
	sum := sha256.New()
	write(sum, []byte(salt))
	for _, key := range slices.Sorted(maps.Keys(data)) {
		write(sum, []byte(key))
		write(sum, data[key])
	}
	return base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:12])
}

// write tells where one part ends, so that ab+c is not a+bc.
func write(sum hash.Hash, part []byte) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(part)))
	sum.Write(length[:])
	sum.Write(part)
}

// prints are fingerprints by reference: configmap/app → k3Jx….
type prints map[string]string

// changes are the references whose data is another than what was applied, and
// what is to be remembered as applied besides. What nobody knew before is
// remembered and no change: the pods were started with it, or with the template
// that names it. What is gone is no change either: pods would not start without
// it. What came is one where pods ran without it.
func changes(refs []reference, applied, now prints) (changed []string, remembered prints) {
	remembered = prints{}
	for _, r := range refs {
		name := r.String()
		before, known := applied[name]
		current := now[name]
		switch {
		case !known:
			remembered[name] = current
		case current == before, current == absent:
			remembered[name] = before
		case before == absent && !r.Optional:
			remembered[name] = current // its pods waited for it
		default:
			remembered[name] = before
			changed = append(changed, name)
		}
	}
	return changed, remembered
}

// digest is of all that a workload is to be restarted for, so that a Restart
// can say for which data it was made.
func digest(refs []reference, now prints) string {
	data := map[string][]byte{}
	for _, r := range refs {
		data[r.String()] = []byte(now[r.String()])
	}
	return fingerprint("digest", data)
}
