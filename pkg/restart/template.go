package restart

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// restartedAt is the annotation that `kubectl rollout restart` writes into a
// pod template; any change of the template begins a rollout. Writing the same
// one means that kubectl, dashboards and people see it as what it is.
const restartedAt = "kubectl.kubernetes.io/restartedAt"

// stamp is the annotation's value for this restart. It is made of what the
// object remembers, so whoever takes the restart up again finds it there.
func stamp(r *v1alpha1.Restart) string {
	return r.Status.Started.UTC().Format(time.RFC3339)
}

// recordTemplate remembers a template as it is before it is stamped.
func recordTemplate(t corev1.PodTemplateSpec) *v1alpha1.TemplateRecord {
	return &v1alpha1.TemplateRecord{Hash: hashTemplate(t), RestartedAt: t.Annotations[restartedAt]}
}

// hashTemplate is of all of a template but its restartedAt annotation. It
// begins with the version of the API types: those of another version may know
// other fields, so hashes of two versions tell nothing about each other.
func hashTemplate(t corev1.PodTemplateSpec) string {
	bare := t.DeepCopy()
	delete(bare.Annotations, restartedAt)
	if len(bare.Annotations) == 0 {
		bare.Annotations = nil
	}
	raw, err := json.Marshal(bare)
	if err != nil { // of a type that came out of JSON: cannot be
		return "cannot be hashed: " + err.Error()
	}
	sum := sha256.Sum256(raw)
	return typesVersion() + ":" + hex.EncodeToString(sum[:8])
}

// typesVersion is that of the module with the pod template's fields.
func typesVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == "k8s.io/api" {
			return m.Version
		}
	}
	return ""
}

// differ tells whether two hashes are surely of two templates. While the agents
// are upgraded one may take up what another version began: the annotation then
// tells enough.
func differ(a, b string) bool {
	before, _, _ := strings.Cut(a, ":")
	after, _, _ := strings.Cut(b, ":")
	return a != b && before == after
}

// templateState says whose template the target has now.
type templateState int

const (
	templateBefore   templateState = iota // as it was when the restart began
	templateStamped                       // that, and this restart's stamp
	templateReverted                      // it was stamped, and somebody took the stamp away
	templateForeign                       // somebody else changed it
)

func (w World) templateState() templateState {
	now, was := recordTemplate(w.Target.template()), w.Restart.Status.Template
	if was == nil || differ(now.Hash, was.Hash) {
		return templateForeign
	}
	switch now.RestartedAt {
	case stamp(w.Restart):
		return templateStamped
	case was.RestartedAt:
		if w.wasStamped() {
			return templateReverted
		}
		return templateBefore
	}
	return templateForeign
}

// wasStamped tells whether the target once had this restart's stamp: the
// object says so from Running on, and before that what was made of the
// stamped template carries it.
func (w World) wasStamped() bool {
	if w.Restart.Status.Phase != v1alpha1.PhasePending {
		return true
	}
	mine := stamp(w.Restart)
	for i := range w.ReplicaSets {
		if w.ReplicaSets[i].Spec.Template.Annotations[restartedAt] == mine {
			return true
		}
	}
	for i := range w.Pods {
		if w.Pods[i].Annotations[restartedAt] == mine {
			return true
		}
	}
	return false
}

// stampPatch is a merge patch that writes the annotation's value, or takes the
// annotation out where that is empty, and nothing else. It carries uid and
// resourceVersion, so the API server refuses it when the target is no longer
// the one that was looked at.
func stampPatch(t *Target, value string) ([]byte, error) {
	type object = map[string]any
	o, annotations := t.object(), any(object{restartedAt: value})
	if value == "" {
		annotations = object{restartedAt: nil}
		if len(t.template().Annotations) == 1 {
			annotations = nil // an empty map would stay where the stamp was the first one
		}
	}
	raw, err := json.Marshal(object{
		"metadata": object{"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion()},
		"spec":     object{"template": object{"metadata": object{"annotations": annotations}}},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot encode the patch of %s: %w", o.GetName(), err)
	}
	return raw, nil
}
