package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// orphanAge is from when on a snapshot that no container uses is an orphan: one
// that is being unpacked, or whose container is about to be made, is younger.
const orphanAge = 10 * time.Minute

// Storage is what one snapshotter keeps besides the layers of containers, for
// all namespaces that are watched.
type Storage struct {
	Snapshotter string
	// Images is the bytes of its committed snapshots, which are the unpacked
	// layers of images, as containerd noted them when they were committed.
	Images int64
	// Root is the folder of the host that it keeps all in; empty where containerd
	// does not say.
	Root string
	// Orphans are snapshots that can be written to and that no container uses:
	// left over by something that did not clean up.
	Orphans []Orphan
}

// Orphan is a left-over snapshot. Its Layer has an Upper folder or not, as that
// of a container.
type Orphan struct {
	Namespace string // containerd's
	Layer     Layer
}

func (s Storage) equal(other Storage) bool {
	return s.Snapshotter == other.Snapshotter && s.Images == other.Images && s.Root == other.Root && slices.Equal(s.Orphans, other.Orphans)
}

// committed names a committed snapshot, whose size never changes.
type committed struct{ namespace, snapshotter, name string }

// storageLook is one look at what the snapshotters keep.
type storageLook struct {
	daemon    *daemon
	orphanAge time.Duration
	now       time.Time
	known     map[committed]int64 // sizes, from the look before
	layers    map[committed]ref   // of containers, until their snapshot is met
	used      map[committed]bool  // the layers of containers

	all   []Storage
	sizes map[committed]int64 // for the next look
	bare  []ref               // containers that are said to have a layer, which is no more
}

// lookAtStorage asks the snapshotters that containerd has, used by a container
// or not, for all their snapshots. before and sizes are what is known from the
// last time. It costs a call for each image layer that is new, and never the
// walk that containerd makes for the usage of an active snapshot. Of a
// snapshotter that does not tell the last answer stays; the error says so.
func lookAtStorage(ctx context.Context, d *daemon, namespaces []string, containers set, before []Storage, sizes map[committed]int64, orphanAge time.Duration) (*storageLook, error) {
	l := &storageLook{
		daemon: d, orphanAge: orphanAge, now: time.Now(), known: sizes,
		layers: make(map[committed]ref), used: make(map[committed]bool, len(containers)),
		sizes: make(map[committed]int64, len(sizes)),
	}
	used := make(map[string]bool)
	for r, c := range containers {
		id := committed{c.Namespace, c.Layer.Snapshotter, c.Layer.Key}
		l.used[id] = true
		if c.Layer.Upper != "" || c.Layer.Source != "" {
			l.layers[id] = r
		}
		if c.Layer.Snapshotter != "" {
			used[c.Layer.Snapshotter] = true
		}
	}
	roots, err := d.roots(ctx)
	errs := []error{err}
	for name := range used {
		if _, listed := roots[name]; !listed {
			roots = maps.Clone(roots)
			if roots == nil {
				roots = make(map[string]string)
			}
			roots[name] = ""
		}
	}
	for name, root := range roots {
		s := Storage{Snapshotter: name, Root: root}
		if err := l.ask(ctx, namespaces, &s); err != nil {
			errs = append(errs, err)
			l.keep(name, before)
			continue
		}
		if used[name] || s.Images > 0 || len(s.Orphans) > 0 {
			l.all = append(l.all, s)
		}
	}
	sortStorage(l.all)
	l.bare = slices.Collect(maps.Values(l.layers))
	return l, errors.Join(errs...)
}

// ask asks one snapshotter for what it keeps in each namespace.
func (l *storageLook) ask(ctx context.Context, namespaces []string, s *Storage) error {
	for _, ns := range namespaces {
		infos, err := l.daemon.snapshots(ctx, ns, s.Snapshotter)
		if err != nil {
			return err
		}
		for _, info := range infos {
			if err := l.add(ctx, s, committed{ns, s.Snapshotter, info.Name}, info); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep leaves all of a snapshotter as it was last told. Of its layers nothing
// is said.
func (l *storageLook) keep(name string, before []Storage) {
	for _, s := range before {
		if s.Snapshotter == name {
			l.all = append(l.all, s)
		}
	}
	for id, size := range l.known {
		if id.snapshotter == name {
			l.sizes[id] = size
		}
	}
	maps.DeleteFunc(l.layers, func(id committed, _ ref) bool { return id.snapshotter == name })
}

// add takes in one snapshot.
func (l *storageLook) add(ctx context.Context, s *Storage, id committed, info snapshots.Info) (err error) {
	delete(l.layers, id)
	switch {
	case info.Kind == snapshots.KindCommitted:
		size, known := l.known[id]
		if !known {
			if size, err = l.daemon.size(ctx, id); err != nil {
				return err
			}
		}
		l.sizes[id] = size
		s.Images += size
	case orphaned(info, l.used[id], l.now, l.orphanAge):
		layer, err := l.daemon.located(ctx, id.namespace, Layer{Snapshotter: id.snapshotter, Key: id.name})
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		s.Orphans = append(s.Orphans, Orphan{Namespace: id.namespace, Layer: layer})
	}
	return nil
}

func sortStorage(all []Storage) {
	for _, s := range all {
		slices.SortFunc(s.Orphans, func(a, b Orphan) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Layer.Key, b.Layer.Key))
		})
	}
	slices.SortFunc(all, func(a, b Storage) int { return cmp.Compare(a.Snapshotter, b.Snapshotter) })
}

// orphaned tells whether a snapshot is left over. A view is no orphan: nothing
// is written to it.
func orphaned(info snapshots.Info, used bool, now time.Time, age time.Duration) bool {
	return info.Kind == snapshots.KindActive && !used && now.Sub(info.Created) >= age
}

// snapshots lists what a snapshotter keeps for one namespace.
func (d *daemon) snapshots(ctx context.Context, namespace, snapshotter string) ([]snapshots.Info, error) {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, namespace), d.timeout)
	defer cancel()
	var infos []snapshots.Info
	err := d.client.SnapshotService(snapshotter).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		infos = append(infos, info)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list the snapshots of %s in namespace %s: %w", snapshotter, namespace, err)
	}
	return infos, nil
}

// size is that of a committed snapshot; 0 of one that is gone.
func (d *daemon) size(ctx context.Context, id committed) (int64, error) {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, id.namespace), d.timeout)
	defer cancel()
	usage, err := d.client.SnapshotService(id.snapshotter).Usage(ctx, id.name)
	if err != nil && !errdefs.IsNotFound(err) {
		return 0, fmt.Errorf("cannot ask snapshotter %s for the size of %s: %w", id.snapshotter, id.name, err)
	}
	return usage.Size, nil
}
