//go:build linux

package disk

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// woken is what events told of one folder: the names, and what happened. A
// folder that all is to be looked at in has whole set.
type woken struct {
	names map[string]uint64
	whole bool
}

const wokenNames = 1024

func (w *woken) add(name []byte, mask uint64) {
	if w.whole = w.whole || mask&unix.FAN_ONDIR != 0 || len(w.names) >= wokenNames; w.whole && len(w.names) >= wokenNames {
		return
	}
	if w.names == nil {
		w.names = make(map[string]uint64)
	}
	w.names[string(name)] |= mask
}

// update brings the tree up to date with what the events told. It tells
// whether all of it could be done now, and whether hard links make it unsure.
func (t *tree) update(dirty map[*folder]*woken, done func() error) (late map[*folder]*woken, sure bool, err error) {
	t.now = time.Now()
	t.changed = false
	for f := range t.awake {
		if f.hot > 0 || f.spared {
			if err := t.lookHot(f, dirty); err != nil {
				return nil, false, err
			}
		}
	}
	for f, w := range dirty {
		switch {
		case f.dead:
			continue
		case t.now.Before(f.next) && (w.whole || !f.complete):
			if late == nil {
				late = make(map[*folder]*woken)
			}
			late[f] = w
			continue
		}
		if err := done(); err != nil {
			return nil, false, err
		}
		if err := t.wake(f, w); err != nil {
			return nil, false, err
		}
	}
	t.dropLost()
	if err := t.readPending(done); err != nil {
		return nil, false, err
	}
	t.dropLost()
	if t.now.Sub(t.swept) > asleepAfter/4 {
		t.sweep()
	}
	return late, t.settleLinks(), nil
}

// sweep lets folders without events fall asleep.
func (t *tree) sweep() {
	t.swept = t.now
	for f := range t.awake {
		if f.hot == 0 && !f.spared && t.now.Sub(f.awake) > asleepAfter {
			t.sleep(f)
		}
	}
}

// still tells whether events tell of whatever changes the layer: no file is
// looked at without one.
func (t *tree) still() bool {
	for f := range t.awake {
		if f.hot > 0 || f.spared {
			return false
		}
	}
	return true
}

// wake looks at what events told of one folder.
func (t *tree) wake(f *folder, w *woken) error {
	f.awake = t.now
	if w.whole || f.names == nil {
		return t.relist(f, w)
	}
	fd, err := openKey(t.mount, f.key, &t.handle)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open folder %s: %w", quote(f.path()), err)
	}
	defer func() { _ = unix.Close(fd) }()
	busy := false
	for name, mask := range w.names {
		known, err := t.touch(f, fd, name)
		if err != nil {
			return fmt.Errorf("cannot look at %s: %w", quote(join(f, name)), err)
		}
		if !known {
			return t.relist(f, w)
		}
		x := f.names[name]
		busy = busy || (x != nil && x.hot && mask&unix.FAN_MODIFY != 0 && t.now.Sub(x.born) > busyAfter)
	}
	if err := t.settle(f, fd, w, busy); err != nil {
		return err
	}
	return t.statFolder(f, fd)
}

// relist reads a woken folder in full.
func (t *tree) relist(f *folder, w *woken) error {
	names := make(map[string]bool, len(w.names))
	for name := range w.names {
		names[name] = true
	}
	return t.list(f, names, true)
}

// touch looks at one name that an event told of. It is not known where what
// the name held before is not, or where more than the name must be looked at.
func (t *tree) touch(f *folder, fd int, name string) (known bool, err error) {
	x := f.names[name]
	if (x != nil && x.multi) || f.children[name] != nil || (x == nil && !f.complete) {
		return false, nil
	}
	t.cname = append(append(t.cname[:0], name...), 0)
	if err := statAt(fd, t.cname, &t.stat); err != nil && !vanished(err) {
		return false, err
	} else if err != nil || t.stat.Dev != t.dev {
		if x != nil {
			t.count(f, -x.bytes, -1)
			t.noted.unset(f, name)
			t.forget(f, name, x)
		}
		return true, nil
	}
	if t.stat.Mode&unix.S_IFMT == unix.S_IFDIR || t.stat.Nlink > 1 {
		return false, nil
	}
	if x == nil {
		if t.ev.names.Load() >= namesKept {
			return false, nil
		}
		x = &file{since: t.now, ino: t.stat.Ino}
		t.remember(f, name, x)
		t.count(f, 0, 1)
	}
	t.take(f, fd, x, name, true)
	return true, nil
}

func (t *tree) count(f *folder, bytes int64, files int) {
	f.bytes += bytes
	f.count += files
	t.usage.Bytes += bytes
	t.usage.Inodes += int64(files)
	f.changed = t.now
	t.changed = true
}

// take takes in the stat just taken of a name with one link.
func (t *tree) take(f *folder, fd int, x *file, name string, hot bool) {
	x.ino = t.stat.Ino
	bytes := t.stat.Blocks * 512
	if bytes != x.bytes {
		t.count(f, bytes-x.bytes, 0)
		x.bytes = bytes
	}
	before := x.mark
	t.heat(f, x, hot)
	if x.mark != before {
		t.changed = true
		t.cname = append(append(t.cname[:0], name...), 0)
		t.noteStat(f, fd, t.cname, true)
	}
}

// lookHot looks at a folder's hot files, and at all of a spared folder when it
// is their turn. What is no longer the file that it was is left to wake.
func (t *tree) lookHot(f *folder, dirty map[*folder]*woken) error {
	fd, err := openKey(t.mount, f.key, &t.handle)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open folder %s: %w", quote(f.path()), err)
	}
	defer func() { _ = unix.Close(fd) }()
	f.awake = t.now
	all := f.spared && !t.now.Before(f.around)
	t.lookAtNames(f, fd, all, dirty)
	if all && f.hot == 0 { // first listen, then look: nothing is lost in between
		if err := t.listenAgain(f, fd); err != nil {
			return err
		}
		t.lookAtNames(f, fd, true, dirty)
	}
	return nil
}

func (t *tree) lookAtNames(f *folder, fd int, all bool, dirty map[*folder]*woken) {
	begun := time.Now()
	for name, x := range f.names {
		if (!x.hot && !all) || t.same(f, fd, name, x) {
			continue
		}
		w := dirty[f]
		if w == nil {
			w = &woken{}
			dirty[f] = w
		}
		w.add([]byte(name), 0)
	}
	if all {
		f.around = t.now.Add(sparedPause(time.Since(begun), len(f.names)))
	}
}

// sparedPause is how long the quiet files of a spared folder are left alone after
// a look at all of them.
func sparedPause(took time.Duration, files int) time.Duration {
	return sparedShare * min(took, time.Duration(files)*sparedLook)
}

// same looks at one file; it makes a quiet one hot that changed, and lets a
// hot one cool down when it is quiet. It is false where the name no longer
// holds the same file with one link, or one with several that changed.
func (t *tree) same(f *folder, fd int, name string, x *file) bool {
	t.cname = append(append(t.cname[:0], name...), 0)
	if err := statAt(fd, t.cname, &t.stat); err != nil || t.stat.Dev != t.dev || t.stat.Ino != x.ino {
		return false
	}
	same := stampOf(&t.stat) == x.mark
	switch {
	case x.multi != (t.stat.Nlink > 1) || (x.multi && !same):
		return false
	case !x.multi && (x.hot || !same):
		t.take(f, fd, x, name, true)
	}
	t.cool(f, x)
	return true
}

func (t *tree) cool(f *folder, x *file) {
	if x.hot && t.now.Sub(x.since) >= t.ev.quietFor(x.mark) {
		x.hot = false
		f.hot--
		t.hot--
	}
}
