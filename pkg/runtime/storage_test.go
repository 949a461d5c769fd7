package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

func TestOrphaned(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	old := now.Add(-time.Hour)
	for _, c := range []struct {
		name string
		info snapshots.Info
		used bool
		want bool
	}{
		{"nobody's", snapshots.Info{Kind: snapshots.KindActive, Created: old}, false, true},
		{"a container's", snapshots.Info{Kind: snapshots.KindActive, Created: old}, true, false},
		{"just made", snapshots.Info{Kind: snapshots.KindActive, Created: now.Add(-time.Minute)}, false, false},
		{"of an image", snapshots.Info{Kind: snapshots.KindCommitted, Created: old}, false, false},
		{"a view", snapshots.Info{Kind: snapshots.KindView, Created: old}, false, false},
	} {
		if got := orphaned(c.info, c.used, now, orphanAge); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}

func testStorage(t *testing.T, l *lab) {
	l.up(t)
	l.create(t, "k8s.io", "a", "overlayfs", []string{"x"})
	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	service := l.client.SnapshotService("overlayfs")
	mounts, err := service.Prepare(ctx, "left-over", "", snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "test"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Remove(namespaces.WithNamespace(t.Context(), "k8s.io"), "left-over") })
	if err := os.WriteFile(filepath.Join(mounts[0].Source, "x"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// No container of k8s.io is on native, which keeps no folder of its own for a layer.
	native := l.client.SnapshotService("native")
	copied, err := native.Prepare(ctx, "left-over-copy", "", snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "test"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = native.Remove(namespaces.WithNamespace(t.Context(), "k8s.io"), "left-over-copy") })
	if err := os.WriteFile(filepath.Join(copied[0].Source, "x"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var images int64
	err = service.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted {
			return nil
		}
		usage, err := service.Usage(ctx, info.Name)
		images += usage.Size
		return err
	})
	if err != nil || images == 0 {
		t.Fatalf("the image has %d bytes, %v", images, err)
	}
	w := l.watch(t, func(c *Config) { c.orphanAge = time.Nanosecond })
	s := await(t, w, "the storage", func(s Snapshot) bool { return s.Connected && len(s.Storage) > 0 })
	if len(s.Storage) != 2 {
		t.Fatalf("storage %+v, want that of native and overlayfs", s.Storage)
	}
	other, got := s.Storage[0], s.Storage[1]
	if got.Snapshotter != "overlayfs" || got.Images != images || !strings.HasPrefix(mounts[0].Source, got.Root+"/") {
		t.Errorf("storage %+v, want %d bytes of images in overlayfs", got, images)
	}
	want := Orphan{"k8s.io", Layer{Snapshotter: "overlayfs", Key: "left-over", Upper: mounts[0].Source}}
	if len(got.Orphans) != 1 || got.Orphans[0] != want {
		t.Errorf("orphans %+v, want %+v and not the container's own", got.Orphans, want)
	}
	want = Orphan{"k8s.io", Layer{Snapshotter: "native", Key: "left-over-copy", Source: copied[0].Source}}
	if other.Snapshotter != "native" || other.Images != 0 || len(other.Orphans) != 1 || other.Orphans[0] != want {
		t.Errorf("storage %+v, want the orphan %+v of a snapshotter that no container uses", other, want)
	}
	size, _, err := w.Usage(t.Context(), want.Namespace, want.Layer)
	if err != nil || size < 1<<20 {
		t.Errorf("it takes %d bytes, %v; want 1 MiB", size, err)
	}
}

// A snapshot that somebody removed under a container that stays: the next list
// tells that it has no layer, though its record still names one.
func testLayerRemoved(t *testing.T, l *lab) {
	l.up(t)
	l.create(t, "k8s.io", "a", "overlayfs", []string{"x"})
	w := l.watch(t, func(c *Config) { c.Relist = time.Second })
	await(t, w, "the container with its layer", func(s Snapshot) bool {
		return len(s.Containers) == 1 && s.Containers[0].Layer.Upper != ""
	})
	if err := l.client.SnapshotService("overlayfs").Remove(namespaces.WithNamespace(t.Context(), "k8s.io"), "a-layer"); err != nil {
		t.Fatal(err)
	}
	await(t, w, "the container without a layer", func(s Snapshot) bool {
		return len(s.Containers) == 1 && s.Containers[0].Layer.Upper == "" && s.Containers[0].Layer.Key == "a-layer"
	})
}
