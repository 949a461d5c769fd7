package restart

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// World is all that one step is decided from, read at one moment. It is never
// changed after it was read.
type World struct {
	Now     time.Time
	Node    string // this agent's
	Restart *v1alpha1.Restart
	Target  *Target // nil: it is not there
	// Pods are the target's, terminating ones too, and those that a restart
	// took from it or made. With scope Pod of a DaemonSet those on spec.node.
	Pods []corev1.Pod
	// ReplicaSets are a Deployment's, old and new.
	ReplicaSets []appsv1.ReplicaSet
	// Services are the namespace's, and Slices what those of them send to that
	// select a pod which a restart drains or made. Read for the methods Release
	// and Copy alone.
	Services []corev1.Service
	Slices   []discoveryv1.EndpointSlice
	// Mode is what becomes of the Restart, and ModeSaid who said so. Read before
	// it is begun.
	Mode     Mode
	ModeSaid string
	// OnStall is what is done when it stalls, as it was written, and OnStallSaid
	// who said so. Read before it is begun, and once its deadline is over.
	OnStall     v1alpha1.OnStall
	OnStallSaid string
	// ApprovalTimeout is for how long it waits for an approval.
	ApprovalTimeout time.Duration
	// Ledger is what bounds the restarts of the cluster, read before it is
	// begun; nil: nothing does. Waits says why it cannot be begun now, if so.
	// One that has to wait longer is looked at without its workload.
	Ledger *Ledger
	Waits  string
	Again  time.Duration // look again then
	// Fence says why nothing of this target is restarted whatever its state;
	// empty if it may be.
	Fence string
	// Claims are the PersistentVolumeClaims the pod template names, by name.
	Claims map[string]corev1.PersistentVolumeClaim
	// Budgets are the namespace's PodDisruptionBudgets and Quotas its
	// ResourceQuotas; NodeState is the node of the pod that gave the reason, nil
	// if none. Read before it is begun.
	Budgets   []policyv1.PodDisruptionBudget
	Quotas    []corev1.ResourceQuota
	NodeState *corev1.Node
	// Written is what is known of the old pods' layers on this node, by uid.
	Written map[string]Written
	// Trouble is the last step's error, while it is being tried again.
	Trouble string
}

// Written is what a pod's containers have written.
type Written struct {
	Bytes int64 // when last known
	Held  bool  // it is still there
}

// oldPods are the pods that were there when the restart began and still are.
func (w World) oldPods() []corev1.Pod {
	old := map[string]bool{}
	for _, p := range w.Restart.Status.OldPods {
		old[p.UID] = true
	}
	return filterPods(w.Pods, func(p *corev1.Pod) bool { return old[string(p.UID)] })
}

// newPods are the pods that came since.
func (w World) newPods() []corev1.Pod {
	old := map[string]bool{}
	for _, p := range w.Restart.Status.OldPods {
		old[p.UID] = true
	}
	return filterPods(w.Pods, func(p *corev1.Pod) bool { return !old[string(p.UID)] && p.DeletionTimestamp == nil })
}

func filterPods(pods []corev1.Pod, keep func(*corev1.Pod) bool) []corev1.Pod {
	var kept []corev1.Pod
	for i := range pods {
		if keep(&pods[i]) {
			kept = append(kept, pods[i])
		}
	}
	return kept
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// overdue tells whether the deadline is over, counted from the start.
func (w World) overdue() bool {
	started := w.Restart.Status.Started
	return started != nil && !w.Now.Before(started.Add(deadline(w.Restart)))
}

func deadline(r *v1alpha1.Restart) time.Duration {
	if d := r.Spec.Deadline; d != nil && d.Duration > 0 {
		return d.Duration
	}
	return defaultDeadline
}
