package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc"
)

// TestHungSnapshotter: a real containerd with a snapshotter in another process,
// which is another containerd's, and in between the answers to Usage get lost.
// The layers of other snapshotters are measured on.
func TestHungSnapshotter(t *testing.T) {
	second := newContainerd(t)
	behind := second.client(t)
	t.Cleanup(func() { _ = behind.Close() })
	var asked atomic.Int64 // and not answered
	stopped := make(chan struct{})
	socket := filepath.Join(second.folder, "proxy.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, call *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if strings.HasSuffix(call.FullMethod, "/Usage") {
			asked.Add(1)
			defer asked.Add(-1)
			select {
			case <-ctx.Done():
			case <-stopped:
			}
			return nil, context.Canceled
		}
		return handle(namespaces.WithNamespace(ctx, "k8s.io"), request)
	}))
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(behind.SnapshotService("native")))
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		close(stopped)
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})

	d := newContainerd(t, fmt.Sprintf("[proxy_plugins.silent]\n  type = \"snapshot\"\n  address = %q\n", socket))
	for i := range 5 { // more than may be asked for at once
		d.addPodOn(t, "silent", fmt.Sprint("silent-0", i), "app")
	}
	layer := d.addPodOn(t, "native", "native-07", "app")[0].Source
	a := startAgent(t, d, "--standalone")
	for round := range 3 {
		write(t, filepath.Join(layer, fmt.Sprint("file-", round)), 1<<20)
		want := diskUse(t, layer)
		a.await("/metrics", "the layer of the snapshotter that answers", func(_ int, text string) bool {
			got, _ := sample(t, text, `nodeagent_container_disk_bytes{container="app",namespace="shop",part="layer",pod="native-07",uid="00000000-0000-0000-0000-000000000007"}`)
			return got == want && asked.Load() > 0
		})
	}
	if n := asked.Load(); n > 3 {
		t.Errorf("%d questions wait for the silent snapshotter, want 3 at most", n)
	}
}
