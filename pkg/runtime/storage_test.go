package runtime

import (
	"context"
	"os"
	"path/filepath"
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
	got := s.Storage[0]
	if len(s.Storage) != 1 || got.Snapshotter != "overlayfs" || got.Images != images {
		t.Errorf("storage %+v, want %d bytes of images in overlayfs", s.Storage, images)
	}
	if len(got.Orphans) != 1 || got.Orphans[0].Key != "left-over" || got.Orphans[0].Upper != mounts[0].Source {
		t.Errorf("orphans %+v, want left-over at %s and not the container's own", got.Orphans, mounts[0].Source)
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
