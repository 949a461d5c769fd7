//go:build linux

package disk

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// notes are the files of a layer that may be told as evidence: the largest,
// and the largest of those that changed.
type notes struct {
	items map[noteKey]note
	of    map[*folder]int // how many in each folder
	floor int64           // of what had no room when last cut
}

type noteKey struct {
	folder *folder
	name   string
}

type note struct {
	bytes   int64
	changed time.Time
	made    int64 // ns since 1970; 0: not known
}

func (n *notes) set(f *folder, name string, x note) {
	if x.bytes == 0 {
		n.unset(f, name)
		return
	}
	k := noteKey{f, name}
	if n.items == nil {
		n.items, n.of = make(map[noteKey]note), make(map[*folder]int)
	}
	if _, had := n.items[k]; !had {
		n.of[f]++
	}
	n.items[k] = x
	if len(n.items) >= 8*evidenceKept {
		n.cut()
	}
}

func (n *notes) unset(f *folder, name string) {
	if _, had := n.items[noteKey{f, name}]; had {
		delete(n.items, noteKey{f, name})
		if n.of[f]--; n.of[f] == 0 {
			delete(n.of, f)
		}
	}
}

// forget forgets what is noted of a folder.
func (n *notes) forget(f *folder) {
	if n.of[f] == 0 {
		return
	}
	for k := range n.items {
		if k.folder == f {
			delete(n.items, k)
		}
	}
	delete(n.of, f)
}

// cut keeps the largest and the last changed.
func (n *notes) cut() {
	keys := slices.SortedFunc(maps.Keys(n.items), func(a, b noteKey) int { return cmp.Compare(n.items[b].bytes, n.items[a].bytes) })
	n.floor = n.items[keys[evidenceKept-1]].bytes
	rest := keys[evidenceKept:]
	slices.SortFunc(rest, func(a, b noteKey) int { return n.items[b].changed.Compare(n.items[a].changed) })
	for _, k := range rest[2*evidenceKept:] {
		n.unset(k.folder, k.name)
	}
}

// noteStat notes the file whose stat was just taken.
func (t *tree) noteStat(f *folder, fd int, cname []byte, changed bool) {
	bytes := t.stat.Blocks * 512
	if t.stat.Mode&unix.S_IFMT != unix.S_IFREG || (!changed && bytes <= t.noted.floor) {
		return
	}
	name := string(cname[:len(cname)-1])
	x := note{bytes: bytes, changed: time.Unix(t.stat.Ctim.Unix())}
	if old, had := t.noted.items[noteKey{f, name}]; had {
		x.made = old.made
	} else if changed {
		x.made = madeAt(fd, cname)
	}
	t.noted.set(f, name, x)
}

// files are the largest files, and the largest of those changed since.
func (t *tree) files(since time.Time) []Item {
	all, changed := top{max: evidenceKept}, top{max: evidenceKept}
	for k, x := range t.noted.items {
		touched := !since.IsZero() && !x.changed.Before(since.Add(-clockGrain))
		large := all.wants(x.bytes)
		touched = touched && changed.wants(x.bytes)
		if !large && !touched {
			continue
		}
		it := Item{Path: join(k.folder, k.name), Bytes: x.bytes, New: touched && x.made >= since.Add(-clockGrain).UnixNano()}
		if large {
			all.add(it)
		}
		if touched {
			changed.add(it)
		}
	}
	return union(&all, &changed)
}

// folders are the largest folders, and the largest of those changed since: for
// the files that each holds itself, and for all below it, as a walk tells them.
func (t *tree) folders(since time.Time) []Item {
	n := folderNotes{since: since, all: top{max: evidenceKept}, changed: top{max: evidenceKept}}
	for stack := []branching{{f: t.root}}; len(stack) > 0; {
		at := len(stack) - 1
		b := stack[at]
		if !b.entered {
			b.entered = true
			for _, c := range b.f.children {
				if len(c.children) > 0 { // a leaf needs no place on the stack
					stack = append(stack, branching{f: c, up: at})
				} else {
					b.take(n.note(c), tally{})
				}
			}
			stack[at] = b
			continue
		}
		own := n.note(b.f)
		if b.branches > 1 || b.branches == 1 && own.count > 0 {
			n.keep(b.f, tally{own.bytes + b.below.bytes, own.count + b.below.count, own.touched || b.below.touched}, true)
		}
		stack = stack[:at]
		if at > 0 {
			stack[b.up].take(own, b.below)
		}
	}
	return union(&n.all, &n.changed)
}

// branching is a folder with sub-folders that is gone through.
type branching struct {
	f        *folder
	up       int // where the folder above it is on the stack
	below    tally
	branches int // sub-folders with files
	entered  bool
}

// tally is what a folder holds of files.
type tally struct {
	bytes   int64
	count   int
	touched bool
}

// take takes in what a sub-folder holds itself and below.
func (b *branching) take(own, below tally) {
	if own.count+below.count == 0 {
		return
	}
	b.branches++
	b.below.bytes += own.bytes + below.bytes
	b.below.count += own.count + below.count
	b.below.touched = b.below.touched || own.touched || below.touched
}

// folderNotes gathers the folders that are told.
type folderNotes struct {
	since        time.Time
	all, changed top
}

// note keeps a folder for the files that it holds itself.
func (n *folderNotes) note(f *folder) tally {
	own := tally{f.bytes, f.count, !n.since.IsZero() && !f.changed.Before(n.since)}
	if f.count > 1 {
		n.keep(f, own, false)
	}
	return own
}

func (n *folderNotes) keep(f *folder, h tally, tree bool) {
	large := n.all.wants(h.bytes)
	touched := h.touched && n.changed.wants(h.bytes)
	if !large && !touched {
		return
	}
	it := Item{Path: f.path(), Bytes: h.bytes, Files: h.count, Tree: tree}
	if large {
		n.all.add(it)
	}
	if touched {
		n.changed.add(it)
	}
}

func join(f *folder, name string) string {
	path := f.path()
	if path == "/" {
		path = ""
	}
	return string(appendPath([]byte(path), []byte(name)))
}
