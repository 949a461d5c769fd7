package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// containerdRoot is where containerd keeps its layers unless told otherwise.
const containerdRoot = "/var/lib/containerd"

// chooseMeter follows file events where that works and may be, and walks
// elsewhere. events is nil then; else it has to be run and closed.
func chooseMeter(cfg *v1alpha1.Config, log *slog.Logger) (meter disk.Meter, events *disk.Events, err error) {
	support := supportOf(cfg, layersFolder(cfg))
	if !support.OK {
		log.Info("layers are walked", "part", "disk", "why", support.Why)
		return disk.NewWalker(cfg.HostRoot), nil, nil
	}
	events, err = disk.NewEvents(disk.EventsOptions{HostRoot: cfg.HostRoot, Logger: log.With("part", "disk")})
	if err != nil {
		return nil, nil, err
	}
	log.Info("layers are measured by file events", "part", "disk", "why", support.Why)
	return events, events, nil
}

// supportOf tells whether file events are followed in a folder.
func supportOf(cfg *v1alpha1.Config, folder string) disk.Support {
	if cfg.Disk.Method == v1alpha1.MethodWalk {
		return disk.Support{Why: "disk.method says so"}
	}
	return probeEvents(cfg.HostRoot, folder)
}

// probeEvents tries it in a folder, or, where that is not there, at the root: each
// file system that layers are on is tried again when the first of them is
// measured.
func probeEvents(hostRoot, folder string) disk.Support {
	if unix.Access(filepath.Join(hostRoot, folder), unix.F_OK) != nil {
		folder = "/"
	}
	return disk.ProbeEvents(hostRoot, folder)
}

// snapshotUsage asks containerd, over the connection there is.
func snapshotUsage(containers *runtime.Watcher) disk.SnapshotUsage {
	return func(ctx context.Context, namespace string, layer runtime.Layer) (disk.Usage, error) {
		size, inodes, err := containers.Usage(ctx, namespace, layer)
		if errors.Is(err, runtime.ErrNoLayer) {
			err = fmt.Errorf("%w: %w", disk.ErrGone, err)
		}
		return disk.Usage{Bytes: size, Inodes: inodes}, err
	}
}

// checkMeter tells how what is written to each file system will be measured, and
// why: that of the layers, and that of the kubelet's folder (emptyDirs) where it
// is another.
func checkMeter(cfg *v1alpha1.Config) []finding {
	layers := layersFolder(cfg)
	found := []finding{checkMethod(cfg, layers)}
	kubelet := kubeletRoot
	if k, err := kubeletEviction(filepath.Join(cfg.HostRoot, "proc"), cfg.Node); err == nil {
		kubelet = k.root
	}
	own, err := disk.MountPoints(cfg.HostRoot, "/proc", layers)
	if err != nil {
		return found
	}
	if other, err := disk.MountPoints(cfg.HostRoot, "/proc", kubelet); err == nil && !slices.Contains(own, other[0]) {
		found = append(found, checkMethod(cfg, kubelet))
	}
	return found
}

func checkMethod(cfg *v1alpha1.Config, folder string) finding {
	s := supportOf(cfg, folder)
	if s.OK {
		return finding{levelOK, "method", "events: " + s.Why}
	}
	return finding{levelInfo, "method", fmt.Sprintf("walk: below %s: %s", folder, s.Why)}
}
