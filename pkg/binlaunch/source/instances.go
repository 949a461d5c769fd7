package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Report is how one Binary of the cluster stands on this node.
type Report struct {
	Binary  string
	UID     types.UID // of the Binary: a later one of the same name is another
	NodeUID types.UID // of the Node: the instance goes with it
	Status  v1alpha1.BinaryInstanceStatus
}

// Instances writes this node's BinaryInstances: each only when it has changed,
// and one at a time with a pause, so that a task that flaps costs the API
// server no more than one write a second.
type Instances struct {
	Client client.Client
	Node   string
	Log    *slog.Logger
	Pause  time.Duration // between two rounds; 1 s when 0

	written map[string]*v1alpha1.BinaryInstance // by name, as the API server has it
}

// Run writes what now returns whenever changed says so, until ctx ends.
func (w *Instances) Run(ctx context.Context, changed func() <-chan struct{}, now func() []Report) error {
	pause := w.Pause
	if pause == 0 {
		pause = time.Second
	}
	for ctx.Err() == nil {
		next := changed()
		err := w.round(ctx, now())
		if err != nil && ctx.Err() == nil {
			w.Log.Warn("cannot report to the API; tried again", "err", err)
			next = nil
			sleep(ctx, 4*pause)
		}
		sleep(ctx, pause)
		if next != nil {
			select {
			case <-ctx.Done():
			case <-next:
			}
		}
	}
	return nil
}

// round makes the API say what is so now.
func (w *Instances) round(ctx context.Context, reports []Report) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if w.written == nil {
		if err := w.list(ctx); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for _, r := range reports {
		name := InstanceName(r.Binary, w.Node)
		seen[name] = true
		if err := w.write(ctx, name, r); err != nil {
			w.written = nil // somebody else has written: look again
			return err
		}
	}
	for name := range w.written {
		if seen[name] {
			continue
		}
		gone := &v1alpha1.BinaryInstance{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := w.Client.Delete(ctx, gone); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("cannot delete BinaryInstance %s: %w", name, err)
		}
		delete(w.written, name)
	}
	return nil
}

func (w *Instances) list(ctx context.Context) error {
	var all v1alpha1.BinaryInstanceList
	if err := w.Client.List(ctx, &all, client.MatchingFields{"spec.node": w.Node}); err != nil {
		return fmt.Errorf("cannot list this node's BinaryInstances: %w", err)
	}
	w.written = map[string]*v1alpha1.BinaryInstance{}
	for i := range all.Items {
		w.written[all.Items[i].Name] = &all.Items[i]
	}
	return nil
}

func (w *Instances) write(ctx context.Context, name string, r Report) error {
	have := w.written[name]
	if have != nil && (have.Spec.UID != r.UID || !ownedBy(have, r.NodeUID)) {
		// Of an earlier Binary or Node of this name.
		if err := w.Client.Delete(ctx, have); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("cannot delete BinaryInstance %s: %w", name, err)
		}
		have = nil
		delete(w.written, name)
	}
	if have == nil {
		made, err := w.create(ctx, name, r)
		if err != nil {
			return err
		}
		have = made
	}
	if same(have.Status, r.Status) {
		w.written[name] = have
		return nil
	}
	fresh := have.DeepCopy()
	fresh.Status = r.Status
	if err := w.Client.Status().Patch(ctx, fresh, client.MergeFrom(have)); err != nil {
		return fmt.Errorf("cannot write the status of BinaryInstance %s: %w", name, err)
	}
	w.written[name] = fresh
	return nil
}

func (w *Instances) create(ctx context.Context, name string, r Report) (*v1alpha1.BinaryInstance, error) {
	i := &v1alpha1.BinaryInstance{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{v1alpha1.LabelBinary: r.Binary},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Node", Name: w.Node, UID: r.NodeUID,
			}},
		},
		Spec: v1alpha1.BinaryInstanceSpec{Binary: r.Binary, UID: r.UID, Node: w.Node},
	}
	err := w.Client.Create(ctx, i)
	if apierrors.IsAlreadyExists(err) {
		w.written = nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot create BinaryInstance %s: %w", name, err)
	}
	return i, nil
}

func ownedBy(i *v1alpha1.BinaryInstance, id types.UID) bool {
	return slices.ContainsFunc(i.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == id })
}

// same compares two statuses as the API server would give them back.
func same(a, b v1alpha1.BinaryInstanceStatus) bool {
	return canonical(a) == canonical(b)
}

// InstanceName is BINARY.NODE; where that is too long for a name its end is a
// digest.
func InstanceName(binary, node string) string {
	name := binary + "." + node
	if len(name) <= 253 {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:236] + "-" + hex.EncodeToString(sum[:8])
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// canonical is a status as it is after a way through JSON.
func canonical(s v1alpha1.BinaryInstanceStatus) string {
	raw, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}
