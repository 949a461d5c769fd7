//go:build linux

package disk

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// foldersKept bounds the folders of all layers that are followed, some
	// 250 bytes each. A layer that finds no room is walked.
	foldersKept = 200_000
	// namesKept bounds the files of all awake folders, some 150 bytes each.
	namesKept = 50_000
	// folderNames bounds those of one folder.
	folderNames = 8192
	// hotKept bounds the files of one layer that are looked at each time. Those
	// that a reading finds just written take half of it at most: a layer that
	// was just unpacked leaves room for its log.
	hotKept = 256
	// sparedNames is how many files a folder may have to be spared events: all
	// of them are looked at instead, the quiet ones in at most a sparedShare-th
	// of the time. What a look at one takes beyond sparedLook others had the
	// processor for, or the disk: so a quiet file is looked at each four seconds
	// at least, however busy the node is.
	sparedNames = 4096
	sparedShare = 200
	sparedLook  = 5 * time.Microsecond
	// foldersPinned bounds the folders whose inodes are kept in the kernel's
	// memory by listening to them.
	foldersPinned = 16_384
	// linksKept bounds the inodes with several links of one layer.
	linksKept = 20_000
	// quietAfter is how long a file without a change stays hot: longer than
	// the kernel takes to write it back, which may change what is allocated
	// (compression, indirect blocks) and raises no event.
	quietAfter = 40 * time.Second
	// busyAfter is how long a hot file must be written to for its folder to be
	// spared: less than the second between two looks at what is written to.
	busyAfter = 700 * time.Millisecond
	// asleepAfter is how long a folder without an event keeps its names.
	asleepAfter = 3 * time.Minute
	// largeFolder is how many files make a folder worth sparing.
	largeFolder = 2000
	// cheapList is what reading a folder again may cost each time; above it
	// waits listShare times its cost before it is read again.
	cheapList = 20 * time.Millisecond
	listShare = 20
)

var errTooMany = errors.New("layer has more folders or hard links than are followed")

// folder is one folder of a followed layer. A sleeping folder is known by the
// sum of its files; one that had events also by its names.
type folder struct {
	tree     *tree // never changes
	key      string
	up       *folder
	name     string
	children map[string]*folder
	own      int64 // bytes of the folder itself
	bytes    int64 // of the files in it that have one link
	count    int   // of those
	links    []uint64
	dead     bool // dropped
	lost     bool // no longer where it was; dropped unless found elsewhere
	changed  time.Time

	names    map[string]*file // nil: asleep
	complete bool             // names are all there are
	hot      int              // of them
	awake    time.Time        // of the last event
	next     time.Time        // not read in full before

	heard  bool      // its writes raise events
	spared bool      // they do not: all its files are looked at
	around time.Time // the quiet ones of a spared folder not before
	pinned bool
}

// file is one name in an awake folder.
type file struct {
	bytes int64
	ino   uint64
	multi bool // counted by tree.links
	hot   bool // looked at each time
	mark  stamp
	since time.Time // of the last change
	born  time.Time // when it was first hot
	seen  uint32    // the reading of the folder that saw it
}

// stamp changes with every write.
type stamp struct {
	ino          uint64
	size, blocks int64
	mtime, ctime int64
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{st.Ino, st.Size, st.Blocks, st.Mtim.Nano(), st.Ctim.Nano()}
}

// quietFor is how long a file without a change stays hot. XFS lets an open file
// have room beyond its end, and takes it back after five minutes without an
// event (speculative_prealloc_lifetime in xfs's admin guide).
func (e *Events) quietFor(m stamp) time.Duration {
	if m.blocks*512-m.size > 64<<10 {
		return 9 * e.quiet
	}
	return e.quiet
}

type link struct {
	bytes   int64
	refs    uint32
	nlink   uint32
	checked bool // refs is all there is, or was counted by a walk
}

// tree is what is known of one layer: what each of its folders holds. It is
// read in full once; after that, events tell which folders to look at again.
// Every look at a folder or name replaces what was known of it, so events may
// come late, merged, or twice.
type tree struct {
	ev      *Events
	dev     uint64
	fs      fsid
	mount   int // an open folder of the layer's mount, during a look
	root    *folder
	usage   Usage
	links   map[uint64]*link
	fresh   []uint64 // links that a reading found anew
	awake   map[*folder]bool
	hot     int
	swept   time.Time
	layer   *eventLayer
	lost    []*folder
	pending []*folder // found and still to be read
	reading uint32    // the number of the reading under way
	changed bool      // since the look before
	checked bool      // the last look made a full check,
	wrong   Usage     // which found this
	noted   notes
	stat    unix.Stat_t
	handle  fileHandle
	cname   []byte
	now     time.Time
}

// build reads the whole layer whose folder is open.
func (t *tree) build(done func() error) error {
	t.now = time.Now()
	if err := unix.Fstat(t.mount, &t.stat); err != nil {
		return err
	}
	t.dev = t.stat.Dev
	if err := handleOf(t.mount, []byte{0}, &t.handle); err != nil {
		return err
	}
	t.root = &folder{tree: t, key: t.handle.key(t.fs)}
	if !t.ev.add(t.root) {
		return errTooMany
	}
	t.usage.Inodes++
	t.pending = append(t.pending, t.root)
	if err := t.readPending(done); err != nil {
		return err
	}
	for _, l := range t.links {
		l.checked = true
	}
	t.fresh = t.fresh[:0]
	return nil
}

// readPending reads folders that were found, and those found in them.
func (t *tree) readPending(done func() error) error {
	for len(t.pending) > 0 {
		if err := done(); err != nil {
			return err
		}
		f := t.pending[len(t.pending)-1]
		t.pending = t.pending[:len(t.pending)-1]
		if f.dead {
			continue
		}
		if err := t.list(f, nil, false); err != nil {
			return err
		}
	}
	return nil
}

// list reads a folder in full: what it holds replaces what was known. The
// names in woken are kept as hot; with names, all are kept.
func (t *tree) list(f *folder, woken map[string]bool, names bool) error {
	begun := time.Now()
	fd, err := openKey(t.mount, f.key, &t.handle)
	if vanished(err) {
		return nil // the folder above will tell
	}
	if err != nil {
		return fmt.Errorf("cannot open folder %s: %w", quote(f.path()), err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := t.listen(f, fd); err != nil {
		return err
	}
	t.reading++
	t.unlink(f)
	t.usage.Bytes -= f.bytes
	t.usage.Inodes -= int64(f.count)
	f.bytes, f.count = 0, 0
	t.noted.forget(f)
	for _, c := range f.children {
		c.lost = true
	}
	if err := t.entries(f, fd, woken, names); err != nil {
		return err
	}
	for name, c := range f.children {
		if c.lost {
			delete(f.children, name)
			t.lost = append(t.lost, c)
		}
	}
	t.forgetNames(f)
	f.complete = names && f.names != nil && len(f.names) == f.count+len(f.links)
	if f.spared && (!f.complete || !f.few()) { // first listen, then look
		f.spared = false
		return t.list(f, woken, names)
	}
	t.changed = true
	f.changed = t.now
	if cost := time.Since(begun); cost > cheapList && f.count > largeFolder {
		f.next = time.Now().Add(listShare * cost)
	}
	return t.statFolder(f, fd)
}

func (t *tree) entries(f *folder, fd int, woken map[string]bool, names bool) error {
	buf := t.ev.buffers.Get().(*[listBuffer]byte)
	defer t.ev.buffers.Put(buf)
	for {
		n, err := getdents(fd, buf[:])
		if vanished(err) || (err == nil && n == 0) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read folder %s: %w", quote(f.path()), err)
		}
		for rest := buf[:n]; len(rest) > 0; {
			var d dirent
			if d, rest, err = nextDirent(rest); err != nil {
				return err
			}
			if d.dots() {
				continue
			}
			if err := t.entry(f, fd, d.name, woken, names); err != nil {
				return fmt.Errorf("cannot look at %s: %w", quote(f.path()+"/"+string(d.name[:len(d.name)-1])), err)
			}
		}
	}
}

func (t *tree) entry(f *folder, fd int, cname []byte, woken map[string]bool, names bool) error {
	st := &t.stat
	if err := statAt(fd, cname, st); err != nil {
		if vanished(err) {
			return nil
		}
		return err
	}
	if st.Dev != t.dev {
		return nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return t.child(f, fd, cname)
	}
	bytes := st.Blocks * 512
	multi := st.Nlink > 1
	if multi {
		if err := t.ref(f, bytes); err != nil {
			return err
		}
	} else {
		f.bytes += bytes
		f.count++
		t.usage.Bytes += bytes
		t.usage.Inodes++
	}
	name := cname[:len(cname)-1]
	recent := t.now.Sub(time.Unix(st.Ctim.Unix())) < t.ev.quietFor(stampOf(st))
	t.noteStat(f, fd, cname, recent)
	hot := woken[string(name)] || (recent && t.hot < hotKept/2)
	if (names || hot) && len(f.names) < folderNames && t.ev.names.Load() < namesKept || f.names[string(name)] != nil {
		t.keep(f, string(name), bytes, multi, hot)
	}
	return nil
}

// keep remembers a name that a reading saw, and its heat.
func (t *tree) keep(f *folder, name string, bytes int64, multi, hot bool) {
	x := f.names[name]
	if x == nil {
		x = &file{since: t.now}
		t.remember(f, name, x)
	}
	x.bytes, x.ino, x.multi, x.seen = bytes, t.stat.Ino, multi, t.reading
	t.heat(f, x, hot)
}

func (t *tree) remember(f *folder, name string, x *file) {
	if f.names == nil {
		f.names = make(map[string]*file)
		f.awake = t.now
		t.awake[f] = true
	}
	f.names[name] = x
	t.ev.names.Add(1)
}

// heat takes in the stat just taken of a file, and makes it hot when it changed.
func (t *tree) heat(f *folder, x *file, hot bool) {
	if m := stampOf(&t.stat); m != x.mark {
		x.mark, x.since = m, t.now
	}
	if hot && !x.hot && t.hot < hotKept && t.stat.Mode&unix.S_IFMT == unix.S_IFREG {
		x.hot, x.since, x.born = true, t.now, t.now
		f.hot++
		t.hot++
	}
}

// forgetNames forgets the names that the last reading did not see.
func (t *tree) forgetNames(f *folder) {
	for name, x := range f.names {
		if x.seen != t.reading {
			t.forget(f, name, x)
		}
	}
}

func (t *tree) forget(f *folder, name string, x *file) {
	if x.hot {
		f.hot--
		t.hot--
	}
	delete(f.names, name)
	t.ev.names.Add(-1)
}

// child takes in a sub-folder: one that is known, wherever it was, or a new one.
func (t *tree) child(f *folder, fd int, cname []byte) error {
	own := t.stat.Blocks * 512
	if err := handleOf(fd, cname, &t.handle); err != nil {
		if vanished(err) {
			return nil
		}
		return err
	}
	key := t.handle.key(t.fs)
	name := string(cname[:len(cname)-1])
	c := t.ev.of(t, key)
	if c == nil {
		c = &folder{tree: t, key: key}
		if !t.ev.add(c) {
			return errTooMany
		}
		t.usage.Inodes++
		t.pending = append(t.pending, c)
	} else if c.up != nil && c.up.children[c.name] == c {
		delete(c.up.children, c.name)
	}
	if f.children == nil {
		f.children = make(map[string]*folder)
	}
	if old := f.children[name]; old != nil && old != c {
		t.lost = append(t.lost, old)
	}
	c.up, c.name, c.lost = f, name, false
	f.children[name] = c
	t.usage.Bytes += own - c.own
	c.own = own
	return nil
}

// statFolder looks at the size of the open folder itself.
func (t *tree) statFolder(f *folder, fd int) error {
	if err := unix.Fstat(fd, &t.stat); err != nil {
		return err
	}
	own := t.stat.Blocks * 512
	t.usage.Bytes += own - f.own
	f.own = own
	return nil
}

// ref counts one more name of the inode whose stat was just taken.
func (t *tree) ref(f *folder, bytes int64) error {
	ino := t.stat.Ino
	l := t.links[ino]
	if l == nil {
		if len(t.links) >= linksKept {
			return errTooMany
		}
		l = &link{}
		t.links[ino] = l
		t.fresh = append(t.fresh, ino)
		t.usage.Inodes++
	}
	t.usage.Bytes += bytes - l.bytes
	l.bytes, l.nlink = bytes, uint32(t.stat.Nlink)
	l.refs++
	f.links = append(f.links, ino)
	return nil
}

// unlink takes a folder's names of inodes with several links back.
func (t *tree) unlink(f *folder) {
	for _, ino := range f.links {
		if l := t.links[ino]; l != nil {
			l.refs--
			t.fresh = append(t.fresh, ino)
		}
	}
	f.links = f.links[:0]
}

// settleLinks forgets the inodes without names, and tells whether all the
// others are sure: one whose names are not all known may have been counted as
// an ordinary file elsewhere, when it had one link.
func (t *tree) settleLinks() (sure bool) {
	sure = true
	for _, ino := range t.fresh {
		l := t.links[ino]
		switch {
		case l == nil:
		case l.refs == 0:
			delete(t.links, ino)
			t.usage.Bytes -= l.bytes
			t.usage.Inodes--
		case l.refs < l.nlink && !l.checked:
			sure = false
		}
	}
	t.fresh = t.fresh[:0]
	return sure
}

// dropLost drops the folders that left their place and were not found again.
func (t *tree) dropLost() {
	for len(t.lost) > 0 {
		f := t.lost[len(t.lost)-1]
		t.lost = t.lost[:len(t.lost)-1]
		if f.dead || (f.up != nil && !f.up.dead && f.up.children[f.name] == f) {
			continue
		}
		t.drop(f)
	}
}

func (t *tree) drop(f *folder) {
	for stack := []*folder{f}; len(stack) > 0; {
		f := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, c := range f.children {
			if c.up == f {
				stack = append(stack, c)
			}
		}
		t.usage.Bytes -= f.bytes + f.own
		t.usage.Inodes -= int64(f.count) + 1
		t.unlink(f)
		t.sleep(f)
		t.unpin(f)
		t.noted.forget(f)
		t.ev.remove(f)
		f.dead, f.children = true, nil
	}
	t.changed = true
}

// sleep forgets a folder's names.
func (t *tree) sleep(f *folder) {
	for name, x := range f.names {
		t.forget(f, name, x)
	}
	f.names, f.complete = nil, false
	delete(t.awake, f)
}

// rest forgets all names: an event has its folder read again, and what grows is
// noted then. The maps are made anew, since one keeps the room of what it held.
func (t *tree) rest() {
	for f := range t.awake {
		t.sleep(f)
	}
	t.awake, t.noted = make(map[*folder]bool), notes{}
	t.layer.files, t.layer.dirs = nil, nil
}

// path is a folder's path as the container sees it.
func (f *folder) path() string {
	var parts []string
	for g := f; g.up != nil; g = g.up {
		parts = append(parts, g.name)
	}
	if len(parts) == 0 {
		return "/"
	}
	var path []byte
	for i := len(parts) - 1; i >= 0; i-- {
		path = appendPath(path, []byte(parts[i]))
	}
	return string(path)
}
