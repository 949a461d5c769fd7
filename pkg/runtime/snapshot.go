package runtime

import (
	"slices"
	"sync"
	"time"
)

// Snapshot is the set of this node's containers at one moment (not one of
// containerd's snapshots: those are a Container's Layer). Nobody changes it.
type Snapshot struct {
	// Containers is sorted by containerd namespace, pod, container name and
	// id. It is shared: read it, don't write to it.
	Containers []Container
	// Storage is what the snapshotters of this node keep besides, by
	// the last full list at which they told; nil before. It is shared too.
	Storage []Storage
	// Confirmed is when containerd last listed all of them; zero if it never
	// did, and then an empty Containers means nothing. Between two lists
	// events keep the set right, as long as Connected is true.
	Confirmed time.Time
	// Connected tells whether containerd answers and its events are followed
	// now. While it is false the set is the last one there was.
	Connected bool
}

// board holds the Snapshot of the moment and wakes those who wait for another.
type board struct {
	mu      sync.Mutex
	current Snapshot
	changed chan struct{}
}

func newBoard() *board { return &board{changed: make(chan struct{})} }

func (b *board) read() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current
}

func (b *board) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// post replaces the Snapshot. It wakes nobody when no more than the time of
// the last list is new.
func (b *board) post(next Snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	storage := slices.EqualFunc(b.current.Storage, next.Storage, Storage.equal)
	if storage { // the very same, by which readers see that nothing is new
		next.Storage = b.current.Storage
	}
	containers := slices.EqualFunc(b.current.Containers, next.Containers, Container.Equal)
	if containers {
		next.Containers = b.current.Containers
	}
	same := containers && storage && b.current.Connected == next.Connected &&
		b.current.Confirmed.IsZero() == next.Confirmed.IsZero()
	b.current = next
	if !same {
		close(b.changed)
		b.changed = make(chan struct{})
	}
}
