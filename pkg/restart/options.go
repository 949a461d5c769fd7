package restart

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Mode says whether restarts are made at all.
type Mode string

// The modes.
const (
	ModeAct     Mode = "act"     // make Restarts and carry them out
	ModeObserve Mode = "observe" // say what would have been done, by Event
)

// Options is what a platform team decides about restarts. The zero value is
// completed with the defaults that each field names.
type Options struct {
	// Node is the node this agent runs on. Required.
	Node string
	// Mode is act by default.
	Mode Mode
	// ExcludedNamespaces are never touched.
	ExcludedNamespaces []string
	// Cooldown is for how long an ended Restart refuses the next automatic one
	// of the same workload. Default one hour.
	Cooldown time.Duration
	// RefusedCooldown is the same after a Restart that was refused: what stood
	// in the way (a rollout, a pause) may be gone soon. Default ten minutes, and
	// never longer than Cooldown.
	RefusedCooldown time.Duration
	// Deadline is written into each new Restart. Default ten minutes.
	Deadline time.Duration
	// AgentPod is the agent's own pod, which it never restarts. Zero when it
	// runs in none.
	AgentPod types.NamespacedName
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

const (
	defaultCooldown        = time.Hour
	defaultRefusedCooldown = 10 * time.Minute
	defaultDeadline        = 10 * time.Minute
)

func (o Options) withDefaults() Options {
	if o.Mode == "" {
		o.Mode = ModeAct
	}
	if o.Cooldown == 0 {
		o.Cooldown = defaultCooldown
	}
	if o.RefusedCooldown == 0 {
		o.RefusedCooldown = defaultRefusedCooldown
	}
	o.RefusedCooldown = min(o.RefusedCooldown, o.Cooldown)
	if o.Deadline == 0 {
		o.Deadline = defaultDeadline
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func (o Options) excluded(namespace string) bool {
	return slices.Contains(o.ExcludedNamespaces, namespace)
}
