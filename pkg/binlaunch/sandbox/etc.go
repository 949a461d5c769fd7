package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// etcFolder is beside the tasks' state folders: no id has such a character.
const etcFolder = "@etc"

// etc is a folder with copies of those files of the host's /etc that programs
// need, shown to all isolated tasks. One mount is a third of a millisecond
// cheaper than a copy of each file for each task, and a changed resolv.conf
// reaches the tasks that run, with the next launch.
type etc struct {
	folder string
	host   string // where the host's root is seen

	mu   sync.Mutex
	seen map[string]stamp
}

type stamp struct {
	modified time.Time
	size     int64
}

func newEtc(folder, host string) *etc {
	return &etc{folder: folder, host: host, seen: map[string]stamp{}}
}

// refresh copies what has changed.
func (e *etc) refresh(paths []hostPath) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.seen) == 0 {
		if err := os.MkdirAll(e.folder, 0o755); err != nil {
			return fmt.Errorf("cannot make the tasks' /etc: %w", err)
		}
	}
	for _, p := range paths {
		if filepath.Dir(p.path) != "/etc" {
			continue
		}
		if err := e.one(p); err != nil {
			return fmt.Errorf("cannot copy %s for the tasks: %w", p.path, err)
		}
	}
	return nil
}

func (e *etc) one(p hostPath) error {
	from, to := filepath.Join(e.host, p.path), filepath.Join(e.folder, filepath.Base(p.path))
	if p.kind == hostFolder {
		if _, ok := e.seen[p.path]; ok {
			return nil
		}
		e.seen[p.path] = stamp{}
		return os.MkdirAll(to, 0o755)
	}
	st, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is gone for now: the last copy stays
	}
	if err != nil {
		return err
	}
	now := stamp{st.ModTime(), st.Size()}
	const most = 4 << 20
	if e.seen[p.path] == now || now.size > most {
		return nil
	}
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to+".new", raw, 0o644); err != nil { //nolint:gosec // the names are a table (systemPaths)
		return err
	}
	if err := os.Rename(to+".new", to); err != nil {
		return err
	}
	e.seen[p.path] = now
	return nil
}
