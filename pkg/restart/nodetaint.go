package restart

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Filling is how near this node's disk is to being full.
type Filling struct {
	Sure    bool   // it is sure to be full soon
	Message string // by what, in a sentence for a person
	Near    bool   // it is not sure, and may be
}

// Disk tells of this node's disk. It is false until all of it was looked at.
type Disk interface {
	Filling() (f Filling, known bool)
}

// NodeTaint asks the scheduler to keep pods off this node while its disk
// fills, and so the pods that take the place of those that fill it. The taint
// in the API is all that it remembers.
//
//	off ──the disk is sure to be full soon,──→ on
//	 ↑    and the fence is proved              │
//	 └──nothing near for taintCalm, and no─────┘
//	    restart for this node's disk runs
type NodeTaint struct {
	enabled  bool
	disk     Disk
	patience time.Duration

	mu sync.Mutex
	tainter
	read bool // whether the node was
	taintState
}

const notFenced = "The disk of this node fills, and new pods are not kept off it: it has no taint " + v1alpha1.TaintDiskFilling + ", " + unfencedWhy

const (
	// taintCalm is longer than it takes to be sure of a container that leaks
	// since before the agent was started.
	taintCalm     = 2 * time.Minute
	taintPatience = 5 * time.Second // a restart may wait for it
)

// NewNodeTaint makes the keeper of one node's taint. Where it is not enabled it
// puts no taint on, and takes off one that was left.
func NewNodeTaint(c client.Client, o Options, enabled bool, disk Disk, events *Events, m *Metrics, log *slog.Logger) *NodeTaint {
	return &NodeTaint{tainter: newTainter(c, o, "Taint", events, m, log), enabled: enabled, disk: disk, patience: taintPatience}
}

// Run looks at the disk until ctx ends. At rest it costs the API server one
// request at the start.
func (n *NodeTaint) Run(ctx context.Context) {
	tick := time.NewTicker(taintLook)
	defer tick.Stop()
	for {
		n.Look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Look makes the taint what the disk asks for. Whoever asks for a restart
// because of the disk calls it before. What fails is tried again by Run.
func (n *NodeTaint) Look(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, n.patience)
	defer cancel()
	n.note(ctx, n.look(bounded), "taint of the node not looked after")
}

func (n *NodeTaint) look(ctx context.Context) error {
	if !n.read {
		node, err := n.get(ctx)
		if err != nil {
			return err
		}
		n.read = true
		n.set(tainted(node))
	}
	f, known := n.disk.Filling()
	if !known && n.enabled {
		return nil
	}
	var act taintAction
	n.taintState, act = n.next(f, n.enabled, n.now())
	switch act {
	case putTaint:
		if fenced, err := n.fenced(ctx, notFenced); err != nil || !fenced {
			return err
		}
		return n.put(ctx, f)
	case takeTaint:
		if serves, err := n.serves(ctx); err != nil || serves {
			return err
		}
		return n.take(ctx)
	}
	return nil
}

// taintState is what is known of the taint, and since when nothing asks for it.
type taintState struct {
	on   bool
	calm time.Time // zero: something does
}

type taintAction int

const (
	leaveTaint taintAction = iota
	putTaint
	takeTaint
)

// next decides. A taint that is on and that a person took off counts as on
// until the danger is over, so nobody is fought.
func (s taintState) next(f Filling, enabled bool, now time.Time) (taintState, taintAction) {
	switch {
	case !enabled && s.on:
		return s, takeTaint
	case !enabled:
		return s, leaveTaint
	case f.Sure && !s.on:
		return taintState{}, putTaint
	case f.Sure || f.Near || !s.on:
		s.calm = time.Time{}
		return s, leaveTaint
	case s.calm.IsZero():
		s.calm = now
	}
	if now.Sub(s.calm) < taintCalm {
		return s, leaveTaint
	}
	return s, takeTaint
}

func (n *NodeTaint) put(ctx context.Context, f Filling) error {
	return n.write(ctx, corev1.EventTypeWarning, EventFilling, fmt.Sprintf(
		"%s. New pods are kept off this node where they fit another: it has the taint %s.", strings.TrimSuffix(f.Message, "."), v1alpha1.TaintDiskFilling))
}

func (n *NodeTaint) take(ctx context.Context) error {
	return n.write(ctx, corev1.EventTypeNormal, EventNotFilling, fmt.Sprintf(
		"New pods are no longer kept off this node: its taint %s was taken off.", v1alpha1.TaintDiskFilling))
}

// write puts the taint on or takes it off and tells, unless that was done.
func (n *NodeTaint) write(ctx context.Context, kind, reason, message string) error {
	on := !n.on
	node, err := n.change(ctx, func(node *corev1.Node) ([]corev1.Taint, bool) {
		if tainted(node) == on {
			return nil, false
		}
		taints := slices.DeleteFunc(node.Spec.Taints, ours)
		if on {
			taints = append(taints, corev1.Taint{
				Key: v1alpha1.TaintDiskFilling, Effect: corev1.TaintEffectPreferNoSchedule, TimeAdded: new(metav1.NewTime(n.now())),
			})
		}
		return taints, true
	})
	if err != nil {
		return err
	}
	n.set(on)
	if tainted(node) != on { // as it was read
		n.tell(ctx, node, kind, reason, message)
	}
	return nil
}

// set says what the taint is in the API now.
func (n *NodeTaint) set(on bool) {
	n.taintState = taintState{on: on}
	n.metrics.tainted.Set(0)
	if on {
		n.metrics.tainted.Set(1)
	}
}

// serves tells whether a restart for this node's disk runs, whose pods are
// still to be kept off.
func (n *NodeTaint) serves(ctx context.Context) (bool, error) {
	if !n.enabled {
		return false, nil
	}
	var all v1alpha1.RestartList
	if err := n.client.List(ctx, &all, client.MatchingFields{"spec.node": n.node}); err != nil {
		return false, fmt.Errorf("cannot list Restarts: %w", err)
	}
	return slices.ContainsFunc(all.Items, func(r v1alpha1.Restart) bool {
		return r.Spec.Reason == v1alpha1.ReasonDiskFill && active(&r) && !fresh(&r) && !queued(&r)
	}), nil
}

func ours(t corev1.Taint) bool {
	return t.Key == v1alpha1.TaintDiskFilling && t.Effect == corev1.TaintEffectPreferNoSchedule
}

func tainted(node *corev1.Node) bool { return slices.ContainsFunc(node.Spec.Taints, ours) }

// preflightFilling says where the new pods are not to come.
func preflightFilling(w World) []Finding {
	if w.NodeState == nil || !tainted(w.NodeState) || w.Target.DaemonSet != nil {
		return nil
	}
	return []Finding{{Warns, fmt.Sprintf("New pods are kept off node %s, whose disk is filling, where they fit another.", w.NodeState.Name)}}
}
