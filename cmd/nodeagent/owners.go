package main

import (
	"context"
	"time"

	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

const (
	// ownersEvery is how often it is looked whether another pod is in danger:
	// its owner is to be known before an alert fires.
	ownersEvery = 2 * time.Second
	// ownersSoon: one that is full within it is in danger, an offender or not.
	ownersSoon = 15 * time.Minute
)

// tellOwners keeps the metric of the owners of pods that are about to fill a
// disk, until ctx ends.
func tellOwners(ctx context.Context, owners *restart.Owners, disks *disk.Watcher) error {
	tick := time.NewTicker(ownersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			danger, there := inDanger(disks.Verdicts())
			asking, cancel := context.WithTimeout(ctx, 10*time.Second)
			owners.Update(asking, danger, func(p restart.Pod) bool { return there[p] }, now)
			cancel()
		}
	}
}

// inDanger are the pods with a container that is an offender or soon full, and
// all pods that there are.
func inDanger(all []disk.Verdict) (danger []restart.Pod, there map[restart.Pod]bool) {
	there = make(map[restart.Pod]bool, len(all))
	for _, v := range all {
		p := restart.Pod{Namespace: v.Container.Pod.Namespace, Name: v.Container.Pod.Name, UID: v.Container.Pod.UID}
		there[p] = true
		if v.Offender || v.Until.Expected < ownersSoon {
			danger = append(danger, p)
		}
	}
	return danger, there
}
