package restart

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// LeaseSlots is the name of the Lease that holds the Ledger, in the agents'
// own namespace.
const LeaseSlots = "restart-slots"

const (
	// slotRenew is how often a slot is told to be alive.
	slotRenew = 30 * time.Second
	// slotDoubt is after how long without that its Restart is looked at.
	slotDoubt = 45 * time.Second
	// slotExpiry is after how long it is free whatever its Restart says. The
	// leader has long taken that over by then, and the slot with it.
	slotExpiry = 5 * time.Minute
	slotTries  = 5
)

// slots reads and writes the Ledger. How old a renewal is it judges by its own
// clock alone, from when it first saw it: nodes' clocks differ.
type slots struct {
	client client.Client
	key    client.ObjectKey
	now    func() time.Time

	mu   sync.Mutex
	seen map[slotKey]sight
}

// sight is a renewal, and since when it is the last one.
type sight struct {
	renewed, since time.Time
}

func newSlots(c client.Client, o Options) *slots {
	return &slots{
		client: c, now: o.Now, seen: map[slotKey]sight{},
		key: client.ObjectKey{Namespace: o.Namespace, Name: LeaseSlots},
	}
}

// read costs one request, and one more for each slot that was not renewed for
// long.
func (s *slots) read(ctx context.Context) (*Ledger, error) {
	lease := &coordinationv1.Lease{}
	err := s.client.Get(ctx, s.key, lease)
	if apierrors.IsNotFound(err) {
		return &Ledger{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read Lease %s: %w", s.key, err)
	}
	l, err := readLedger(lease)
	if err != nil {
		return nil, err
	}
	l.dead = map[slotKey]bool{}
	for slot, age := range s.ages(l) {
		if age >= slotExpiry {
			l.dead[slot.key()] = true
		} else if age >= slotDoubt {
			if l.dead[slot.key()], err = s.over(ctx, slot); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

// ages is for how long no renewal of each slot was seen.
func (s *slots) ages(l *Ledger) map[Slot]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, ages, seen := s.now(), map[Slot]time.Duration{}, map[slotKey]sight{}
	for _, slot := range l.Slots {
		last, ok := s.seen[slot.key()]
		if !ok || !last.renewed.Equal(slot.Renewed) {
			last = sight{slot.Renewed, now}
		}
		seen[slot.key()], ages[slot] = last, now.Sub(last.since)
	}
	s.seen = seen
	return ages
}

// over tells whether the restart that has a slot has ended.
func (s *slots) over(ctx context.Context, slot Slot) (bool, error) {
	namespace, name := slot.split()
	var r v1alpha1.Restart
	err := s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &r)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read Restart %s, which has a slot: %w", slot.Restart, err)
	}
	return !slot.of(&r) || !active(&r), nil
}

// take gives a Restart its slot in the ledger that was read. It is refused
// when anybody wrote there since.
func (s *slots) take(ctx context.Context, l *Ledger, r *v1alpha1.Restart) error {
	if err := s.write(ctx, l, l.with(r, s.now())); err != nil {
		return fmt.Errorf("cannot take a slot for Restart %s/%s: %w", r.Namespace, r.Name, err)
	}
	return nil
}

// keep tells that a Restart's slot is alive, or gives it back.
func (s *slots) keep(ctx context.Context, r *v1alpha1.Restart, leaves bool) error {
	var err error
	for range slotTries {
		lease := &coordinationv1.Lease{}
		if err = s.client.Get(ctx, s.key, lease); err != nil {
			break
		}
		var l *Ledger
		if l, err = readLedger(lease); err != nil || !l.holds(r) {
			break
		}
		if err = s.write(ctx, l, l.renewed(r, s.now(), leaves)); !apierrors.IsConflict(err) {
			break
		}
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("cannot renew the slot of Restart %s/%s: %w", r.Namespace, r.Name, err)
	}
	return nil
}

func (s *slots) write(ctx context.Context, l *Ledger, next Ledger) error {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: s.key.Name}}
	if l.lease != nil {
		lease = l.lease.DeepCopy()
	}
	if err := next.into(lease); err != nil {
		return err
	}
	if l.lease == nil {
		return s.client.Create(ctx, lease)
	}
	return s.client.Update(ctx, lease)
}
