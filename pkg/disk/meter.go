package disk

import (
	"context"
	"errors"
	"time"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// ErrGone tells that a layer is no longer there: its container was removed
// between two looks. It is the normal end of a layer, not a failure.
var ErrGone = errors.New("layer is gone")

// ErrLater tells that looking now would cost more than its share. The last
// figure stays, with its age. It is no failure.
var ErrLater = errors.New("too early to look again")

// Meter measures layers and other folders. Every way of measuring (walk, events, snapshotter)
// is one, and passes the contract suite in meter_test.go; where it cannot by its
// nature, as the snapshotter's may not, its test says what comes of it instead.
//
// Measure returns ErrGone (wrapped) for a layer that is no longer there, and
// any other error when the figure could not be taken. It never returns a part
// of the truth as if it were the whole. It may be called for many layers at
// once, for one layer by one caller at a time.
type Meter interface {
	Measure(ctx context.Context, t Target) (Look, error)
	// Method names the way in metrics: walk, events, snapshotter.
	Method() string
}

// Listener is a Meter that is told what happens to a folder between two looks,
// so that a folder at rest need not be looked at.
type Listener interface {
	Meter
	// Woken hands on the folders in which something happened since the call
	// before, and tells until when all that happened is known. It must not
	// block. With an error nothing is known any more, nor will be.
	Woken(each func(upper string)) (until time.Time, err error)
	// Rest tells that a folder is left alone until something happens in it, so
	// that what is known of its files need not be kept. It must not block.
	Rest(upper string)
}

// Prober is a Meter whose looks cost much, and that can tell between two of
// them, at next to no cost, how the files go on that are likeliest to change.
type Prober interface {
	Meter
	// Probe may be called after a Measure whose Look was Hot, also while
	// the next Measure of that layer runs. A figure it tells is never less right than
	// that of the Measure before it.
	Probe(ctx context.Context, t Target) (Look, error)
}

// Target is the folder to be measured.
type Target struct {
	// Layer is a container's layer, or, with nothing but Upper set, another
	// folder of the host that is counted: an emptyDir, a folder of logs.
	Layer runtime.Layer
	// Namespace is containerd's, of a layer that has no folder of its own.
	Namespace string
	// Since is when the look before started. What changed after it is told
	// as evidence. Zero: this is the first look.
	Since time.Time
}

// Look is what one measuring of a layer saw.
type Look struct {
	Started    time.Time
	Took       time.Duration
	Usage      Usage
	Device     uint64          // of the layer's file system, as in /proc/self/mountinfo
	Filesystem FilesystemUsage // at the end of the look; zero where it is not known
	Files      []Item          // the largest, and the largest of those that changed since
	Folders    []Item          // likewise, by what each holds itself, and, as a Tree, with its sub-folders
	Method     string          // the way it was taken, where that is not the Meter's own
	Still      bool            // a Listener will tell of whatever changes it
	Hot        bool            // a Prober can tell how it goes on
	Probed     bool            // it is a Prober's: the last look's figure, and what hot files grew since
	Whole      bool            // all there is was read, as few looks do: its cost says nothing of the next

	// Checked: this look made a full check of a figure that is followed, and
	// found that it was wrong by Error: what there is, less what was told.
	Checked bool
	Error   Usage
}

// Item is a file or a folder as one look saw it.
type Item struct {
	Path  string // as the container sees it; of a path beyond 4 KiB only the start
	Bytes int64  // allocated
	Files int    // how many files a folder holds; 0 for a file
	New   bool   // a file made since the look before
	Tree  bool   // a folder with all that is below it, else with the files in it alone
}

// FilesystemUsage is what a file system holds, in bytes and inodes, all
// writers together. Avail is what is left to those without privileges, which
// is what the kubelet's thresholds look at. A file system without a table of
// inodes (btrfs) has Inodes 0.
type FilesystemUsage struct {
	Size, Used, Avail              int64
	Inodes, InodesUsed, InodesFree int64
	Memory                         bool // it is no disk: tmpfs and its like
}
