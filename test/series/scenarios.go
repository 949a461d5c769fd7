package main

import (
	"context"
	"time"

	"github.com/nodeagent/nodeagent/pkg/disk"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// scenario is one series. What its verdict must be stands beside the
// recordings, in want.json.
type scenario struct {
	name   string
	disk   int64         // size of its file system
	inodes int           // of it; 0: as many as mkfs makes
	limits limits        // of the pod
	joined time.Duration // how long it ran before the watcher came
	span   time.Duration
	write  func(context.Context) error
}

type limits struct{ container, pod int64 }

// Limits implements disk.Limiter.
func (l limits) Limits(string) disk.Limits {
	out := disk.Limits{Pod: l.pod}
	if l.container > 0 {
		out.Containers = map[string]int64{"app": l.container}
	}
	return out
}

// scenarios: the large disks are what most nodes have; the small ones have the
// room for a few minutes at the same rates, where it is hard to tell.
func scenarios() []scenario {
	return []scenario{
		{name: "slow-leak", disk: gib / 2, span: 8 * time.Minute, write: slowLeak},
		{name: "fast-leak", disk: 2 * gib, span: 5 * time.Minute, write: fastLeak},
		{name: "leak-to-limit", disk: 24 * gib, limits: limits{container: 200 * mib}, span: 7 * time.Minute, write: limitLeak},
		{name: "leak-to-pod-limit", disk: 24 * gib, limits: limits{pod: 200 * mib}, span: 7 * time.Minute, write: limitLeak},
		{name: "leak-in-churn", disk: gib, span: 8 * time.Minute, write: leakInChurn},
		{name: "many-small-writers", disk: gib, inodes: 65536, span: 8 * time.Minute, write: manySmallWriters},
		{name: "burst-and-stop", disk: 4 * gib, span: 5 * time.Minute, write: burstAndStop},
		{name: "startup-fill", disk: 32 * gib, span: 4 * time.Minute, write: startupFill},
		{name: "startup-fill-small-disk", disk: 8 * gib, span: 4 * time.Minute, write: startupFill},
		{name: "saw-tooth", disk: 24 * gib, span: 6 * time.Minute, write: sawTooth},
		{name: "saw-tooth-small-disk", disk: 2 * gib, span: 6 * time.Minute, write: sawTooth},
		{name: "saw-tooth-joined-late", disk: 2 * gib, joined: 55 * time.Second, span: 6 * time.Minute, write: sawTooth},
		{name: "rotation-with-gzip", disk: 24 * gib, span: 6 * time.Minute, write: rotationWithGzip},
		{name: "rotation-with-gzip-small-disk", disk: 4 * gib, span: 6 * time.Minute, write: rotationWithGzip},
		{name: "clean-up-job", disk: 24 * gib, span: 6 * time.Minute, write: cleanUpJob},
		{name: "clean-up-job-small-disk", disk: 3 * gib / 2, span: 6 * time.Minute, write: cleanUpJob},
	}
}

// slowLeak logs 1 MiB/s from its 30th second on.
func slowLeak(ctx context.Context) error {
	wait(ctx, 30*time.Second)
	return appendTo(ctx, "debug.log", mib, 1<<50)
}

// fastLeak logs 10 MiB/s from its 60th second on.
func fastLeak(ctx context.Context) error {
	wait(ctx, 60*time.Second)
	return appendTo(ctx, "debug.log", 10*mib, 1<<50)
}

// limitLeak logs half a MiB/s from its 20th second on.
func limitLeak(ctx context.Context) error {
	wait(ctx, 20*time.Second)
	return appendTo(ctx, "debug.log", mib/2, 1<<50)
}

// leakInChurn logs 1 MiB/s, while temporary files of 30 MiB come and go.
func leakInChurn(ctx context.Context) error {
	wait(ctx, 20*time.Second)
	return all(ctx,
		func(ctx context.Context) error { return appendTo(ctx, "debug.log", mib, 1<<50) },
		func(ctx context.Context) error {
			for ctx.Err() == nil {
				if err := appendTo(ctx, "upload.tmp", 15*mib, 30*mib); err != nil {
					return err
				}
				wait(ctx, 3*time.Second)
				if err := remove("upload.tmp"); err != nil {
					return err
				}
				wait(ctx, 5*time.Second)
			}
			return nil
		})
}

// manySmallWriters is 20 processes that make 5 files a second each, of 2 KiB.
func manySmallWriters(ctx context.Context) error {
	wait(ctx, 10*time.Second)
	return processes(ctx, 20, `i=0; while :; do echo "$PAYLOAD" > session-$$-$i; i=$((i+1)); sleep 0.2; done`)
}

// burstAndStop writes 100 MiB within two seconds, and again two minutes later.
func burstAndStop(ctx context.Context) error {
	wait(ctx, 60*time.Second)
	if err := appendTo(ctx, "export.csv", 50*mib, 100*mib); err != nil {
		return err
	}
	wait(ctx, 2*time.Minute)
	if err := appendTo(ctx, "export-2.csv", 50*mib, 100*mib); err != nil {
		return err
	}
	wait(ctx, time.Hour)
	return nil
}

// startupFill unpacks 400 MiB within its first 40 s, then logs a little.
func startupFill(ctx context.Context) error {
	for i := range 40 {
		if err := appendTo(ctx, "cache-"+string(rune('A'+i/10))+string(rune('0'+i%10)), 10*mib, 10*mib); err != nil {
			return err
		}
	}
	return appendTo(ctx, "app.log", kib, 1<<50)
}

// sawTooth logs 2 MiB/s and rotates at 50 MiB, with one old file.
func sawTooth(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := appendTo(ctx, "app.log", 2*mib, 50*mib); err != nil {
			return err
		}
		if err := rename("app.log", "app.log.1"); err != nil {
			return err
		}
	}
	return nil
}

// rotationWithGzip logs 2 MiB/s, rotates at 40 MiB and compresses with gzip, as
// logrotate does; three old files stay.
func rotationWithGzip(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := appendTo(ctx, "app.log", 2*mib, 40*mib); err != nil {
			return err
		}
		for _, move := range [][2]string{{"app.log.2.gz", "app.log.3.gz"}, {"app.log.1.gz", "app.log.2.gz"}, {"app.log", "app.log.1"}} {
			if err := rename(move[0], move[1]); err != nil {
				return err
			}
		}
		if err := command(ctx, ".", "sh", "-c", "gzip -f app.log.1 &"); err != nil {
			return err
		}
	}
	return nil
}

// cleanUpJob fills a cache by 1 MiB/s; a job, once a minute, removes what is
// older than half a minute.
func cleanUpJob(ctx context.Context) error {
	return all(ctx,
		func(ctx context.Context) error {
			for i := 0; ctx.Err() == nil; i++ {
				if err := appendTo(ctx, "cache-"+time.Now().Format("150405.000"), mib, mib); err != nil {
					return err
				}
			}
			return nil
		},
		func(ctx context.Context) error {
			for wait(ctx, time.Minute) {
				if err := command(ctx, ".", "find", ".", "-name", "cache-*", "-not", "-newermt", "30 seconds ago", "-delete"); err != nil {
					return err
				}
			}
			return nil
		})
}
