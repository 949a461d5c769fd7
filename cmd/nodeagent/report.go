package main

import (
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/top"
	"github.com/nodeagent/nodeagent/pkg/disk"
)

// diskReport is what the agent knows of its disks, for people. Sandboxes are
// left out: nothing runs in them.
func diskReport(node string, disks *disk.Watcher, now time.Time) top.Report {
	r := top.Report{Node: node, At: now}
	for _, v := range disks.Verdicts() {
		if !v.Container.Sandbox {
			r.Containers = append(r.Containers, containerReport(v, disks.Method(v.Container), now))
		}
	}
	for _, f := range disks.Filesystems() {
		r.Filesystems = append(r.Filesystems, top.Filesystem{
			Mount: f.Mount, Size: f.Usage.Size, Used: f.Usage.Used, Available: f.Usage.Avail, Reserve: f.Reserve, FullSeconds: untilSeconds(f.Full),
			Inodes: f.Usage.Inodes, InodesUsed: f.Usage.InodesUsed, InodesFree: f.Usage.InodesFree, InodeReserve: f.InodeReserve, InodesFullSeconds: untilSeconds(f.InodesFull),
		})
	}
	return r
}

func containerReport(v disk.Verdict, method string, now time.Time) top.Container {
	c := top.Container{
		Namespace: v.Container.Pod.Namespace, Pod: v.Container.Pod.Name, Container: disk.ContainerName(v.Container),
		ID:    v.Container.Namespace + "/" + v.Container.ID,
		Bytes: v.Usage.Bytes, Inodes: v.Usage.Inodes, Parts: map[string]int64{}, InodeParts: map[string]int64{},
		Rate: top.Rate(v.Rate), InodeRate: top.Rate(v.InodeRate),
		FullSeconds: untilSeconds(v.Until.Expected), Bound: string(v.Bound), Resource: string(v.Resource),
		Offender: v.Offender, Since: v.Since, Message: v.Message,
		Method: method, AgeSeconds: max(0, now.Sub(v.At).Seconds()),
	}
	for part, usage := range v.Parts {
		c.Parts[string(part)], c.InodeParts[string(part)] = usage.Bytes, usage.Inodes
	}
	for _, g := range v.Evidence {
		c.Growing = append(c.Growing, top.File{Path: g.Path, Files: g.Files, Bytes: g.Bytes, BytesPerSecond: g.Rate, FilesPerSecond: g.FileRate})
	}
	return c
}

// untilSeconds is nil for what does not grow: JSON knows no infinity.
func untilSeconds(d time.Duration) *float64 {
	if d == disk.Never {
		return nil
	}
	s := d.Seconds()
	return &s
}
