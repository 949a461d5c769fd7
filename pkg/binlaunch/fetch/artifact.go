package fetch

import (
	"io/fs"
	"time"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// Artifact is something to fetch, as the spec has it. In URL, Mirrors, the
// signature's URL and Path, {{os}} and {{arch}} stand for this node's (linux,
// and Go's names: amd64, arm64).
type Artifact struct {
	// URL has the scheme http, https, file or oci. An oci URL is
	// oci://HOST/REPOSITORY:TAG or @sha256:DIGEST, which vouches for it; with
	// several layers #TITLE names one. oci+http asks without TLS.
	URL string
	// Mirrors have the same content under other URLs. They are tried in
	// order, and again in turns.
	Mirrors []string
	// SHA256 and SHA512 are in hex, by architecture; "*" is any. For oci it is
	// the layer's.
	SHA256, SHA512 map[string]string
	// Signature: who must have signed it.
	Signature *Signature
	// Insecure: run it though nobody vouches for it. Excludes the above.
	Insecure bool
	// Pinned is the SHA-256 that an insecure artifact had before, in hex. If
	// it has another one now, the Result says so.
	Pinned string
	// Format: raw, gz, xz, zst, bz2 (single files), tar, tar.gz, tar.xz,
	// tar.zst, tar.bz2, zip. Default: by the ending of the URL's path.
	Format string
	// Path is where it goes below the entry's folder: a single file's own path
	// (default: its name in the URL, without a packed file's ending), an
	// archive's folder (default: the entry's folder).
	Path string
	// Mode is given to every file, as permission bits. Default: 0755 for a
	// single file, else the archive's own. All may read, only root may write;
	// setuid, setgid and sticky are dropped.
	Mode fs.FileMode
	// Strip takes leading folders off the names in an archive, as tar's
	// --strip-components does. Names with no more parts are left out.
	Strip int
	// HeadersFile names a file in the agent's folder of headers: a line
	// "Host: NAME", then the headers that are sent to it and no other.
	HeadersFile string
}

// Signature tells how an artifact is signed.
type Signature struct {
	// Key is the name of a configured key.
	Key string
	// URL of the signature. Default: the artifact's with ".minisig" or ".sig".
	// A sigstore bundle is recognised by its content.
	URL string
}

// Progress of one artifact.
type Progress struct {
	Artifact int // its place in the list
	URL      string
	Bytes    int64
	Total    int64 // -1: not known
}

// Result tells what was fetched, and how.
type Result struct {
	Artifacts []Fetched
	// Cached: nothing was unpacked, the store had it.
	Cached bool
	// Stale: cached, and the server could not be asked whether it changed.
	Stale bool
	// StaleReason says why it could not.
	StaleReason string
	// Confined lists what held the process that fetched.
	Confined []string
	Phases   Phases
}

// Fetched is what one artifact turned out to be.
type Fetched struct {
	URL    string // as asked for
	Source string // the URL or mirror that it came from
	SHA256 string
	SHA512 string // if it was asked for
	Signer string // the key that signed it, with minisign's trusted comment
	// Insecure: nobody vouches for it. Its SHA256 is to be pinned.
	Insecure bool
	// Changed is the pinned SHA256 if it has another one now.
	Changed string
	Bytes   int64 // fetched
	Resumes int   // how often the connection broke
	ETag    string
}

// Phases are times since Get was called; 0: there was no such phase. They
// overlap: it is one pass.
type Phases struct {
	Started   time.Duration // the process was ready for the job
	FirstByte time.Duration // of the first body
	LastByte  time.Duration // of the last body
	Unpacked  time.Duration
	Verified  time.Duration // digests and signatures are right
	Stored    time.Duration // synced, and found in the store from now on
}

// Entry is where it is in the store.
type Entry = store.Entry
