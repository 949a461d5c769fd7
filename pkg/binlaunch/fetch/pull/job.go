package pull

import (
	"io/fs"
	"time"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/unpack"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// Job is all that the process is told.
type Job struct {
	Dest   string // the folder to fill
	Items  []Item
	Limits Limits
	CA     []byte // PEM certificates to trust besides the system's own
	// ToPrivate lets redirects lead to loopback and private addresses.
	ToPrivate bool
	// Proxies are host:port of the proxies that the environment names.
	Proxies []string
	// Probe: unpack nothing, only ask whether the items changed since ETag.
	Probe bool
}

// Item is one artifact.
type Item struct {
	Sources []string       // its URL, then its mirrors
	Files   map[string]int // descriptors of the sources with the scheme file
	// NoFiles says of those that could not be opened why.
	NoFiles map[string]string
	// Sure: its digest is known beforehand, so that parts of it may come from
	// different sources: a mistake would be found.
	Sure           bool
	SHA512, Blake2 bool                // digests that are wanted besides SHA-256
	Signatures     []string            // where its signature is, by source
	Headers        map[string][]Header // by host
	ETag           string              // as seen last
	OS, Arch       string              // what is taken from an index of an OCI artifact
	Layout         unpack.Layout
}

// Header is one line of a request.
type Header struct{ Name, Value string }

// Limits bound what servers and artifacts may cost.
type Limits struct {
	Unpack    unpack.Limits
	Download  int64         // bytes of one artifact's body
	Connect   time.Duration // until a connection stands
	Header    time.Duration // until the response begins
	Stall     time.Duration // at least StallBytes must come in each
	StallRate int64         // bytes per second
	Redirects int
	Tries     int           // without any byte in between
	MinPause  time.Duration // between tries, growing and jittered
	MaxPause  time.Duration
	Parallel  int // artifacts at once
}

// Message is one line of the answer; exactly one field is set.
type Message struct {
	Confined *Confinement `json:",omitempty"`
	Progress *Progress    `json:",omitempty"`
	File     *store.File  `json:",omitempty"`
	Report   *Report      `json:",omitempty"`
	Failure  *Failure     `json:",omitempty"`
	Done     bool         `json:",omitempty"`
}

// Progress of one artifact.
type Progress struct {
	Item  int
	Bytes int64 // of the body so far
	Total int64 // -1: the server does not tell
}

// Report tells what an artifact turned out to be.
type Report struct {
	Item                   int
	Source                 string // what it came from at last
	Bytes                  int64  // of the body
	SHA256, SHA512, Blake2 string // lower-case hex
	Signature              []byte
	Manifests              [][]byte // of an OCI artifact, from the reference to the layer
	ETag                   string
	Unchanged              bool // since the ETag that was given
	Resumes                int  // how often a body broke off and was taken up again
	// FirstByte and LastByte of the body, and Unpacked, since the start.
	FirstByte, LastByte, Unpacked time.Duration
}

// Kind says who is at fault.
type Kind string

// The kinds of failures.
const (
	Content Kind = "content" // what came is not what can be used
	Refused Kind = "refused" // where a server leads to
	Absent  Kind = "absent"  // the server has it not, or not for us
	Network Kind = "network" // the server, or the way to it
	Again   Kind = "again"   // it changed meanwhile: what came so far is of no use
	Disk    Kind = "disk"    // this machine
)

// Failure is why an artifact was not fetched.
type Failure struct {
	Item    int
	Kind    Kind
	Message string
	NoSpace bool // the disk is full
	// Source is where content that cannot be used came from; Bytes, SHA256 and
	// SHA512 are those of all of it, where they could be told.
	Source, SHA256, SHA512 string
	Bytes                  int64
}

// fileMode of the spool that a zip is kept in while it is read.
const fileMode fs.FileMode = 0o600
