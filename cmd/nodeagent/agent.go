package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/top"
	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// runAgent wires the parts in the order in which facts flow through them, runs
// them until ctx ends or one of them fails, and waits for all.
func runAgent(ctx context.Context, cfg *v1alpha1.Config, o runOptions, log *slog.Logger) error {
	if err := checkSocket(cfg.Containerd.Socket); err != nil {
		return err
	}
	if err := disk.CheckHostRoot(cfg.HostRoot); err != nil {
		return err
	}
	listener, err := listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	log.Info("nodeagent starts", "version", buildVersion(), "node", cfg.Node, "listen", listener.Addr().String(), "doing", describe(cfg, o))

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())

	containers, err := runtime.NewWatcher(runtimeConfig(cfg, reg, log))
	if err != nil {
		return err
	}

	var api *apiParts
	var limits disk.Limiter
	if !o.standalone {
		if api, err = newAPIParts(cfg, o, reg, log); err != nil {
			return err
		}
		limits = api.pods
	}

	recorder, err := o.record.open(log)
	if err != nil {
		return err
	}
	meter, events, err := chooseMeter(cfg, log)
	if err != nil {
		return err
	}
	watch := diskOptions(cfg, containers, meter, limits, reg, log)
	watch.Recorder = recorder
	disks, err := disk.NewWatcher(watch)
	if err != nil {
		return err
	}

	var launch *launchParts
	var local []func(*http.ServeMux)
	var routes []route
	if cfg.Launch.Enabled {
		var pods *nodePods
		if api != nil {
			pods = api.pods
		}
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("cannot tell where this program is: %w", err)
		}
		if launch, err = newLaunchParts(cfg, o, self, pods, reg, log); err != nil {
			return err
		}
		local, routes = append(local, launch.handle), append(routes, route{targetsPath, launch.serveTargets})
		if api != nil {
			api.leads = append(api.leads, launch.lead)
			api.role = launch.role(cfg)
		}
	}

	ready := []readiness{
		{"containerd", connected(containers)},
		{"disk", measured(disks)},
	}
	if api != nil {
		ready = append(ready, readiness{"pods", api.pods.synced})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return containers.Run(ctx) })
	g.Go(func() error { return watchDisks(ctx, containers, disks) })
	if launch != nil {
		g.Go(func() error { return launch.run(ctx) })
	}
	if recorder != nil {
		g.Go(func() error { return recorder.Run(ctx) })
	}
	if events != nil {
		defer events.Close()
		g.Go(func() error { events.Run(ctx); return nil })
	}
	if api == nil {
		g.Go(func() error { return logOffences(ctx, disks, log) })
	} else {
		g.Go(func() error { return api.run(ctx, disks) })
	}
	g.Go(func() error { return serve(ctx, listener, newHandler(reg, ready, log, routes...)) })
	g.Go(func() error {
		return serveLocal(ctx, cfg.Socket, func() top.Report { return diskReport(cfg.Node, disks, time.Now()) }, log, local...)
	})
	g.Go(func() error { return keepSmall(ctx, log) })
	err = g.Wait()
	log.Info("nodeagent ends")
	return err
}

func runtimeConfig(cfg *v1alpha1.Config, reg prometheus.Registerer, log *slog.Logger) runtime.Config {
	return runtime.Config{
		Socket: cfg.Containerd.Socket, Namespaces: cfg.Containerd.Namespaces,
		Logger: log.With("part", "runtime"), Registerer: reg,
	}
}

func diskOptions(cfg *v1alpha1.Config, containers *runtime.Watcher, m disk.Meter, l disk.Limiter, reg prometheus.Registerer, log *slog.Logger) disk.Options {
	reserves := chooseReserves(cfg, func() string { return layersFolder(cfg) })
	log.Info("what has to stay free on a file system", "part", "disk", "reserve", reserves.text())
	return disk.Options{
		Containers: func() []runtime.Container { return containers.Containers().Containers },
		Storage:    func() []runtime.Storage { return containers.Containers().Storage },
		Meter:      m, Snapshots: disk.NewSnapshotMeter(cfg.HostRoot, snapshotUsage(containers)), OpenFiles: disk.NewOpenFileScanner(filepath.Join(cfg.HostRoot, "proc")),
		Limits: l, Policy: diskPolicy(cfg, reserves), HostRoot: cfg.HostRoot, Node: cfg.Node, Share: cfg.Disk.CPUShare(),
		Registerer: reg, Logger: log.With("part", "disk"),
	}
}

// diskPolicy is what the configuration makes an offence, with what has to stay
// free.
func diskPolicy(cfg *v1alpha1.Config, r reserves) disk.Policy {
	policy := disk.DefaultPolicy()
	policy.Reserve, policy.InodeReserve, policy.Filesystems = r.bytes, r.inodes, r.own
	policy.Horizon = cfg.Disk.Horizon.Duration
	minimum := resource.MustParse(cfg.Disk.Minimum)
	policy.MinBytes = minimum.Value()
	return policy
}

// watchDisks begins once containerd has told of all containers: before that
// there would be nothing to measure, and all of it soon be done.
func watchDisks(ctx context.Context, containers *runtime.Watcher, disks *disk.Watcher) error {
	for {
		changed := containers.Changed()
		if !containers.Containers().Confirmed.IsZero() {
			return disks.Run(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// connected is false until containerd has told of all containers once. It
// stays true while containerd is away: the last figures are served on.
func connected(w *runtime.Watcher) func() error {
	return func() error {
		if w.Containers().Confirmed.IsZero() {
			return errors.New("its containers were not yet listed")
		}
		return nil
	}
}

func measured(w *disk.Watcher) func() error {
	return func() error {
		if !w.Ready() {
			return errors.New("not every container was measured yet")
		}
		return nil
	}
}

func buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "nodeagent_build_info", Help: "Always 1; the label tells the version.",
		ConstLabels: prometheus.Labels{"version": buildVersion()},
	})
	g.Set(1)
	return g
}

// logOffences is all that a standalone agent does about an offence.
func logOffences(ctx context.Context, disks *disk.Watcher, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case v, more := <-disks.Offences():
			if !more {
				return nil
			}
			logOffence(log, v)
		}
	}
}

func logOffence(log *slog.Logger, v disk.Verdict) {
	log.Warn("a container fills the disk", "container", disk.Name(v.Container), "namespace", v.Container.Pod.Namespace,
		"bound", string(v.Bound), "message", v.Message, "files", evidence(v))
}

func evidence(v disk.Verdict) []string {
	files := make([]string, 0, len(v.Evidence))
	for _, g := range v.Evidence {
		what := ""
		if g.Files > 0 {
			what = fmt.Sprintf("%d files, %.0f more/s, ", g.Files, g.FileRate)
		}
		files = append(files, fmt.Sprintf("%q %s%d B, %.0f B/s", g.Path, what, g.Bytes, g.Rate))
	}
	return files
}
