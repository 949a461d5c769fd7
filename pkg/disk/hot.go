//go:build linux

package disk

import (
	"container/heap"
	"math/bits"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Between two walks of a layer the files that are likeliest to change are
// looked at by a probe: the hot ones. A walk finds them in passing, with the folders they lie
// in; docs/decisions/0019-hot-files.md says why so.

const (
	// hotFiles bounds the hot files of a layer.
	hotFiles = 128
	// hotSpan: of the files that did not change for so long, hotQuiet are hot.
	// A probe of a layer at rest is to cost some 50 system calls.
	hotSpan  = 10 * time.Second
	hotQuiet = 8
	// hotListed bounds the files of a folder that are all known, and
	// hotListedAll those of all such folders of a layer: 16 bytes each.
	hotListed    = 512
	hotListedAll = 4096
)

// hotFile is a file that each probe asks for its size.
type hotFile struct {
	folder *hotFolder
	name   []byte // with its NUL
	ino    uint64
	bytes  int64
	linked bool  // it has several names
	age    uint8 // how long it had not changed when it was found: bits of seconds
}

// colder tells whether x is less likely than y to change: by how long it did
// not, in powers of two, then by size.
func (x *hotFile) colder(y *hotFile) bool {
	if x.age != y.age {
		return x.age > y.age
	}
	return x.bytes < y.bytes
}

// hotFolder is a folder of hot files, or the layer's own.
type hotFolder struct {
	path  string // below the upper folder; empty: that folder
	ino   uint64
	files []*hotFile
	// listed: known are all files in it with one link, by inode. What comes
	// into it and goes from it is seen then; in others only the hot files are.
	listed  bool
	known   []hotKnown
	changed int64 // the folder's ctime before its names were read, ns
	read    int64 // when that was
	bytes   int64 // as Item.Bytes and Files
	count   int
}

type hotKnown struct {
	ino   uint64
	bytes int64
}

func byInode(a, b hotKnown) int {
	switch {
	case a.ino < b.ino:
		return -1
	case a.ino > b.ino:
		return 1
	}
	return 0
}

// list takes in all files of the folder. There may be too many.
func (f *hotFolder) list(all []hotKnown) {
	if f.listed = len(all) <= hotListed; f.listed {
		f.known = slices.Clone(all)
		slices.SortFunc(f.known, byInode)
	}
}

func (f *hotFolder) unlist() { f.listed, f.known = false, nil }

// hottest gathers hot files during a walk: a heap with the coldest on top.
type hottest []*hotFile

func (h hottest) Len() int           { return len(h) }
func (h hottest) Less(a, b int) bool { return h[a].colder(h[b]) }
func (h hottest) Swap(a, b int)      { h[a], h[b] = h[b], h[a] }

// Push implements heap.Interface.
func (h *hottest) Push(x any) { *h = append(*h, x.(*hotFile)) }

// Pop implements heap.Interface.
func (h *hottest) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return x
}

// wants tells whether a file would be kept.
func (h hottest) wants(x *hotFile) bool { return len(h) < hotFiles || h[0].colder(x) }

func (h *hottest) add(x *hotFile) {
	if len(*h) == hotFiles {
		(*h)[0] = x
		heap.Fix(h, 0)
		return
	}
	heap.Push(h, x)
}

// ageOf is the number of bits of the seconds since a file changed.
func ageOf(now, ctime int64) uint8 {
	return uint8(bits.Len64(uint64(max(0, now-ctime) / int64(time.Second))))
}

// heat looks whether the file whose stat was just taken is a hot one.
func (w *walk) heat(f *frame, name []byte, bytes int64) {
	if w.stat.Nlink != 1 || f.cut {
		return
	}
	if len(w.listed) <= hotListed {
		w.listed = append(w.listed, hotKnown{w.stat.Ino, bytes})
	}
	if w.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	x := hotFile{ino: w.stat.Ino, bytes: bytes, age: ageOf(w.now, w.stat.Ctim.Nano())}
	if !w.hot.wants(&x) {
		return
	}
	if f.hot == nil {
		f.hot = &hotFolder{path: string(w.path), ino: f.ino, changed: f.changed, read: w.now}
	}
	x.folder, x.name = f.hot, slices.Clone(name)
	w.hot.add(&x)
}

// list gives a hot folder its list once it was read, in one piece or not at all.
func (w *walk) list(f *frame) {
	switch {
	case f.hot == nil:
	case f.reads > 1:
		f.hot.unlist()
	default:
		f.hot.list(w.listed)
	}
}

// hotLayer is what the walk found of a layer, to be kept for probes.
func (w *walk) hotLayer(began time.Time, look Look) *hotLayer {
	l := &hotLayer{
		dev: w.dev, began: began.Add(-clockGrain).UnixNano(), usage: look.Usage, look: look,
		off: make(map[uint64]bool), foreign: make(map[uint64]arrival),
	}
	l.folders = append(l.folders, w.root)
	slices.SortFunc(w.hot, func(a, b *hotFile) int { // the hottest first
		switch {
		case b.colder(a):
			return -1
		case a.colder(b):
			return 1
		}
		return 0
	})
	quiet, listed := 0, len(w.root.known)
	for _, x := range w.hot {
		if x.age > ageOf(int64(hotSpan), 0) {
			if quiet++; quiet > hotQuiet {
				break
			}
		}
		f := x.folder
		if len(f.files) == 0 && f != w.root {
			if listed += len(f.known); listed > hotListedAll {
				listed -= len(f.known)
				f.unlist()
			}
			l.folders = append(l.folders, f)
		}
		f.files = append(f.files, x)
		l.files++
	}
	clear(w.hot)
	w.hot, w.root = w.hot[:0], nil
	return l
}
