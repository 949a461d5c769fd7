package restart

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Wish asks for the restart of a workload that is known by name: a person's,
// or one after its configuration changed. An offence asks by Request.
type Wish struct {
	Namespace string
	Target    v1alpha1.TargetReference
	// TargetUID makes the Restart go with its target. Empty where whoever asks
	// may not read the target.
	TargetUID     string
	Scope         v1alpha1.Scope
	Pod, PodUID   string // with scope Pod
	Node          string // whose agent is to carry it out; empty: the leader's
	Reason        v1alpha1.Reason
	Message       string // the reason in a sentence for a person
	AllowDowntime bool
	Deadline      time.Duration // 0: the agent's
	OnStall       v1alpha1.OnStall
	Annotations   map[string]string
}

// Restart is the object as Ask would make it where there is none.
func (w Wish) Restart(now time.Time) *v1alpha1.Restart {
	r := &v1alpha1.Restart{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: "Restart"},
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: Name(w.Target.Kind, w.Target.Name)},
	}
	w.writeInto(r, now)
	return r
}

func (w Wish) writeInto(r *v1alpha1.Restart, now time.Time) {
	r.Spec = v1alpha1.RestartSpec{
		Target: w.Target, Scope: w.Scope, Pod: w.Pod, PodUID: w.PodUID, Node: w.Node,
		Reason: w.Reason, Message: cut(w.Message, maxMessage), AllowDowntime: w.AllowDowntime, OnStall: w.OnStall,
		RequestedAt: metav1.NewMicroTime(now),
	}
	if w.Deadline > 0 {
		r.Spec.Deadline = &metav1.Duration{Duration: w.Deadline}
	}
	if w.TargetUID != "" {
		r.OwnerReferences = []metav1.OwnerReference{owner{w.Target, w.TargetUID}.reference()}
	}
	if len(w.Annotations) > 0 && r.Annotations == nil {
		r.Annotations = map[string]string{}
	}
	maps.Copy(r.Annotations, w.Annotations)
}

// Ask makes the workload's Restart, or writes the wish into the one that has
// ended: no cooldown holds it back. One that is on its way is left alone and
// returned as Joined. It costs two requests to the API server.
func Ask(ctx context.Context, c client.Client, w Wish, now time.Time) (*v1alpha1.Restart, OutcomeKind, error) {
	for range maxRaces {
		r, kind, err := w.attempt(ctx, c, now)
		if err == nil {
			return r, kind, nil
		}
		if kind != "" && (apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)) {
			continue // somebody else wrote first: look at what
		}
		return nil, "", fmt.Errorf("cannot ask for the restart of %s in %s: %w", describe(w.Target), w.Namespace, err)
	}
	return nil, "", fmt.Errorf("cannot ask for the restart of %s in %s: lost %d races in a row", describe(w.Target), w.Namespace, maxRaces)
}

func (w Wish) attempt(ctx context.Context, c client.Client, now time.Time) (*v1alpha1.Restart, OutcomeKind, error) {
	existing := &v1alpha1.Restart{}
	err := c.Get(ctx, client.ObjectKey{Namespace: w.Namespace, Name: Name(w.Target.Kind, w.Target.Name)}, existing)
	switch {
	case apierrors.IsNotFound(err):
		r := w.Restart(now)
		return r, Created, c.Create(ctx, r)
	case err != nil:
		return nil, "", err
	case existing.Spec.Target != w.Target:
		return nil, "", fmt.Errorf("Restart %s is another workload's, %s %s",
			existing.Name, existing.Spec.Target.APIVersion, describe(existing.Spec.Target))
	case active(existing) && !abandoned(existing, now):
		return existing, Joined, nil
	}
	w.writeInto(existing, now)
	return existing, Renewed, c.Update(ctx, existing) // with the resourceVersion it was read at
}

// OwnerOf is the workload that a pod belongs to, or the pod itself where it
// belongs to none, and that workload's uid.
func OwnerOf(ctx context.Context, c client.Reader, pod *corev1.Pod) (target v1alpha1.TargetReference, uid string, err error) {
	own, err := findOwner(ctx, c, pod)
	return own.target, own.uid, err
}

// TakenBy is the uid of the Restart that has a pod in hand and took it from its
// owner; empty for every other pod.
func TakenBy(pod *corev1.Pod) string {
	if len(taken(pod)) == 0 {
		return ""
	}
	return pod.Labels[v1alpha1.LabelRestart]
}

// Waiting tells whether a Restart is asked for and nobody took it up yet.
func Waiting(r *v1alpha1.Restart) bool { return fresh(r) }

// Ended tells whether nothing more will happen to a Restart before it is asked
// for anew.
func Ended(r *v1alpha1.Restart) bool { return !active(r) }
