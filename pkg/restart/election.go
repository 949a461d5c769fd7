package restart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// LeaseLeader is the name of the Lease that the leader of all agents holds, in
// their own namespace.
const LeaseLeader = "restart-leader"

// tempo is how fast leaders and holders are found to be gone.
type tempo struct {
	renew   time.Duration // the leader renews its Lease so often
	expiry  time.Duration // and has lost it after so long without
	spread  time.Duration // candidates come forward within this time, not all at once
	orphan  time.Duration // a Restart whose holder says nothing for so long is taken over
	waiting time.Duration // the same of one that waits for its turn
	look    time.Duration // the leader looks for those so often
}

func defaultTempo() tempo {
	return tempo{
		renew: 20 * time.Second, expiry: time.Minute, spread: 10 * time.Second,
		orphan: time.Minute, waiting: 3 * queueRenew, look: 5 * time.Second,
	}
}

// election makes one of all agents their leader. Those that are not watch the
// Lease: with a thousand of them that costs the API server a line sent to each
// whenever the leader renews, and no request. Whether a leader is gone each
// judges by its own clock, from the last renewal that it saw.
type election struct {
	client client.WithWatch
	key    client.ObjectKey
	me     string // node_random: another process of the same node is another candidate
	tempo  tempo
	now    func() time.Time
	log    *slog.Logger
}

func newElection(c client.WithWatch, o Options, t tempo, log *slog.Logger) *election {
	return &election{
		client: c, key: client.ObjectKey{Namespace: o.Namespace, Name: LeaseLeader}, me: o.Node + "_" + rand.String(8),
		tempo: t, now: o.Now, log: log,
	}
}

// run calls lead whenever this agent leads, with a context that ends when it
// no longer does, until its own context ends.
func (e *election) run(ctx context.Context, lead func(context.Context)) {
	retry, expired := newBackoff(), ""
	for ctx.Err() == nil {
		lease, err := e.read(ctx)
		switch {
		case err != nil:
		case e.free(lease, expired):
			if lease, err = e.take(ctx, lease); err == nil {
				e.lead(ctx, lease, lead)
			}
		default:
			expired, err = e.follow(ctx, lease)
		}
		if err == nil {
			retry = newBackoff()
		} else if ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			e.log.Debug("no leader is known", "error", err)
			sleep(ctx, retry.Step())
		}
	}
}

// read gives nil where there is no Lease yet; all agents find that at once
// when they are installed, so each waits a moment of its own.
func (e *election) read(ctx context.Context) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	lease := &coordinationv1.Lease{}
	err := e.client.Get(ctx, e.key, lease)
	if apierrors.IsNotFound(err) {
		sleep(ctx, e.moment())
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read Lease %s: %w", e.key, err)
	}
	return lease, nil
}

func (e *election) moment() time.Duration {
	return time.Duration(mathrand.Int64N(int64(e.tempo.spread) + 1)) //nolint:gosec // spreads load
}

// free tells whether nobody leads: nobody did, the last one left, it was a
// process of this same node, which is gone, or it did not renew.
func (e *election) free(lease *coordinationv1.Lease, expired string) bool {
	if lease == nil || lease.ResourceVersion == expired {
		return true
	}
	holder := holderOf(lease)
	node, _, _ := strings.Cut(holder, "_")
	mine, _, _ := strings.Cut(e.me, "_")
	return holder == "" || node == mine
}

func holderOf(lease *coordinationv1.Lease) string {
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// take writes this agent into the Lease. It is refused when anybody did since.
func (e *election) take(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	next := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: e.key.Namespace, Name: e.key.Name}}
	if lease != nil {
		next = lease.DeepCopy()
	}
	now := metav1.NewMicroTime(e.now())
	if holderOf(next) != e.me {
		next.Spec.AcquireTime = &now
		next.Spec.LeaseTransitions = new(transitions(next) + 1)
	}
	next.Spec.HolderIdentity, next.Spec.RenewTime = &e.me, &now
	next.Spec.LeaseDurationSeconds = new(int32(e.tempo.expiry.Seconds()))
	if lease == nil {
		return next, e.client.Create(ctx, next)
	}
	return next, e.client.Update(ctx, next)
}

func transitions(lease *coordinationv1.Lease) int32 {
	if lease.Spec.LeaseTransitions == nil {
		return 0
	}
	return *lease.Spec.LeaseTransitions
}

// lead leads until the Lease is lost, and gives it back when the agent ends.
func (e *election) lead(ctx context.Context, lease *coordinationv1.Lease, lead func(context.Context)) {
	e.log.Info("this agent leads: it takes the Restarts that have no holder")
	leading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); lead(leading) }()
	defer func() { stop(); <-done }()
	last := time.Now()
	for leading.Err() == nil {
		sleep(leading, e.tempo.renew)
		if ctx.Err() != nil {
			stop()
			<-done
			e.leave(ctx, lease)
			return
		}
		next, err := e.take(ctx, lease)
		switch {
		case err == nil:
			lease, last = next, time.Now()
		case apierrors.IsConflict(err):
			e.log.Info("another agent leads")
			return
		case time.Since(last) >= e.tempo.expiry-e.tempo.renew:
			e.log.Warn("this agent leads no longer", "error", err)
			return
		}
	}
}

// leave lets another one lead at once.
func (e *election) leave(ctx context.Context, lease *coordinationv1.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	next := lease.DeepCopy()
	next.Spec.HolderIdentity = new("")
	if err := e.client.Update(ctx, next); err != nil {
		e.log.Debug("lease not given back", "error", err)
	}
}

var errLeaseWatch = errors.New("the watch of the leader's Lease ended at once")

// follow watches the Lease until it is free. It gives the resourceVersion at
// which it expired.
func (e *election) follow(ctx context.Context, lease *coordinationv1.Lease) (expired string, err error) {
	began := time.Now()
	watching, cancel := context.WithTimeout(ctx, relist+e.moment())
	defer cancel()
	var list coordinationv1.LeaseList
	watcher, err := e.client.Watch(watching, &list, client.InNamespace(e.key.Namespace), client.MatchingFields{"metadata.name": e.key.Name},
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: lease.ResourceVersion, AllowWatchBookmarks: true}})
	if err != nil {
		return "", fmt.Errorf("cannot watch Lease %s: %w", e.key, err)
	}
	defer watcher.Stop()
	patience := e.tempo.expiry + e.moment()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	version := lease.ResourceVersion
	for {
		select {
		case <-watching.Done():
			return "", nil
		case <-timer.C:
			return version, nil
		case happened, open := <-watcher.ResultChan():
			if !open || happened.Type == watch.Error {
				if time.Since(began) < shortWatch {
					return "", errLeaseWatch
				}
				return "", nil
			}
			now, ok := happened.Object.(*coordinationv1.Lease)
			switch {
			case !ok || happened.Type == watch.Bookmark:
				continue
			case happened.Type == watch.Deleted || holderOf(now) == "":
				sleep(watching, e.moment())
				return "", nil
			}
			version = now.ResourceVersion
			timer.Reset(patience)
		}
	}
}
