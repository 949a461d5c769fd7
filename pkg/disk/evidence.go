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
	// fewParts are how many files and folders can be told in the place of the
	// folder that they lie in, where they make up most of its growth.
	fewParts = 3
)

// marks remembers the files and folders of the last looks, to tell which of
// them grew. It holds what the last look held and nothing else.
//
// A container chooses the paths. So they are known by their hash, whose seed
// nobody can guess, and only the first KiB of those that grew is kept.
type marks struct {
	at    time.Time // of the last look
	moved time.Time // when middles became bases: all at once, so that growths of the same time are compared
	seed  maphash.Seed
	items map[markKey]*mark
}

type markKey struct {
	path uint64 // its hash
	kind kind
}

// kind is what is told of a path.
type kind uint8

const (
	aTree   kind = iota // a folder and all below it
	aFolder             // the files in a folder
	aFile
)

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
	moves := at.Sub(m.moved) > evidenceSpan
	if moves {
		m.moved = at
	}
	for _, it := range l.Files {
		m.item(at, it, aFile, moves)
	}
	for _, it := range l.Folders {
		of := aFolder
		if it.Tree {
			of = aTree
		}
		m.item(at, it, of, moves)
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

func (m *marks) item(at time.Time, it Item, of kind, moves bool) {
	key := markKey{maphash.String(m.seed, it.Path), of}
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
	case moves:
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

// growths are those that grew, fastest first, at most evidenceTold. Where few
// make up most of what a folder grew by, these are told, and else the folder as
// one: of a cache of a thousand folders the one that they all lie in.
func (m *marks) growths() []Growth {
	var out []Growth
	for _, g := range nested(m.grown()) {
		out = g.told(out)
	}
	sortGrowths(out)
	return out[:min(len(out), evidenceTold)]
}

func sortGrowths(all []Growth) {
	slices.SortFunc(all, func(a, b Growth) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(b.FileRate, a.FileRate), cmp.Compare(a.Path, b.Path))
	})
}

// gain is a file or folder that grew, with those of its parts that did.
type gain struct {
	Growth
	kind  kind
	parts []*gain
}

func (m *marks) grown() []*gain {
	var out []*gain
	for key, k := range m.items {
		over := k.last.at.Sub(k.base.at)
		if over <= 0 || !k.grew() {
			continue
		}
		g := Growth{
			Path: k.path, Files: k.last.files, Bytes: k.last.bytes,
			Grew: max(0, k.last.bytes-k.base.bytes), Over: over,
			FileRate: max(0, float64(k.last.files-k.base.files)/over.Seconds()),
		}
		g.Rate = float64(g.Grew) / over.Seconds()
		out = append(out, &gain{Growth: g, kind: key.kind})
	}
	return out
}

// nested gives each what lies in it, and returns those that lie in none: a file
// is part of its folder, and that of the next folder above that is told with all
// below it.
func nested(all []*gain) (outermost []*gain) {
	slices.SortFunc(all, func(a, b *gain) int { return cmp.Or(comparePaths(a.Path, b.Path), cmp.Compare(a.kind, b.kind)) })
	var trees []*gain // that the one at hand may lie in
	folders := make(map[string]*gain)
	for _, g := range all {
		for len(trees) > 0 && !below(g.Path, trees[len(trees)-1].Path) {
			trees = trees[:len(trees)-1]
		}
		switch of := folders[path.Dir(g.Path)]; {
		case g.kind == aFile && of != nil:
			of.parts = append(of.parts, g)
		case len(trees) > 0:
			of = trees[len(trees)-1]
			of.parts = append(of.parts, g)
		default:
			outermost = append(outermost, g)
		}
		switch g.kind {
		case aTree:
			trees = append(trees, g)
		case aFolder:
			folders[g.Path] = g
		case aFile:
		}
	}
	return outermost
}

// comparePaths orders paths so that all below a folder comes right after it.
func comparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		switch {
		case a[i] == b[i]:
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		default:
			return cmp.Compare(a[i], b[i])
		}
	}
	return cmp.Compare(len(a), len(b))
}

// told adds what is to be told of it: beside a folder that is told as one also
// what makes up a quarter by itself.
func (g *gain) told(out []Growth) []Growth {
	few := g.few()
	if !few {
		out = append(out, g.Growth)
	}
	for _, p := range g.parts {
		if few || p.share(g) >= 0.25 {
			out = p.told(out)
		}
	}
	return out
}

// few tells whether one part of it makes up half of its growth, or fewParts make
// up three quarters.
func (g *gain) few() bool {
	var shares []float64
	for _, p := range g.parts {
		shares = append(shares, p.share(g))
	}
	slices.Sort(shares)
	slices.Reverse(shares)
	sum := 0.0
	for _, s := range shares[:min(len(shares), fewParts)] {
		sum += s
	}
	return sum >= 0.75 || len(shares) > 0 && shares[0] >= 0.5
}

// share is what part of a folder's growth it makes up, in the time that both
// are known for. A folder may be known for less long than what lies in it.
func (g *gain) share(of *gain) float64 {
	over := min(g.Over, of.Over).Seconds()
	own := g.Rate * over / max(1, float64(of.Grew))
	if of.Grew == 0 {
		own = g.FileRate * over / (of.FileRate * of.Over.Seconds())
	}
	parts := 0.0
	for _, p := range g.parts {
		parts += p.share(of)
	}
	return max(own, parts)
}
