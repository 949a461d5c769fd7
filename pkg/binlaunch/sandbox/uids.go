package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// takeUID gives the lowest uid that no task here has.
func (l *Launcher) takeUID() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for uid := l.o.FirstUID; ; uid++ {
		if !l.uids[uid] {
			l.uids[uid] = true
			return uid
		}
	}
}

func (l *Launcher) giveUID(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.uids, uid)
}

// knowUIDs finds those of tasks that earlier agents started.
func (l *Launcher) knowUIDs() error {
	entries, err := os.ReadDir(l.o.State)
	if err != nil {
		return err
	}
	for _, e := range entries {
		k, err := readKept(filepath.Join(l.o.State, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // Attach tells of it
		}
		if err == nil {
			l.uids[k.UID] = true
		}
	}
	return nil
}
