package restart

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Mode says whether restarts are made at all.
type Mode string

// The modes.
const (
	ModeAct     Mode = "act"     // make Restarts and carry them out
	ModeApprove Mode = "approve" // a person has to approve each Restart
	ModeObserve Mode = "observe" // say in the Restart what would have been done
	ModeNever   Mode = "never"   // refuse them; by annotation alone
)

// Options is what a platform team decides about restarts. The zero value is
// completed with the defaults that each field names.
type Options struct {
	// Node is the node this agent runs on. Required.
	Node string
	// Namespace is the agents' own, in which they keep their Leases. Default
	// that of AgentPod, or nodeagent.
	Namespace string
	// Mode is act by default. Annotations of namespace and workload say otherwise.
	Mode Mode
	// OnStall is leave by default. Annotations of namespace and workload, and a
	// person's own Restart, say otherwise.
	OnStall v1alpha1.OnStall
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
	// ApprovalTimeout is for how long a Restart waits for a person's approval.
	// Default four hours.
	ApprovalTimeout time.Duration
	// Limits bounds how many restarts run at once. Default 5 in the cluster, 2
	// in a namespace, 30 begun within an hour.
	Limits Limits
	// Windows are when automatic restarts may begin. Default at any time.
	Windows Windows
	// Urgent is how soon a disk has to be full for a restart outside all
	// windows. Default 0: the windows hold.
	Urgent time.Duration
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
	defaultApprovalTimeout = 4 * time.Hour
	defaultNamespace       = "nodeagent"
)

func (o Options) withDefaults() Options {
	if o.Mode == "" {
		o.Mode = ModeAct
	}
	o.OnStall = cmp.Or(o.OnStall, v1alpha1.OnStallLeave)
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
	if o.Namespace == "" {
		o.Namespace = cmp.Or(o.AgentPod.Namespace, defaultNamespace)
	}
	o.ApprovalTimeout = cmp.Or(o.ApprovalTimeout, defaultApprovalTimeout)
	if o.Limits == (Limits{}) {
		o.Limits = Limits{Cluster: 5, Namespace: 2, Hourly: 30}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func (o Options) excluded(namespace string) bool {
	return slices.Contains(o.ExcludedNamespaces, namespace)
}
