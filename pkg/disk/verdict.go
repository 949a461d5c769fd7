package disk

import (
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// Usage is what a folder tree or a file system holds.
type Usage struct {
	Bytes  int64 // allocated, as `du --block-size=1` counts: blocks, not lengths
	Inodes int64
}

// Rate is growth in bytes (or inodes) per second. Low and High bound what the
// samples allow; a rate below zero is told as zero.
type Rate struct {
	Low, Expected, High float64
}

// Until is the time left until a bound is reached. Soonest goes with
// Rate.High, Latest with Rate.Low. Never means that it does not grow.
type Until struct {
	Soonest, Expected, Latest time.Duration
}

// Never is the time until full of what does not grow.
const Never = time.Duration(1<<63 - 1)

// Bound says which bound is reached first.
type Bound string

// The bounds a container can run into.
const (
	BoundFilesystem Bound = "filesystem" // the reserve of a file system that it has a part on
	BoundContainer  Bound = "container"  // its own ephemeral-storage limit
	BoundPod        Bound = "pod"        // the sum of its pod's ephemeral-storage limits
)

// Resource says of what a bound has a bounded amount.
type Resource string

// The resources that run out. Only file systems bound inodes.
const (
	Bytes  Resource = "bytes"
	Inodes Resource = "inodes"
)

// Growth is a file or a folder of a container that grew, as evidence.
type Growth struct {
	Part     Part          // what it is counted as
	Path     string        // as the container sees it: /app/logs/debug.log; as the host does in logs
	Files    int           // 0 for a file; of a folder told as a whole how many files: its own, or all below it
	Bytes    int64         // allocated now
	Grew     int64         // bytes it grew by in Over
	Over     time.Duration // about the last minute, or since it was first seen to change
	Rate     float64       // Grew by second
	FileRate float64       // of a folder: files per second
}

// Verdict is what is to be said of one container at one moment.
type Verdict struct {
	Container  runtime.Container
	Node       string // whose disk it is; empty when the Watcher was not told
	At         time.Time
	Offender   bool
	Since      time.Time // when it became an offender; zero while it is none
	Bound      Bound     // the one that is reached first
	Resource   Resource  // what runs out there
	Room       int64     // bytes (inodes) left until that bound; below zero: beyond it
	Filesystem string    // mount point, as the host sees it, of the file system that is told of; that of the layer when a limit is
	Usage      Usage     // all parts together
	Parts      map[Part]Usage
	Rate       Rate // of all parts, bytes
	InodeRate  Rate // of all parts, inodes
	Until      Until
	Evidence   []Growth // of what counts against the bound, fastest first
	Message    string   // the offence in one sentence for a person, empty while it is none
}
