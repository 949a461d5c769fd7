package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// worker tells one receiver.
type worker struct {
	*Notifier
	name     string
	receiver receiver
	seen     *restarts
	routes   *router
	limit    *rate.Limiter

	// What the API does not tell, or not yet. All of it may be lost.
	told      map[types.UID]v1alpha1.NotifiedRecord // what was sent, and perhaps not written down
	unwritten map[types.UID]bool                    // what certainly is not
	sent      map[types.UID]time.Time               // when, for what is told again and again
	tries     map[types.UID]try                     // what failed
}

// try is how often a message failed, and when it is sent next.
type try struct {
	failures int
	next     time.Time
}

const (
	// perSecond and burst are what one receiver is told at most: chat services
	// take about one message a second.
	perSecond = 1
	burst     = 5

	firstPause   = time.Second
	longestPause = 5 * time.Minute
)

func newWorker(n *Notifier, r v1alpha1.Receiver, seen *restarts, routes *router) *worker {
	return &worker{
		Notifier: n, name: r.Name, receiver: newReceiver(r), seen: seen, routes: routes,
		limit: rate.NewLimiter(perSecond, burst),
		told:  map[types.UID]v1alpha1.NotifiedRecord{}, unwritten: map[types.UID]bool{},
		sent: map[types.UID]time.Time{}, tries: map[types.UID]try{},
	}
}

// run tells what is due, and waits for what may be.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		all, changed := w.seen.list()
		w.forget(all)
		r, in, wait := w.next(all, w.now())
		if r == nil {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-changed:
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		w.deal(ctx, r, in)
	}
}

// next is the oldest incident that is due, or how long there will be none.
func (w *worker) next(all []*v1alpha1.Restart, now time.Time) (*v1alpha1.Restart, Incident, time.Duration) {
	wait := time.Hour
	var found *v1alpha1.Restart
	var oldest Incident
	for _, r := range all {
		in := incidentOf(r, w.config.Graph)
		at, ok := w.dueAt(r, in, now)
		switch {
		case !ok:
		case at.After(now):
			wait = min(wait, at.Sub(now))
		case found == nil || cmp.Compare(in.Asked.UnixNano(), oldest.Asked.UnixNano()) < 0:
			found, oldest = r, in
		}
	}
	return found, oldest, wait
}

// dueAt is when an incident has to be told next, if ever.
func (w *worker) dueAt(r *v1alpha1.Restart, in Incident, now time.Time) (time.Time, bool) {
	record := w.record(r)
	at := now
	switch every := w.receiver.again(); {
	case due(in, record, now), w.unwritten[r.UID]:
	case every > 0 && record.Generation == in.generation && open(in, now):
		at = w.sent[r.UID].Add(every)
	default:
		return time.Time{}, false
	}
	if t, ok := w.tries[r.UID]; ok && t.next.After(at) {
		at = t.next
	}
	return at, true
}

// record is what was told last: of what the API says and what is remembered
// here, the later.
func (w *worker) record(r *v1alpha1.Restart) v1alpha1.NotifiedRecord {
	stands, sent := r.Status.Notified[w.name], w.told[r.UID]
	order := func(n v1alpha1.NotifiedRecord) []int { return []int{int(n.Generation), rank(n.Stage)} }
	if slices.Compare(order(sent), order(stands)) > 0 {
		return sent
	}
	return stands
}

// deal sends one message and writes down that it was sent. What fails is tried
// again later; nothing else waits for it.
func (w *worker) deal(ctx context.Context, r *v1alpha1.Restart, in Incident) {
	err := w.tell(ctx, r, in)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		delete(w.tries, r.UID)
		return
	}
	t := w.tries[r.UID]
	t.next = w.now().Add(min(firstPause<<min(t.failures, 16), longestPause))
	t.failures++
	w.tries[r.UID] = t
	w.counter.WithLabelValues(w.name, failed).Inc()
	w.log.Warn("people not told of a restart; it is tried again", "receiver", w.name, "incident", in.ID, "stage", in.Stage, "failures", t.failures, "error", err)
}

func (w *worker) tell(ctx context.Context, r *v1alpha1.Restart, in Incident) error {
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	before := w.record(r)
	if w.unwritten[r.UID] && !due(in, before, w.now()) {
		return w.writeDown(ctx, r, before)
	}
	record := v1alpha1.NotifiedRecord{Generation: in.generation, Stage: in.Stage, At: &metav1.Time{Time: w.now()}}
	goes, err := w.routes.leads(ctx, in, r.Spec.Target, w.name)
	if err != nil {
		return err
	}
	if !goes {
		w.told[r.UID] = record // is not looked at again before the next stage
		w.sent[r.UID] = w.now().Add(alertFor)
		return nil
	}
	thread := ""
	if before.Generation == in.generation {
		thread = before.Thread
	}
	if err := w.limit.Wait(ctx); err != nil { // for a message alone: what leads to others takes nobody's turn
		return err
	}
	if record.Thread, err = w.receiver.send(ctx, in, thread); err != nil {
		return err
	}
	w.counter.WithLabelValues(w.name, delivered).Inc()
	w.sent[r.UID] = w.now()
	repeated := before.Generation == record.Generation && before.Stage == record.Stage
	w.told[r.UID] = record
	if repeated {
		return nil
	}
	return w.writeDown(ctx, r, record)
}

// writeDown patches this receiver's record and nothing else, whatever was
// written to the Restart meanwhile, unless it is another one by now.
func (w *worker) writeDown(ctx context.Context, r *v1alpha1.Restart, record v1alpha1.NotifiedRecord) error {
	type object = map[string]any
	raw, err := json.Marshal(object{
		"metadata": object{"uid": r.UID},
		"status":   object{"notified": object{w.name: record}},
	})
	if err != nil {
		return fmt.Errorf("cannot encode it: %w", err)
	}
	into := &v1alpha1.Restart{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.Name}}
	err = w.client.Status().Patch(ctx, into, client.RawPatch(types.MergePatchType, raw))
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // the last two: it is gone
		delete(w.unwritten, r.UID)
		return nil
	}
	w.unwritten[r.UID] = true
	return fmt.Errorf("it was told, and that cannot be written down: %w", err)
}

// forget drops what is remembered of Restarts that are gone.
func (w *worker) forget(all []*v1alpha1.Restart) {
	if len(w.told)+len(w.tries) <= 2*len(all)+64 {
		return
	}
	there := map[types.UID]bool{}
	for _, r := range all {
		there[r.UID] = true
	}
	for uid := range w.told {
		if !there[uid] {
			delete(w.told, uid)
			delete(w.sent, uid)
			delete(w.unwritten, uid)
		}
	}
	for uid := range w.tries {
		if !there[uid] {
			delete(w.tries, uid)
		}
	}
}
