package restart

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Pod names the pod that gives the reason. The name alone does not: a
// StatefulSet's next pod has its predecessor's.
type Pod struct {
	Namespace string
	Name      string
	UID       string
}

// Request asks for the restart of the workload that a pod belongs to.
type Request struct {
	Pod           Pod
	Container     string // the one that gives the reason, if one does: each has its Event
	Reason        v1alpha1.Reason
	Message       string // the reason in a sentence for a person
	AllowDowntime bool
	FullAt        time.Time // when the disk will be full; zero: not known
}

// Requester turns Requests into Restarts. It may be used by several goroutines.
type Requester struct {
	client  client.Client
	options Options
	events  *Events
	log     *slog.Logger
}

// NewRequester makes a Requester for one node's agent.
func NewRequester(c client.Client, o Options, events *Events, log *slog.Logger) *Requester {
	return &Requester{client: c, options: o.withDefaults(), events: events, log: log}
}

// maxRaces bounds how often a lost race is looked at again. Each lost one
// means that somebody else's write succeeded, so a few are plenty.
const maxRaces = 8

// Request makes the workload's Restart, or says why there is none to make. It
// costs two to four requests to the API server, so ask no more than once per
// pod in a while. An error means that the API server could not be asked;
// asking again is safe.
func (q *Requester) Request(ctx context.Context, r Request) (Outcome, error) {
	pod, err := readPod(ctx, q.client, r.Pod)
	if err != nil || pod == nil {
		return Outcome{Kind: Gone}, err
	}
	own, err := findOwner(ctx, q.client, pod)
	if apierrors.IsNotFound(err) {
		return Outcome{Kind: Gone}, nil
	}
	if err != nil {
		return Outcome{}, err
	}
	if len(taken(pod)) > 0 {
		// A restart took it from its owner, and it goes on filling the disk
		// until that is done with it. It is no pod without owner.
		return Outcome{Kind: Joined, Target: own.target}, nil
	}
	outcome := Outcome{Restart: Name(own.target.Kind, own.target.Name), Target: own.target}
	if kind, why := q.forbidden(pod); kind != "" {
		outcome.Kind = kind
		q.tell(ctx, pod, r, why)
		return outcome, nil
	}
	if until := copiedUntil(pod, q.options.Cooldown); own.target.Kind == KindPod && r.Reason != v1alpha1.ReasonManual && q.options.Now().Before(until) {
		outcome.Kind, outcome.Until = CoolingDown, until
		q.tell(ctx, pod, r, fmt.Sprintf("It is itself a copy: nothing more is done before %s.", until.UTC().Format(time.RFC3339)))
		return outcome, nil
	}
	return q.race(ctx, pod, own, r, outcome)
}

// readPod is nil where the pod is gone, going, or another of the same name.
func readPod(ctx context.Context, c client.Reader, p Pod) (*corev1.Pod, error) {
	var pod corev1.Pod
	err := c.Get(ctx, client.ObjectKey{Namespace: p.Namespace, Name: p.Name}, &pod)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	if pod.DeletionTimestamp != nil || (p.UID != "" && p.UID != NodeUID(&pod)) {
		return nil, nil
	}
	return &pod, nil
}

// forbidden says whether configuration keeps this pod's workload as it is.
func (q *Requester) forbidden(pod *corev1.Pod) (OutcomeKind, string) {
	switch {
	case q.options.excluded(pod.Namespace):
		return Excluded, fmt.Sprintf("Nothing is restarted: namespace %s is excluded.", pod.Namespace)
	case q.options.AgentPod == types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}:
		return Excluded, "Nothing is restarted: this is the agent itself."
	}
	return "", ""
}

// race makes or renews the Restart. Whoever loses against another agent reads
// what that one wrote and decides again.
func (q *Requester) race(ctx context.Context, pod *corev1.Pod, own owner, r Request, outcome Outcome) (Outcome, error) {
	for range maxRaces {
		lost, err := q.attempt(ctx, pod, own, r, &outcome)
		if err != nil {
			return Outcome{}, err
		}
		if !lost {
			q.tell(ctx, pod, r, outcome.sentence())
			return outcome, nil
		}
	}
	return Outcome{}, fmt.Errorf("cannot write Restart %s/%s: lost %d races in a row", pod.Namespace, outcome.Restart, maxRaces)
}

func (q *Requester) attempt(ctx context.Context, pod *corev1.Pod, own owner, r Request, outcome *Outcome) (lost bool, err error) {
	existing, err := q.readRestart(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: outcome.Restart})
	if err != nil {
		return false, err
	}
	if existing != nil && existing.Spec.Target != own.target {
		q.log.Warn("restart not asked for: its name is another workload's", "pod", pod.Namespace+"/"+pod.Name, "owner", own.target, "restart", existing.Name)
		outcome.Kind = Unfit
		return false, nil
	}
	spec := q.spec(pod, own, r)
	decided := decide(existing, spec, q.options, q.options.Now())
	outcome.Kind, outcome.Until = decided.Kind, decided.Until
	switch decided.Kind {
	case Created:
		err = q.client.Create(ctx, newRestart(pod.Namespace, own, spec))
	case Renewed:
		if active(existing) { // nobody took it up: what a person allowed and chose holds
			spec.AllowDowntime = spec.AllowDowntime || existing.Spec.AllowDowntime
			spec.OnStall = existing.Spec.OnStall
		}
		existing.Spec = spec
		existing.OwnerReferences = []metav1.OwnerReference{own.reference()}
		err = q.client.Update(ctx, existing) // with the resourceVersion it was read at
	default:
		return false, nil
	}
	// "Not found" means that the Restart went meanwhile where there was one, and
	// that its namespace or its CRD is not there where there was none.
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || existing != nil && apierrors.IsNotFound(err) {
		return true, nil
	}
	if apierrors.IsInvalid(err) {
		q.log.Warn("restart not asked for", "pod", pod.Namespace+"/"+pod.Name, "owner", own.target, "error", err)
		outcome.Kind = Unfit
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot write Restart %s/%s: %w", pod.Namespace, outcome.Restart, err)
	}
	q.log.Info("restart asked for", "restart", pod.Namespace+"/"+outcome.Restart, "reason", r.Reason, "outcome", outcome.Kind)
	return false, nil
}

// tell says on the pod what was seen and what becomes of it: the owner of a
// pod reads that, whichever node's agent carries the restart out.
func (q *Requester) tell(ctx context.Context, pod *corev1.Pod, r Request, becomes string) {
	said := eventOn(pod, corev1.EventTypeWarning, string(r.Reason), strings.TrimSuffix(r.Message, ".")+". "+becomes)
	said.part = r.Container
	q.events.tell(ctx, said)
}

func (q *Requester) readRestart(ctx context.Context, key client.ObjectKey) (*v1alpha1.Restart, error) {
	var r v1alpha1.Restart
	err := q.client.Get(ctx, key, &r)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read Restart %s: %w", key, err)
	}
	return &r, nil
}

func (q *Requester) spec(pod *corev1.Pod, own owner, r Request) v1alpha1.RestartSpec {
	spec := v1alpha1.RestartSpec{
		Target:        own.target,
		Scope:         own.scope(),
		Pod:           pod.Name,
		PodUID:        string(pod.UID),
		Node:          q.options.Node,
		Reason:        r.Reason,
		Message:       cut(r.Message, 1024),
		AllowDowntime: r.AllowDowntime,
		Deadline:      &metav1.Duration{Duration: q.options.Deadline},
		RequestedAt:   metav1.NewMicroTime(q.options.Now()),
	}
	if !r.FullAt.IsZero() {
		spec.FullAt = new(metav1.NewTime(r.FullAt))
	}
	return spec
}

func newRestart(namespace string, own owner, spec v1alpha1.RestartSpec) *v1alpha1.Restart {
	return &v1alpha1.Restart{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       namespace,
			Name:            Name(own.target.Kind, own.target.Name),
			OwnerReferences: []metav1.OwnerReference{own.reference()},
		},
		Spec: spec,
	}
}

// describe names a workload as kubectl does: deployment/checkout.
func describe(t v1alpha1.TargetReference) string {
	return strings.ToLower(t.Kind) + "/" + t.Name
}

func uidOf(s string) types.UID { return types.UID(s) }

// cut shortens a sentence to what a field takes, never inside a rune.
func cut(s string, limit int) string {
	s = strings.ToValidUTF8(s, "�")
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit-1]) + "…"
}
