package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// look is how often a folder is looked at. A look costs a few stats; no watch
// of the kernel's is used, since those miss what ConfigMaps and network file
// systems do.
const look = time.Second

// Folder reads Binaries from the files NAME.yaml, NAME.yml and NAME.json of a
// folder. A file that cannot be used is told once with its line, and what it
// said before holds on.
type Folder struct {
	Path string
	Log  *slog.Logger

	mu    sync.Mutex
	files map[string]file
	fail  error // of the whole folder
}

// file is what is known of one file.
type file struct {
	stamp    stamp
	binaries []*v1alpha1.Binary // the last that could be used
	err      error
}

// stamp tells a changed file from one that is the same.
type stamp struct {
	size  int64
	mtime time.Time
}

// Run tells all wanted Binaries each time something has changed, until ctx
// ends. A folder that is not there wants nothing.
func (f *Folder) Run(ctx context.Context, tell func([]*v1alpha1.Binary)) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for first := true; ; first = false {
		if f.Scan() || first {
			tell(f.Binaries())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Scan looks at the folder and is true when something has changed.
func (f *Folder) Scan() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files == nil {
		f.files = map[string]file{}
	}
	entries, err := os.ReadDir(f.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if f.fail == nil {
			f.Log.Error("cannot read the folder of binaries; what it said before holds on", "err", err)
		}
		f.fail = err
		return false
	}
	f.fail = nil
	seen, changed := map[string]bool{}, false
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); strings.HasPrefix(e.Name(), ".") || (ext != ".yaml" && ext != ".yml" && ext != ".json") {
			continue
		}
		seen[e.Name()] = true
		changed = f.read(e.Name()) || changed
	}
	for name := range f.files {
		if !seen[name] {
			delete(f.files, name)
			changed = true
		}
	}
	return changed
}

// read is true when the file says something else than before.
func (f *Folder) read(name string) bool {
	path, before := filepath.Join(f.Path, name), f.files[name]
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false // it goes, or a FIFO would hold us up
	}
	now := stamp{info.Size(), info.ModTime()}
	if now == before.stamp {
		return false
	}
	text, err := os.ReadFile(path)
	var all []*v1alpha1.Binary
	if err == nil {
		all, err = Parse(text)
	}
	if err != nil {
		err = fmt.Errorf("cannot use %s: %w", path, err)
		f.Log.Error("a file of binaries cannot be used; what it said before holds on", "err", err)
		f.files[name] = file{stamp: now, binaries: before.binaries, err: err}
		return false
	}
	for _, b := range all {
		b.Generation = info.ModTime().UnixMilli() // so that a later one is known
	}
	f.files[name] = file{stamp: now, binaries: all}
	return true
}

// Binaries returns all that is wanted. A name that two files have belongs to
// the first file by name.
func (f *Folder) Binaries() []*v1alpha1.Binary {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*v1alpha1.Binary
	from := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(f.files)) {
		for _, b := range f.files[name].binaries {
			if first, taken := from[b.Name]; taken {
				f.Log.Error("a binary stands twice in the folder", "binary", b.Name, "taken", first, "left", name)
				continue
			}
			from[b.Name] = name
			all = append(all, b)
		}
	}
	return all
}

// Err tells which files cannot be used now.
func (f *Folder) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := []error{f.fail}
	for _, name := range slices.Sorted(maps.Keys(f.files)) {
		errs = append(errs, f.files[name].err)
	}
	return errors.Join(errs...)
}
