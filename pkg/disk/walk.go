//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// evidenceKept is how many of the largest, and of the largest changed,
	// files and folders a look tells.
	evidenceKept = 64
	// openFolders bounds the descriptors of one walk. A folder deeper than
	// this is closed while its sub-folders are walked and opened again by
	// ".." from there.
	openFolders = 64
	// pendingNames bounds, in bytes, the names of sub-folders that one folder
	// keeps waiting before they are walked and reading it goes on.
	pendingNames = 64 << 10
	// pendingBudget is, in bytes, what all folders of one walk may keep waiting
	// before folders are read in small pieces, each walked at once.
	pendingBudget = 1 << 20
	smallRead     = 512 // the kernel's largest entry has 280 bytes
	// deepest bounds the folders in one another: some 500 bytes each, however
	// many they hold.
	deepest = 50_000
	// walkTries is how often a walk starts over because a folder below
	// openFolders was moved away while it was walked.
	walkTries = 3
	// clockGrain: file times come from the kernel's coarse clock, which is
	// up to one tick behind.
	clockGrain = 10 * time.Millisecond
	// longWalk: after a walk that took so long what it found hot is looked at
	// once more, so that its figure is as new as it says.
	longWalk = 100 * time.Millisecond
)

var errDeep = fmt.Errorf("folders are nested more than %d deep", deepest)

var errMoved = errors.New("folders are moved faster than they can be walked")

// Walker measures a layer by walking it: getdents64 and fstatat relative
// to open folders. It works on every file system and kernel. (statx for every
// file would cost 15% more; only files kept as evidence are asked for the time
// they were made.)
//
// It counts as `du -s -x --block-size=1` does: allocated blocks, the upper
// folder itself, hard links once, one file system. Links are not followed, nothing
// but folders is opened, and what vanishes during the walk is not there.
//
// The cost is about 3 µs an entry with a warm cache. Memory does not grow with
// the number of files or folders, and is below 30 MiB for the worst tree; inodes with several links are remembered until all
// their links were seen.
//
// After a walk it can probe what it found hot: see Probe. What it remembers for that is
// some 2 KiB for a layer at rest, at most 100, and let go of by Forget.
type Walker struct {
	hostRoot string
	walks    sync.Pool // of *walk: their buffers

	mu     sync.Mutex
	layers map[string]*hotLayer // by upper folder
}

// NewWalker makes a Walker for layers whose paths are as the host sees them;
// hostRoot is where the host's root folder is mounted, "/" on the host itself.
func NewWalker(hostRoot string) *Walker {
	return &Walker{
		hostRoot: hostRoot,
		walks:    sync.Pool{New: func() any { return newWalk() }},
		layers:   make(map[string]*hotLayer),
	}
}

// Method implements Meter.
func (*Walker) Method() string { return "walk" }

// Measure implements Meter. A cancelled ctx ends it within one folder's read.
func (wr *Walker) Measure(ctx context.Context, t Target) (Look, error) {
	look, l, err := wr.walk(ctx, t)
	if err != nil {
		return Look{}, err
	}
	wr.remember(t.Layer.Upper, l)
	look.Hot = true
	return look, nil
}

// walk walks a layer and tells what is hot in it.
func (wr *Walker) walk(ctx context.Context, t Target) (Look, *hotLayer, error) {
	w := wr.walks.Get().(*walk)
	defer wr.walks.Put(w)
	for try := 1; ; try++ {
		look, l, err := wr.once(ctx, w, t)
		if err == nil {
			return look, l, nil
		}
		if !errors.Is(err, errMoved) || try == walkTries {
			return Look{}, nil, fmt.Errorf("cannot walk %s: %w", t.Layer.Upper, err)
		}
	}
}

func (wr *Walker) once(ctx context.Context, w *walk, t Target) (Look, *hotLayer, error) {
	w.reset(t.Since)
	look := Look{Started: time.Now()}
	root, err := openLayer(wr.hostRoot, t.Layer.Upper)
	if err != nil {
		return Look{}, nil, err
	}
	// The walk closes the folders it opens, the first one included.
	keep, err := unix.FcntlInt(uintptr(root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(root)
		return Look{}, nil, err
	}
	defer func() { _ = unix.Close(keep) }()
	if err := w.run(ctx, root); err != nil {
		return Look{}, nil, err
	}
	if look.Filesystem, err = fstatfs(keep); err != nil {
		return Look{}, nil, err
	}
	look.Usage = w.usage
	look.Device = w.dev
	look.Files = union(&w.files, &w.changedFiles)
	look.Folders = union(&w.folders, &w.changedFolders)
	l := w.hotLayer(look.Started, look)
	if time.Since(look.Started) > longWalk {
		if err := l.probe(ctx, keep); err != nil {
			return Look{}, nil, err
		}
		look.Usage = l.usage
		look.Files, look.Folders = l.evidence()
	}
	look.Took = time.Since(look.Started)
	return look, l, nil
}

// walk is one walk's state; it is used again for the next.
type walk struct {
	usage Usage
	dev   uint64
	since int64 // ns; 0: nothing counts as changed
	links map[uint64]uint32
	stack []frame
	spare [][]byte // pending buffers of folders that were left
	held  int      // bytes that the pending buffers of the stack have room for
	path  []byte   // of the folder on top of the stack
	buf   []byte
	stat  unix.Stat_t

	files, changedFiles, folders, changedFolders top

	hot    hottest
	root   *hotFolder
	now    int64      // ns; of the last read
	listed []hotKnown // by the last read
}

// frame is a folder that is being walked.
type frame struct {
	fd       int // -1 while closed
	ino      uint64
	off      int64  // where reading it goes on
	path     int    // length of its path in walk.path
	pending  []byte // names of sub-folders still to be entered, each with its NUL
	bytes    int64  // of the files it holds itself
	count    int
	below    int64      // bytes of those in its sub-folders, in any depth
	deeper   int        // how many those are
	changed  int64      // its ctime before its names were read
	hot      *hotFolder // once a hot file is in it
	reads    int32      // of its names
	branches int32      // sub-folders with files
	eof      bool
	cut      bool // its path is not the whole one
	touched  bool // one of its files changed
	stirred  bool // one in its sub-folders did
}

func newWalk() *walk {
	return &walk{
		links:          make(map[uint64]uint32),
		buf:            make([]byte, 64<<10),
		files:          top{max: evidenceKept},
		changedFiles:   top{max: evidenceKept},
		folders:        top{max: evidenceKept},
		changedFolders: top{max: evidenceKept},
	}
}

func (w *walk) reset(since time.Time) {
	w.usage, w.since = Usage{}, 0
	if !since.IsZero() {
		w.since = since.Add(-clockGrain).UnixNano()
	}
	// A map keeps the room it once needed: one layer full of hard links
	// must not cost memory for ever.
	if len(w.links) > 1024 {
		w.links = make(map[uint64]uint32)
	}
	clear(w.links)
	w.stack, w.path, w.held = w.stack[:0], w.path[:0], 0
	clear(w.hot)
	w.hot, w.root = w.hot[:0], nil
	for _, t := range []*top{&w.files, &w.changedFiles, &w.folders, &w.changedFolders} {
		t.reset()
	}
}

// run walks the tree of the open folder root, and closes it.
func (w *walk) run(ctx context.Context, root int) (err error) {
	defer w.closeAll()
	w.stack = append(w.stack, frame{fd: root})
	if err := unix.Fstat(root, &w.stat); err != nil {
		return err
	}
	w.dev = w.stat.Dev
	w.countFolder(&w.stack[0])
	w.root = &hotFolder{ino: w.stat.Ino, changed: w.stack[0].changed, read: time.Now().UnixNano()}
	w.stack[0].hot = w.root
	for len(w.stack) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		f := &w.stack[len(w.stack)-1]
		switch {
		case len(f.pending) > 0 && (f.eof || len(f.pending) >= pendingNames || w.full()):
			err = w.enter(f)
		case !f.eof:
			err = w.read(f)
		default:
			err = w.leave(f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) closeAll() {
	for _, f := range w.stack {
		if f.fd >= 0 {
			_ = unix.Close(f.fd)
		}
	}
	w.stack = w.stack[:0]
}

// countFolder counts the folder whose stat was just taken.
func (w *walk) countFolder(f *frame) {
	f.ino, f.changed = w.stat.Ino, w.stat.Ctim.Nano()
	w.usage.Bytes += w.stat.Blocks * 512
	w.usage.Inodes++
}

// read reads a buffer full of the folder's entries and counts them.
func (w *walk) read(f *frame) error {
	buf := w.buf
	if w.full() {
		buf = buf[:smallRead]
	}
	w.now, w.listed = time.Now().UnixNano(), w.listed[:0]
	n, err := getdents(f.fd, buf)
	if vanished(err) || (err == nil && n == 0) {
		f.eof = true // a folder that was removed has no entries any more
		if f.reads == 0 {
			w.list(f)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read folder %s: %w", quote(w.where(nil)), err)
	}
	for rest := w.buf[:n]; len(rest) > 0; {
		var d dirent
		if d, rest, err = nextDirent(rest); err != nil {
			return err
		}
		f.off = d.off
		if d.dots() {
			continue
		}
		if err := w.entry(f, d); err != nil {
			return fmt.Errorf("cannot stat %s: %w", quote(w.where(d.name)), err)
		}
	}
	f.reads++
	w.list(f)
	return nil
}

// entry counts what is no folder, and lets folders wait.
func (w *walk) entry(f *frame, d dirent) error {
	if d.kind == unix.DT_DIR { // counted when it is entered
		w.wait(f, d.name)
		return nil
	}
	st := &w.stat
	if err := statAt(f.fd, d.name, st); err != nil {
		if vanished(err) {
			return nil
		}
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR { // made in between, or a file system without d_type
		w.wait(f, d.name)
		return nil
	}
	if st.Dev != w.dev || w.countedLink(st) {
		return nil
	}
	bytes := st.Blocks * 512
	w.usage.Bytes += bytes
	w.usage.Inodes++
	f.bytes += bytes
	f.count++
	changed := w.since != 0 && (st.Ctim.Nano() >= w.since || st.Mtim.Nano() >= w.since)
	f.touched = f.touched || changed
	w.note(f.fd, d.name, bytes, changed)
	w.heat(f, d.name, bytes)
	return nil
}

// wait lets a sub-folder wait to be entered.
func (w *walk) wait(f *frame, name []byte) {
	w.held -= cap(f.pending)
	f.pending = append(f.pending, name...)
	w.held += cap(f.pending)
}

// full tells whether too much waits to let more of it.
func (w *walk) full() bool { return w.held > pendingBudget }

// countedLink tells whether another link of the same inode was counted. An
// inode is forgotten with its last link, so a layer of many pairs costs no
// memory.
func (w *walk) countedLink(st *unix.Stat_t) bool {
	if st.Nlink < 2 {
		return false
	}
	left, seen := w.links[st.Ino]
	switch {
	case !seen:
		w.links[st.Ino] = uint32(st.Nlink - 1)
	case left <= 1:
		delete(w.links, st.Ino)
	default:
		w.links[st.Ino] = left - 1
	}
	return seen
}

// note keeps a regular file as evidence when it is among the largest.
func (w *walk) note(dir int, name []byte, bytes int64, changed bool) {
	if bytes == 0 || w.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	large := w.files.wants(bytes)
	changed = changed && w.changedFiles.wants(bytes)
	if !large && !changed {
		return
	}
	it := Item{Path: w.where(name), Bytes: bytes}
	it.New = changed && madeAt(dir, name) >= w.since
	if large {
		w.files.add(it)
	}
	if changed {
		w.changedFiles.add(it)
	}
}

// enter goes into the last folder that waits.
func (w *walk) enter(f *frame) error {
	name := f.pop()
	fd, err := openFolder(f.fd, name)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open folder %s: %w", quote(w.where(name)), err)
	}
	if err := unix.Fstat(fd, &w.stat); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("cannot stat folder %s: %w", quote(w.where(name)), err)
	}
	if w.stat.Dev != w.dev {
		return unix.Close(fd) // another file system is mounted there
	}
	if len(w.stack) >= deepest {
		_ = unix.Close(fd)
		return errDeep
	}
	if len(w.stack) > openFolders {
		_ = unix.Close(f.fd)
		f.fd = -1
	}
	next := frame{fd: fd}
	if n := len(w.spare); n > 0 {
		next.pending, w.spare = w.spare[n-1], w.spare[:n-1]
		w.held += cap(next.pending)
	}
	w.countFolder(&next)
	w.path = appendPath(w.path, name)
	next.path = len(w.path)
	next.cut = f.cut || next.path == f.path
	w.stack = append(w.stack, next)
	return nil
}

// pop takes the last name, with its NUL, off those that wait.
func (f *frame) pop() []byte {
	start := len(f.pending) - 1
	for start > 0 && f.pending[start-1] != 0 {
		start--
	}
	name := f.pending[start:]
	f.pending = f.pending[:start]
	return name
}

// leave goes back to the folder above.
func (w *walk) leave(f *frame) error {
	w.noteFolder(f)
	defer func(fd int) { _ = unix.Close(fd) }(f.fd)
	w.held -= cap(f.pending)
	if c := cap(f.pending); c > 0 && c <= 16<<10 && len(w.spare) < openFolders {
		w.spare = append(w.spare, f.pending[:0])
	}
	fd := f.fd
	w.stack = w.stack[:len(w.stack)-1]
	if len(w.stack) == 0 {
		return nil
	}
	up := &w.stack[len(w.stack)-1]
	up.take(f)
	w.path = w.path[:up.path]
	if up.fd >= 0 {
		return nil
	}
	return w.reopen(up, fd)
}

// reopen opens the closed folder up again, from its child. When the child was
// moved meanwhile, ".." is another folder: the walk must start over.
func (w *walk) reopen(up *frame, child int) error {
	fd, err := openFolder(child, []byte("..\x00"))
	if vanished(err) {
		return errMoved
	}
	if err != nil {
		return err
	}
	up.fd = fd
	if err := unix.Fstat(fd, &w.stat); err != nil {
		return err
	}
	if w.stat.Ino != up.ino || w.stat.Dev != w.dev {
		return errMoved
	}
	if up.eof {
		return nil
	}
	_, err = unix.Seek(fd, up.off, unix.SEEK_SET)
	return err
}

// take takes in what a sub-folder held that is left.
func (f *frame) take(sub *frame) {
	count := sub.count + sub.deeper
	if count == 0 {
		return
	}
	f.below += sub.bytes + sub.below
	f.deeper += count
	f.branches++
	f.stirred = f.stirred || sub.touched || sub.stirred
}

// noteFolder keeps the folder that is left as evidence where it is among the
// largest: for the files that it holds itself, and for all below it. Where these are all
// in one sub-folder, that one says the same.
func (w *walk) noteFolder(f *frame) {
	if f.hot != nil {
		f.hot.bytes, f.hot.count = f.bytes, f.count
	}
	if f.count > 1 {
		w.keepFolder(Item{Bytes: f.bytes, Files: f.count}, f.touched)
	}
	if f.branches > 1 || f.branches == 1 && f.count > 0 {
		w.keepFolder(Item{Bytes: f.bytes + f.below, Files: f.count + f.deeper, Tree: true}, f.touched || f.stirred)
	}
}

func (w *walk) keepFolder(it Item, touched bool) {
	large := w.folders.wants(it.Bytes)
	changed := touched && w.changedFolders.wants(it.Bytes)
	if !large && !changed {
		return
	}
	it.Path = w.where(nil)
	if large {
		w.folders.add(it)
	}
	if changed {
		w.changedFolders.add(it)
	}
}

// where is the path of an entry of the folder on top, or of that folder.
func (w *walk) where(name []byte) string {
	if name == nil {
		if len(w.path) == 0 {
			return "/"
		}
		return string(w.path)
	}
	return string(appendPath(w.path[:len(w.path):len(w.path)], name))
}

// appendPath adds a name, with or without its NUL. A path does not grow
// beyond what the kernel takes as one: deeper folders keep the path of the
// last that fits, so that 10,000 levels don't cost 64 long paths.
func appendPath(path, name []byte) []byte {
	if n := len(name); n > 0 && name[n-1] == 0 {
		name = name[:n-1]
	}
	if len(path)+1+len(name) >= unix.PathMax {
		return path
	}
	return append(append(path, '/'), name...)
}
