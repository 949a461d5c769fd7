package restart

import (
	"cmp"
	"context"
	"encoding/hex"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The reasons of the Events that a Restart writes on itself, on its workload
// and on the pod it was asked for. The Event that tells why a restart was
// asked for carries the Restart's own reason: DiskFill, ConfigChange, Manual.
const (
	EventStarted   = "RestartStarted"
	EventSucceeded = "RestartSucceeded"
	EventStalled   = "RestartStalled"
	EventFailed    = "RestartFailed"
	EventRefused   = "RestartRefused"

	EventWaits       = "RestartWaits"
	EventIneffective = "RestartIneffective"
	EventObserved    = "RestartObserved"
)

// The reasons of the Events on a node, when pods begin to be kept off it, when
// that ends, and when they are not, for want of a fence.
const (
	EventFilling    = "DiskFilling"
	EventNotFilling = "DiskNotFilling"
	EventNotFenced  = "NodeNotFenced"
	EventPublic     = "NodePublic"
	EventNotPublic  = "NodeNotPublic"
)

// Events writes Kubernetes Events. The same thing is told once an hour at
// most, across restarts of the agent too: an Event's name is made of what it
// says, so the API server refuses the second. Where one cannot be written,
// nothing but the telling is lost.
type Events struct {
	client client.Client
	node   string
	now    func() time.Time
	log    *slog.Logger

	patience time.Duration

	mu   sync.Mutex
	told map[string]time.Time // by Event name
}

const (
	// eventPatience bounds how long a step waits for the telling of it.
	eventPatience = 3 * time.Second
	eventRepeat   = time.Hour
	maxTold       = 1024
	maxMessage    = 1024 // as core/v1 has it: longer notes are cut by those who show them
)

// NewEvents makes a writer of Events in the name of one node's agent.
func NewEvents(c client.Client, node string, now func() time.Time, log *slog.Logger) *Events {
	return &Events{client: c, node: node, now: now, log: log, patience: eventPatience, told: map[string]time.Time{}}
}

// event is one thing to tell about one object.
type event struct {
	about   corev1.ObjectReference
	kind    string // Normal or Warning
	reason  string
	message string
	// once tells apart what is worth telling again in the same words; empty
	// means once an hour.
	once string
	part string // of the object: a container
}

func eventOn(pod *corev1.Pod, kind, reason, message string) event {
	return event{about: podReference(pod.Namespace, pod.Name, pod.UID), kind: kind, reason: reason, message: message}
}

func podReference(namespace, name string, uid types.UID) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: KindPod, Namespace: namespace, Name: name, UID: uid}
}

func (e *Events) tell(ctx context.Context, ev event) {
	name := e.name(ev)
	if !e.first(name) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.patience)
	defer cancel()
	err := e.client.Create(ctx, e.object(name, ev))
	if err != nil && !apierrors.IsAlreadyExists(err) {
		e.forget(name)
		e.log.Warn("event not written", "reason", ev.reason, "about", ev.about.Name, "error", err)
	}
}

// name is <object>.<hash of what is told, and when if nothing else tells>.
func (e *Events) name(ev event) string {
	once := ev.once
	if once == "" {
		once = e.now().Truncate(eventRepeat).UTC().Format(time.RFC3339)
	}
	sum := fnv.New64a()
	for _, part := range []string{string(ev.about.UID), ev.reason, once, ev.part} {
		sum.Write([]byte(part))
		sum.Write([]byte{0})
	}
	return fitName(ev.about.Name + "." + hex.EncodeToString(sum.Sum(nil)))
}

func (e *Events) first(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if at, ok := e.told[name]; ok && now.Sub(at) < eventRepeat {
		return false
	}
	if len(e.told) >= maxTold {
		clear(e.told) // the API server still remembers
	}
	e.told[name] = now
	return true
}

func (e *Events) forget(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.told, name)
}

func (e *Events) object(name string, ev event) *corev1.Event {
	now := e.now()
	return &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: cmp.Or(ev.about.Namespace, metav1.NamespaceDefault), Name: name},
		InvolvedObject:      ev.about,
		Type:                ev.kind,
		Reason:              ev.reason,
		Message:             cut(ev.message, maxMessage),
		Source:              corev1.EventSource{Component: "nodeagent", Host: e.node},
		ReportingController: "nodeagent.dev/nodeagent",
		ReportingInstance:   e.node,
		Action:              "Restart",
		FirstTimestamp:      metav1.NewTime(now),
		LastTimestamp:       metav1.NewTime(now),
		Count:               1,
	}
}
