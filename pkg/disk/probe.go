//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// errTooLarge tells that a folder has more entries than are kept.
var errTooLarge = errors.New("folder is too large")

// hotLayer is what is known of a layer between two walks: what the last one
// counted, corrected by what probes saw.
type hotLayer struct {
	mu      sync.Mutex // a probe may run while the layer is walked
	dev     uint64
	began   int64 // the walk, ns; what was made before that was counted by it
	usage   Usage
	folders []*hotFolder
	files   int

	// By inode: off are files that were taken off, which may turn up in another
	// folder; foreign are those that came into one and were counted elsewhere.
	off     map[uint64]bool
	foreign map[uint64]arrival

	look  Look            // its files and folders are what is told as evidence
	items map[string]Item // of files, by path, once one of them changed
	dirs  map[string]Item
	trees []Item
	fresh bool // evidence is to be made anew
	stat  unix.Stat_t
}

// arrival is a file that came into a folder, and what it held then.
type arrival struct {
	folder *hotFolder
	bytes  int64
}

// Probe implements Prober: the last walk's figure, and by how much the hot
// files of that walk grew or shrank since; in folders that are listed, also what
// came and went. What is new elsewhere is not seen. It costs some 2 µs for each of
// these files and folders.
func (wr *Walker) Probe(ctx context.Context, t Target) (Look, error) {
	wr.mu.Lock()
	l := wr.layers[t.Layer.Upper]
	wr.mu.Unlock()
	if l == nil {
		return Look{}, fmt.Errorf("cannot probe %s: it was not walked: %w", t.Layer.Upper, ErrLater)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	look, err := l.probed(ctx, wr.hostRoot, t.Layer.Upper)
	if err != nil {
		wr.forget(t.Layer.Upper, l) // half done: not to be trusted
		return Look{}, fmt.Errorf("cannot probe %s: %w", t.Layer.Upper, err)
	}
	return look, nil
}

// Forget tells that a layer is gone.
func (wr *Walker) Forget(upper string) { wr.forget(upper, nil) }

// forget lets go of what is known of a layer; of l alone, if it is given.
func (wr *Walker) forget(upper string, l *hotLayer) {
	wr.mu.Lock()
	defer wr.mu.Unlock()
	if l == nil || wr.layers[upper] == l {
		delete(wr.layers, upper)
	}
}

func (wr *Walker) remember(upper string, l *hotLayer) {
	wr.mu.Lock()
	defer wr.mu.Unlock()
	wr.layers[upper] = l
}

func (l *hotLayer) probed(ctx context.Context, hostRoot, upper string) (Look, error) {
	look := Look{Started: time.Now(), Device: l.dev, Method: l.look.Method, Hot: true, Probed: true}
	root, err := openLayer(hostRoot, upper)
	if err != nil {
		return Look{}, err
	}
	defer func() { _ = unix.Close(root) }()
	if err := l.probe(ctx, root); err != nil {
		return Look{}, err
	}
	if look.Filesystem, err = fstatfs(root); err != nil {
		return Look{}, err
	}
	look.Usage = l.usage
	look.Files, look.Folders = l.evidence()
	look.Took = time.Since(look.Started)
	return look, nil
}

// probe looks at all hot folders and files.
func (l *hotLayer) probe(ctx context.Context, root int) error {
	if err := unix.Fstat(root, &l.stat); err != nil {
		return err
	}
	if l.stat.Dev != l.dev || l.stat.Ino != l.folders[0].ino {
		return fmt.Errorf("another folder has its path: %w", ErrLater)
	}
	left := l.folders[:0]
	for _, f := range l.folders {
		if err := ctx.Err(); err != nil {
			return err
		}
		there, err := l.folder(root, f)
		if err != nil {
			return fmt.Errorf("folder %s: %w", quote(f.shown()), err)
		}
		if there {
			left = append(left, f)
		} else {
			l.drop(f)
		}
	}
	clear(l.folders[len(left):])
	l.folders = left
	return nil
}

// folder looks at one folder. It tells whether that is still there.
func (l *hotLayer) folder(root int, f *hotFolder) (bool, error) {
	fd, err := openBelow(root, f.path)
	if vanished(err) || errors.Is(err, unix.EXDEV) { // a mount covers it
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Fstat(fd, &l.stat); err != nil {
		return false, err
	}
	if l.stat.Ino != f.ino || l.stat.Dev != l.dev {
		return false, nil
	}
	changed := l.stat.Ctim.Nano()
	// A name may come in the same tick of the kernel's clock in which they
	// were read.
	if f.listed && (changed != f.changed || f.read-changed < int64(clockGrain)) {
		return true, l.list(fd, f, changed)
	}
	for _, x := range slices.Clone(f.files) {
		err := statAt(fd, x.name, &l.stat)
		switch {
		case err != nil && !vanished(err):
			return false, err
		case err == nil && l.stat.Ino == x.ino && l.stat.Dev == l.dev:
			if l.grow(f, x.bytes, l.stat.Blocks*512) {
				l.told(f, Item{Path: x.path(), Bytes: l.stat.Blocks * 512})
				x.age = 0
			}
			x.bytes, x.linked = l.stat.Blocks*512, l.stat.Nlink > 1
		case f.listed:
			return true, l.list(fd, f, changed)
		default:
			l.replaced(fd, f, x, err == nil)
		}
	}
	return true, nil
}

// replaced takes a hot file off in a folder whose other files are not known; it
// tells of the one that has its name now.
func (l *hotLayer) replaced(dir int, f *hotFolder, x *hotFile, there bool) {
	l.cool(x)
	if !x.linked { // else it has another name
		l.gone(f, hotKnown{x.ino, x.bytes}, x.path())
	}
	if there && l.stat.Nlink == 1 && l.stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		l.came(dir, f, x.name)
	}
}

// list reads a folder's names and asks for each file.
func (l *hotLayer) list(dir int, f *hotFolder, changed int64) error {
	now := time.Now().UnixNano()
	all, err := l.readFolder(dir)
	if errors.Is(err, errTooLarge) {
		f.unlist()
		return nil
	}
	if err != nil {
		return err
	}
	f.changed, f.read = changed, now
	hot := make(map[uint64]*hotFile, len(f.files))
	for _, x := range f.files {
		hot[x.ino] = x
		if i, ok := f.at(x.ino); ok {
			f.known[i].bytes = x.bytes
		}
	}
	before := f.known
	seen := make([]bool, len(before))
	l.files -= len(f.files)
	f.known, f.files = make([]hotKnown, 0, len(all)), nil
	var others []hotEntry // that came, or that changed without being hot
	for _, e := range all {
		bytes := e.stat.Blocks * 512
		i, ok := slices.BinarySearchFunc(before, hotKnown{ino: e.stat.Ino}, byInode)
		switch x := hot[e.stat.Ino]; {
		case ok && seen[i]: // another link of it
		case ok && x != nil:
			seen[i] = true
			l.renamed(x, e.name)
			if l.grow(f, before[i].bytes, bytes) {
				l.told(f, Item{Path: x.path(), Bytes: bytes})
			}
			x.bytes, x.linked = bytes, e.stat.Nlink > 1
			f.known, f.files = append(f.known, hotKnown{x.ino, bytes}), append(f.files, x)
			l.files++
		case ok:
			seen[i] = true
			f.known = append(f.known, hotKnown{e.stat.Ino, bytes})
			if l.grow(f, before[i].bytes, bytes) {
				others = append(others, e)
			}
		case e.stat.Nlink == 1:
			others = append(others, e)
		}
	}
	for _, e := range others {
		l.stat = e.stat
		if _, ok := slices.BinarySearchFunc(before, hotKnown{ino: e.stat.Ino}, byInode); !ok {
			l.came(dir, f, e.name)
		} else if l.hot(f, e.name) {
			l.told(f, Item{Path: f.entry(e.name), Bytes: e.stat.Blocks * 512})
		}
	}
	slices.SortFunc(f.known, byInode)
	for i, k := range before {
		x := hot[k.ino]
		switch {
		case seen[i] || x != nil && x.linked: // it has another name
		case x != nil:
			l.gone(f, k, x.path())
		default:
			l.gone(f, k, "")
		}
	}
	return nil
}

func (f *hotFolder) at(ino uint64) (int, bool) {
	return slices.BinarySearchFunc(f.known, hotKnown{ino: ino}, byInode)
}

type hotEntry struct {
	name []byte
	stat unix.Stat_t
}

// readFolder takes the stat of all that is no folder in the folder open at
// path.
func (l *hotLayer) readFolder(path int) ([]hotEntry, error) {
	dir, err := openFolder(path, []byte(".\x00"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(dir) }()
	var all []hotEntry
	buf := make([]byte, 16<<10)
	for names := 0; names <= 2*hotListed; {
		n, err := getdents(dir, buf)
		if vanished(err) || err == nil && n == 0 {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		for rest := buf[:n]; len(rest) > 0; names++ {
			var d dirent
			if d, rest, err = nextDirent(rest); err != nil {
				return nil, err
			}
			if all, err = l.entry(dir, d, all); err != nil {
				return nil, err
			}
		}
	}
	return nil, errTooLarge
}

// entry adds what the layer counts as a file of a folder to all.
func (l *hotLayer) entry(dir int, d dirent, all []hotEntry) ([]hotEntry, error) {
	if d.dots() || d.kind == unix.DT_DIR {
		return all, nil
	}
	var st unix.Stat_t
	err := statAt(dir, d.name, &st)
	switch {
	case vanished(err):
		return all, nil
	case err != nil:
		return nil, err
	case st.Dev != l.dev || st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return all, nil
	}
	return append(all, hotEntry{slices.Clone(d.name), st}), nil
}

// hot has the file whose stat was just taken looked at from now on, in the place
// of the coldest where there are many. It tells whether it is.
func (l *hotLayer) hot(f *hotFolder, name []byte) bool {
	if l.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	x := &hotFile{folder: f, ino: l.stat.Ino, bytes: l.stat.Blocks * 512, linked: l.stat.Nlink > 1}
	if l.files >= hotFiles {
		coldest := l.coldest()
		if coldest == nil || !coldest.colder(x) {
			return false
		}
		l.cool(coldest)
	}
	x.name = slices.Clone(name)
	l.files++
	f.files = append(f.files, x)
	return true
}

func (l *hotLayer) coldest() *hotFile {
	var coldest *hotFile
	for _, f := range l.folders {
		for _, x := range f.files {
			if coldest == nil || x.colder(coldest) {
				coldest = x
			}
		}
	}
	return coldest
}

// cool has a file looked at no more.
func (l *hotLayer) cool(x *hotFile) {
	f := x.folder
	if i, ok := f.at(x.ino); ok {
		f.known[i].bytes = x.bytes
	}
	f.files = slices.DeleteFunc(f.files, func(y *hotFile) bool { return x == y })
	l.files--
}

// came takes in a file that was not in the folder. It is a new one if it was
// made since the walk began; else it was counted where it came from. Where
// the file system does not tell, the next walk does.
func (l *hotLayer) came(dir int, f *hotFolder, name []byte) {
	if l.stat.Dev != l.dev {
		return
	}
	k := hotKnown{l.stat.Ino, l.stat.Blocks * 512}
	isNew := madeAt(dir, name) >= l.began
	l.holds(f, k.bytes, 1)
	if isNew || l.off[k.ino] {
		l.usage.Bytes += k.bytes
		l.usage.Inodes++
		delete(l.off, k.ino)
	} else {
		l.foreign[k.ino] = arrival{f, k.bytes}
	}
	if f.listed {
		f.known = append(f.known, k)
	}
	if l.hot(f, name) {
		l.told(f, Item{Path: f.entry(name), Bytes: k.bytes, New: isNew})
	} else {
		l.told(f, Item{})
	}
}

// gone takes off a file that is no longer in its folder, unless it was met in
// another. path is a hot one's.
func (l *hotLayer) gone(f *hotFolder, k hotKnown, path string) {
	l.holds(f, -k.bytes, -1)
	l.told(f, Item{})
	if path != "" {
		delete(l.items, path)
	}
	came, met := l.foreign[k.ino]
	delete(l.foreign, k.ino)
	if met && came.folder != f {
		l.usage.Bytes += came.bytes - k.bytes
		return
	}
	l.usage.Bytes -= k.bytes
	l.usage.Inodes--
	l.off[k.ino] = true
}

// drop takes off the files of a folder that is gone.
func (l *hotLayer) drop(f *hotFolder) {
	links := make(map[uint64]bool)
	for _, x := range f.files {
		links[x.ino] = x.linked
		if i, ok := f.at(x.ino); ok {
			f.known[i].bytes = x.bytes
		} else if !x.linked {
			l.gone(f, hotKnown{x.ino, x.bytes}, x.path())
		}
	}
	for _, k := range f.known {
		if !links[k.ino] {
			l.gone(f, k, "")
		}
	}
	l.files -= len(f.files)
	f.files, f.known = nil, nil
	l.told(f, Item{})
	for path := range l.items {
		if strings.HasPrefix(path, f.path+"/") {
			delete(l.items, path)
		}
	}
	delete(l.dirs, f.shown())
	l.trees = slices.DeleteFunc(l.trees, func(it Item) bool { return it.Path == f.shown() })
}

// grow takes in what a file holds now, and tells whether that is something else.
func (l *hotLayer) grow(f *hotFolder, before, bytes int64) bool {
	if before == bytes {
		return false
	}
	l.holds(f, bytes-before, 0)
	l.usage.Bytes += bytes - before
	return true
}

// holds takes in by how much more, or less, a folder holds, and so do those above
// it that are told with all below them.
func (l *hotLayer) holds(f *hotFolder, bytes int64, files int) {
	f.bytes, f.count = f.bytes+bytes, f.count+files
	l.open()
	for i := range l.trees {
		if it := &l.trees[i]; below(f.shown(), it.Path) {
			it.Bytes, it.Files = it.Bytes+bytes, it.Files+files
		}
	}
}

func (l *hotLayer) renamed(x *hotFile, name []byte) {
	if string(x.name) == string(name) {
		return
	}
	l.told(x.folder, Item{})
	old := x.path()
	x.name = slices.Clone(name)
	if it, ok := l.items[old]; ok {
		delete(l.items, old)
		it.Path = x.path()
		l.items[it.Path] = it
	}
}

func (f *hotFolder) shown() string {
	if f.path == "" {
		return "/"
	}
	return f.path
}

func (f *hotFolder) entry(name []byte) string { return f.path + "/" + string(name[:len(name)-1]) }

func (x *hotFile) path() string { return x.folder.entry(x.name) }

// open makes what the walk told as evidence ready to be changed.
func (l *hotLayer) open() {
	if l.items != nil {
		return
	}
	l.items, l.dirs = make(map[string]Item), make(map[string]Item)
	for _, it := range l.look.Files {
		l.items[it.Path] = it
	}
	for _, it := range l.look.Folders {
		if it.Tree {
			l.trees = append(l.trees, it)
		} else {
			l.dirs[it.Path] = it
		}
	}
}

// told notes a file as evidence, and its folder.
func (l *hotLayer) told(f *hotFolder, it Item) {
	l.open()
	l.fresh = true
	if it.Path != "" {
		l.items[it.Path] = it
	}
	l.dirs[f.shown()] = Item{Path: f.shown(), Bytes: f.bytes, Files: f.count}
}

// evidence is what the walk told, as it is now. A file is new once.
func (l *hotLayer) evidence() (files, folders []Item) {
	if !l.fresh {
		return l.look.Files, l.look.Folders
	}
	l.fresh = false
	l.look.Files, l.look.Folders = make([]Item, 0, len(l.items)), make([]Item, 0, len(l.dirs)+len(l.trees))
	for path, it := range l.items {
		l.look.Files = append(l.look.Files, it)
		if it.New {
			it.New, l.fresh = false, true
			l.items[path] = it
		}
	}
	for _, it := range l.dirs {
		l.look.Folders = append(l.look.Folders, it)
	}
	l.look.Folders = append(l.look.Folders, l.trees...)
	return l.look.Files, l.look.Folders
}
