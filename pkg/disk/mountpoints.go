//go:build linux

package disk

import (
	"context"
	"fmt"
	"time"
)

// mountPatience is how long a file system may take to tell its device.
const mountPatience = 10 * time.Second

// MountPoints tells where the file system of a folder of the host is mounted, as
// the host sees it: by these names Policy.Filesystems, metrics and verdicts know
// it. proc is where this process's own proc is mounted.
func MountPoints(hostRoot, proc, folder string) ([]string, error) {
	all, err := readMounts(proc)
	if err != nil {
		return nil, err
	}
	var device uint64
	ask := func() { _, device, err = filesystemOf(hostRoot, folder) }
	if hung := newWatchdog(mountPatience).do(context.Background(), []string{"the file system of " + folder}, ask); hung != nil {
		return nil, hung
	}
	if err != nil {
		return nil, fmt.Errorf("cannot tell the file system of %s: %w", folder, err)
	}
	own := all.at(hostJoin(hostRoot, folder), device)
	points := []string{hostPath(hostRoot, own.point)}
	for _, m := range all {
		if m.device == own.device && m.point != own.point && below(m.point, hostRoot) {
			points = append(points, hostPath(hostRoot, m.point))
		}
	}
	return points, nil
}
