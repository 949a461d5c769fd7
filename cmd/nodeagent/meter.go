package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

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
	support := supportOf(cfg)
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

// supportOf tells whether file events are followed.
func supportOf(cfg *v1alpha1.Config) disk.Support {
	if cfg.Disk.Method == v1alpha1.MethodWalk {
		return disk.Support{Why: "disk.method says so"}
	}
	return probeEvents(cfg.HostRoot)
}

// probeEvents tries it where containerd keeps its layers, or, where that is not
// known, at the root: each file system that layers are on is tried again when
// the first of them is measured.
func probeEvents(hostRoot string) disk.Support {
	folder := containerdRoot
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

func checkMeter(cfg *v1alpha1.Config) finding {
	s := supportOf(cfg)
	if s.OK {
		return finding{levelOK, "method", "events: " + s.Why}
	}
	return finding{levelInfo, "method", "walk: " + s.Why}
}
