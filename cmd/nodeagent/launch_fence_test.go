package main

import (
	"testing"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/rollout"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// TestLaunchLease: the fences let agents write the Lease that launching uses,
// though neither package knows the other.
func TestLaunchLease(t *testing.T) {
	if restart.LeaseLaunch != rollout.LeaseName {
		t.Errorf("the fences name %s, launching uses %s", restart.LeaseLaunch, rollout.LeaseName)
	}
}
