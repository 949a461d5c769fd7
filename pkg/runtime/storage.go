package runtime

import (
	"cmp"
	"context"
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
	// Orphans are snapshots that can be written to and that no container uses:
	// left over by something that did not clean up. Those without a plain
	// folder are not among them.
	Orphans []Layer
}

func (s Storage) equal(other Storage) bool {
	return s.Snapshotter == other.Snapshotter && s.Images == other.Images && slices.Equal(s.Orphans, other.Orphans)
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

// lookAtStorage asks the snapshotters of the containers that are known for all
// their snapshots. sizes are those that are known from the last time. It costs
// a call for each image layer that is new, and never the walk that containerd
// makes for the usage of an active snapshot.
func lookAtStorage(ctx context.Context, d *daemon, containers set, sizes map[committed]int64, orphanAge time.Duration) (*storageLook, error) {
	l := &storageLook{
		daemon: d, orphanAge: orphanAge, now: time.Now(), known: sizes,
		layers: make(map[committed]ref), used: make(map[committed]bool, len(containers)),
		sizes: make(map[committed]int64, len(sizes)),
	}
	asked := make(map[committed]bool)
	for r, c := range containers {
		id := committed{c.Namespace, c.Layer.Snapshotter, c.Layer.Key}
		l.used[id] = true
		if c.Layer.Upper != "" || c.Layer.Source != "" {
			l.layers[id] = r
		}
		if c.Layer.Snapshotter != "" {
			asked[committed{c.Namespace, c.Layer.Snapshotter, ""}] = true
		}
	}
	all := make(map[string]*Storage)
	for a := range asked {
		if all[a.snapshotter] == nil {
			all[a.snapshotter] = &Storage{Snapshotter: a.snapshotter}
		}
		infos, err := d.snapshots(ctx, a.namespace, a.snapshotter)
		if err != nil {
			return nil, err
		}
		for _, info := range infos {
			if err := l.add(ctx, all[a.snapshotter], committed{a.namespace, a.snapshotter, info.Name}, info); err != nil {
				return nil, err
			}
		}
	}
	l.all, l.bare = sortedStorage(all), slices.Collect(maps.Values(l.layers))
	return l, nil
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
		layer, err := l.daemon.orphan(ctx, id)
		if err != nil {
			return err
		}
		if layer.Upper != "" {
			s.Orphans = append(s.Orphans, layer)
		}
	}
	return nil
}

func sortedStorage(all map[string]*Storage) []Storage {
	out := make([]Storage, 0, len(all))
	for _, s := range all {
		slices.SortFunc(s.Orphans, func(a, b Layer) int { return cmp.Compare(a.Upper, b.Upper) })
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Storage) int { return cmp.Compare(a.Snapshotter, b.Snapshotter) })
	return out
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

// orphan completes an orphan's layer; without a folder when it is gone.
func (d *daemon) orphan(ctx context.Context, id committed) (Layer, error) {
	layer := Layer{Snapshotter: id.snapshotter, Key: id.name}
	layer, err := d.located(ctx, id.namespace, layer)
	if err != nil && !errdefs.IsNotFound(err) {
		return Layer{}, err
	}
	return layer, nil
}
