package disk

import (
	"cmp"
	"hash/maphash"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	// evidenceSpan is half the time that a growth is told over.
	evidenceSpan = 30 * time.Second
	// evidenceTold is how many growths a verdict names.
	evidenceTold = 5
)

// marks remembers the files and folders of the last looks, to tell which of
// them grew. It holds what the last look held and nothing else.
//
// A container chooses the paths. So they are known by their hash, whose seed
// nobody can guess, and only the first KiB of those that grew is kept.
type marks struct {
	at    time.Time // of the last look
	seed  maphash.Seed
	items map[markKey]*mark
}

type markKey struct {
	path   uint64 // its hash
	folder bool
}

// pathKept is how many bytes of a path are told.
const pathKept = 1024

// mark is one file or folder: base and middle are where it stood up to a
// minute, and up to half of it, ago.
type mark struct {
	base, middle, last level
	path               string // of one that grew
	seen               time.Time
}

type level struct {
	at    time.Time
	bytes int64
	files int
}

// look takes in what one look saw at a time.
func (m *marks) look(at time.Time, l Look) {
	if m.items == nil {
		m.seed = maphash.MakeSeed()
		m.items = make(map[markKey]*mark)
	}
	for _, it := range l.Files {
		m.item(at, it, false)
	}
	for _, it := range l.Folders {
		m.item(at, it, true)
	}
	for key, k := range m.items {
		if k.seen != at {
			delete(m.items, key)
		}
	}
	m.at = at
}

// rest lets go of all, until something happens again.
func (m *marks) rest(at time.Time) { m.at, m.items = at, nil }

func (m *marks) item(at time.Time, it Item, folder bool) {
	key := markKey{maphash.String(m.seed, it.Path), folder}
	now := level{at: at, bytes: it.Bytes, files: it.Files}
	k := m.items[key]
	switch {
	case k == nil && it.New && !m.at.IsZero():
		zero := level{at: m.at}
		k = &mark{base: zero, middle: zero}
		m.items[key] = k
	case k == nil:
		// It may have been renamed, or grown from what was too small to be
		// told: how much it grew is known from the next look on.
		k = &mark{base: now, middle: now}
		m.items[key] = k
	case k.shrunk(now) || k.idle(now):
		k.base, k.middle = now, now
	case at.Sub(k.middle.at) > evidenceSpan:
		k.base, k.middle = k.middle, now
	}
	k.last, k.seen = now, at
	switch {
	case !k.grew():
		k.path = ""
	case k.path == "":
		k.path = strings.Clone(it.Path[:min(len(it.Path), pathKept)])
	}
}

func (k *mark) grew() bool { return k.last.bytes > k.base.bytes || k.last.files > k.base.files }

func (k *mark) shrunk(now level) bool { return now.bytes < k.last.bytes }

// idle tells whether it has not grown at all since base: then base moves on,
// so that a growth's time starts with the growth.
func (k *mark) idle(now level) bool {
	return now.bytes == k.base.bytes && now.files == k.base.files
}

// growths are those that grew, fastest first, at most evidenceTold. A folder is
// told as one where no single file makes up half of its growth, else its files.
func (m *marks) growths() []Growth {
	files, folders := m.grown(false), m.grown(true)
	largest := make(map[string]int64)
	for _, g := range files {
		dir := path.Dir(g.Path)
		largest[dir] = max(largest[dir], g.Grew)
	}
	whole := make(map[string]bool)
	var out []Growth
	for _, g := range folders {
		if 2*largest[g.Path] < g.Grew || (g.Grew == 0 && g.FileRate > 0) {
			whole[g.Path] = true
			out = append(out, g)
		}
	}
	for _, g := range files {
		if !whole[path.Dir(g.Path)] {
			out = append(out, g)
		}
	}
	sortGrowths(out)
	return out[:min(len(out), evidenceTold)]
}

func sortGrowths(all []Growth) {
	slices.SortFunc(all, func(a, b Growth) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(b.FileRate, a.FileRate), cmp.Compare(a.Path, b.Path))
	})
}

func (m *marks) grown(folder bool) []Growth {
	var out []Growth
	for key, k := range m.items {
		over := k.last.at.Sub(k.base.at)
		if key.folder != folder || over <= 0 || !k.grew() {
			continue
		}
		g := Growth{
			Path: k.path, Files: k.last.files, Bytes: k.last.bytes,
			Grew: max(0, k.last.bytes-k.base.bytes), Over: over,
			FileRate: max(0, float64(k.last.files-k.base.files)/over.Seconds()),
		}
		g.Rate = float64(g.Grew) / over.Seconds()
		out = append(out, g)
	}
	return out
}
