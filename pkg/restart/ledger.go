package restart

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Ledger is what bounds the restarts of the whole cluster. It stands in one
// Lease, so that the slots of the cluster, those of each namespace and the
// hourly budget are taken in one write, which the API server refuses to all
// but one of those who read the same.
type Ledger struct {
	Slots []Slot  `json:"slots,omitempty"`
	Begun []Begun `json:"begun,omitempty"` // automatic restarts of the last hour

	paused *string               // why nothing is begun; nil: it may be
	lease  *coordinationv1.Lease // as it was read; nil: there is none yet
	dead   map[slotKey]bool      // slots that nobody keeps alive
}

// Slot is held by a Restart and not by an agent: who takes the Restart over
// has its slot as well.
type Slot struct {
	Restart    string    `json:"restart"` // namespace/name
	UID        types.UID `json:"uid"`
	Generation int64     `json:"generation"`
	Renewed    time.Time `json:"renewed"`
}

// Begun is a restart that counts against the hourly budget.
type Begun struct {
	Restart string    `json:"restart"`
	At      time.Time `json:"at"`
}

// Limits bounds what runs at once.
type Limits struct {
	Cluster, Namespace, Hourly int
}

// slotKey tells one restart of one Restart from the next.
type slotKey struct {
	uid        types.UID
	generation int64
}

func (s Slot) key() slotKey { return slotKey{s.UID, s.Generation} }

const budgetSpan = time.Hour

func slotOf(r *v1alpha1.Restart, now time.Time) Slot {
	return Slot{Restart: r.Namespace + "/" + r.Name, UID: r.UID, Generation: r.Generation, Renewed: now.UTC().Truncate(time.Second)}
}

// of tells whether the slot is this episode's of this Restart. The copy of a
// pod without owner changes nothing of it: metadata has no generation.
func (s Slot) of(r *v1alpha1.Restart) bool { return s.UID == r.UID && s.Generation == r.Generation }

func (s Slot) split() (namespace, name string) {
	namespace, name, _ = strings.Cut(s.Restart, "/")
	return namespace, name
}

func (l *Ledger) holds(r *v1alpha1.Restart) bool {
	return slices.ContainsFunc(l.Slots, func(s Slot) bool { return s.of(r) })
}

// full says in a sentence why a Restart cannot have a slot now; empty if it
// can. Dead slots are free.
func (l *Ledger) full(r *v1alpha1.Restart, limits Limits, now time.Time) string {
	live, inNamespace := 0, 0
	for _, s := range l.Slots {
		if l.dead[s.key()] {
			continue
		}
		live++
		if namespace, _ := s.split(); namespace == r.Namespace {
			inNamespace++
		}
	}
	switch {
	case live >= limits.Cluster:
		return fmt.Sprintf("Waits for its turn: %d of %d restarts run in the cluster.", live, limits.Cluster)
	case inNamespace >= limits.Namespace:
		return fmt.Sprintf("Waits for its turn: %d of %d restarts run in namespace %s.", inNamespace, limits.Namespace, r.Namespace)
	}
	if recent := recently(l.Begun, now); automatic(r) && len(recent) >= limits.Hourly {
		return fmt.Sprintf("Waits for its turn: %d of %d restarts were begun within the hour; the next may begin at %s.",
			len(recent), limits.Hourly, recent[len(recent)-limits.Hourly].At.Add(budgetSpan).UTC().Format(time.TimeOnly))
	}
	return ""
}

// with is the ledger with a slot for this Restart, and without dead ones and
// what is older than an hour.
func (l *Ledger) with(r *v1alpha1.Restart, now time.Time) Ledger {
	next := Ledger{Begun: recently(l.Begun, now)}
	for _, s := range l.Slots {
		if !l.dead[s.key()] && !s.of(r) {
			next.Slots = append(next.Slots, s)
		}
	}
	next.Slots = append(next.Slots, slotOf(r, now))
	if automatic(r) {
		next.Begun = append(next.Begun, Begun{r.Namespace + "/" + r.Name, now.UTC().Truncate(time.Second)})
	}
	return next
}

// renewed is the ledger with this Restart's slot told alive, or without it.
func (l *Ledger) renewed(r *v1alpha1.Restart, now time.Time, leaves bool) Ledger {
	next := Ledger{Begun: l.Begun}
	for _, s := range l.Slots {
		switch {
		case !s.of(r):
			next.Slots = append(next.Slots, s)
		case !leaves:
			next.Slots = append(next.Slots, slotOf(r, now))
		}
	}
	return next
}

// recently are those within the hour, the oldest first.
func recently(all []Begun, now time.Time) []Begun {
	var recent []Begun
	for _, b := range all {
		if now.Sub(b.At) < budgetSpan {
			recent = append(recent, b)
		}
	}
	slices.SortFunc(recent, func(a, b Begun) int { return a.At.Compare(b.At) })
	return recent
}

// automatic tells whether no person asked for it: then windows, the hourly
// budget and the cooldown hold it back.
func automatic(r *v1alpha1.Restart) bool { return r.Spec.Reason != v1alpha1.ReasonManual }

// readLedger reads the Lease. What cannot be read in it was not written by an
// agent and is an error: taking it for empty would free all slots.
func readLedger(lease *coordinationv1.Lease) (*Ledger, error) {
	l := &Ledger{lease: lease}
	if text := lease.Annotations[v1alpha1.AnnotationSlots]; text != "" {
		if err := json.Unmarshal([]byte(text), l); err != nil {
			return nil, fmt.Errorf("cannot read the annotation %s of Lease %s/%s (take it off to begin anew): %w",
				v1alpha1.AnnotationSlots, lease.Namespace, lease.Name, err)
		}
	}
	if why, ok := lease.Annotations[v1alpha1.AnnotationPaused]; ok {
		l.paused = &why
	}
	return l, nil
}

// into writes the ledger into the Lease that it was read from.
func (l Ledger) into(lease *coordinationv1.Lease) error {
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("cannot encode the slots: %w", err)
	}
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[v1alpha1.AnnotationSlots] = string(text)
	return nil
}
