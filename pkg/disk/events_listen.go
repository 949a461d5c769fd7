//go:build linux

package disk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A write that raises an event costs its writer a fifth more and above, one in a
// folder that nobody listens to nothing. So a folder is in one of three states:
//
//	heard   its writes raise events; nothing in it needs to be looked at
//	spared  a file in it is written all the time: all its files are looked at
//	        instead, and it is heard again when they are quiet
//	neither it was not read yet, or is dropped
//
//	          read            busy, and all names known
//	neither ───────→ heard ─────────────────────────────→ spared
//	                   ↑          quiet, or too many files   │
//	                   └─────────────────────────────────────┘

// listen makes an unspared folder heard. It comes before each reading of it, so
// that nothing is lost in between.
func (t *tree) listen(f *folder, fd int) error {
	if f.heard || f.spared {
		return nil
	}
	pin := f.pinned || t.ev.pin()
	if err := t.ev.group.listen(fd, !pin); err != nil {
		if pin && !f.pinned {
			t.ev.pinned.Add(-1)
		}
		return fmt.Errorf("%w: %w", errTooMany, err)
	}
	f.heard, f.pinned = true, pin
	return nil
}

// spare makes a folder spared whose names are all known.
func (t *tree) spare(f *folder, fd int) {
	t.ev.group.deafen(fd)
	t.unpin(f)
	f.heard, f.spared = false, true
	f.around = t.now
}

// listenAgain makes a spared folder heard.
func (t *tree) listenAgain(f *folder, fd int) error {
	f.spared = false
	return t.listen(f, fd)
}

// settle chooses the state of a folder whose files were just looked at.
func (t *tree) settle(f *folder, fd int, w *woken, busy bool) error {
	switch {
	case f.spared && !f.few(): // first listen, then look
		if err := t.listenAgain(f, fd); err != nil {
			return err
		}
		return t.relist(f, w)
	case f.heard && busy && f.few() && !f.complete:
		return t.relist(f, w) // the next time its names are known
	case f.heard && busy && f.few():
		t.spare(f, fd)
	}
	return nil
}

// few tells whether a folder has few enough files to be spared.
func (f *folder) few() bool { return f.count+len(f.links) <= sparedNames }

// pin tells whether one more folder may be kept in the kernel's memory.
func (e *Events) pin() bool {
	if e.pinned.Add(1) <= foldersPinned {
		return true
	}
	e.pinned.Add(-1)
	return false
}

func (t *tree) unpin(f *folder) {
	if f.pinned {
		f.pinned = false
		t.ev.pinned.Add(-1)
	}
}

// deafenAll takes the marks off a layer that is no longer followed, but is still
// there: what is removed loses its marks by itself.
func (t *tree) deafenAll(mount int) {
	for stack := []*folder{t.root}; len(stack) > 0; {
		f := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, c := range f.children {
			stack = append(stack, c)
		}
		if !f.heard {
			continue
		}
		if fd, err := openKey(mount, f.key, &t.handle); err == nil {
			t.ev.group.deafen(fd)
			_ = unix.Close(fd)
		}
		f.heard = false
	}
}
