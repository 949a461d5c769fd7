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

// folders are the largest folders, and the largest of those changed since.
func (t *tree) folders(since time.Time) []Item {
	all, changed := top{max: evidenceKept}, top{max: evidenceKept}
	for stack := []*folder{t.root}; len(stack) > 0; {
		f := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, c := range f.children {
			stack = append(stack, c)
		}
		large := f.count > 1 && all.wants(f.bytes)
		touched := f.count > 1 && !since.IsZero() && !f.changed.Before(since) && changed.wants(f.bytes)
		if !large && !touched {
			continue
		}
		it := Item{Path: f.path(), Bytes: f.bytes, Files: f.count}
		if large {
			all.add(it)
		}
		if touched {
			changed.add(it)
		}
	}
	return union(&all, &changed)
}

func join(f *folder, name string) string {
	path := f.path()
	if path == "/" {
		path = ""
	}
	return string(appendPath([]byte(path), []byte(name)))
}
