package restart

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// other makes a target of a table's kind from what `kubectl get -o yaml`
// shows.
func other(t *testing.T, apiVersion, kind, text string) World {
	t.Helper()
	w := testWorld(kind)
	w.Restart.Spec.Target.APIVersion = apiVersion
	w.Restart.Spec.Pod = ""
	o := newOther(w.Restart.Spec.Target)
	if o == nil {
		t.Fatalf("%s %s is not in the table", apiVersion, kind)
	}
	const common = `
metadata: {name: web, namespace: shop, uid: target, generation: 3, resourceVersion: "7"}
`
	raw, err := yaml.YAMLToJSON([]byte("apiVersion: " + apiVersion + "\nkind: " + kind + common + text))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.object.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	w.Target = &Target{Other: o}
	return w
}

const otherTemplate = `
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1", readinessProbe: {tcpSocket: {port: 80}}}]}
`

// otherExample is one of another project's workloads, and what speaks against
// its restart.
type otherExample struct {
	name, apiVersion, kind, text string
	weight                       Weight
	says                         string
}

func otherExamples() []otherExample {
	const (
		rollout   = "\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}" + otherTemplate
		argo      = "\nstatus: {observedGeneration: \"3\", replicas: 2, updatedReplicas: 2, readyReplicas: 2, availableReplicas: 2, phase: Healthy}\n"
		kruise    = "\nstatus: {observedGeneration: 3, replicas: 2, updatedReplicas: 2, readyReplicas: 2, availableReplicas: 2}\n"
		openshift = "\nspec:\n  replicas: 2\n  selector: {app: web}\n  triggers: [{type: ConfigChange}]" + otherTemplate
	)
	return []otherExample{
		{"Rollout", "argoproj.io/v1alpha1", "Rollout", rollout + argo, "", ""},
		{"Rollout, steps that go on by themselves", "argoproj.io/v1alpha1", "Rollout", rollout + "  strategy: {canary: {steps: [{setWeight: 20}, {pause: {duration: 10}}]}}\n" + argo, "", ""},
		{"Rollout, waits for a person", "argoproj.io/v1alpha1", "Rollout", rollout + "  strategy: {canary: {steps: [{setWeight: 20}, {pause: {}}]}}\n" + argo, Forbids, "person's promotion"},
		{"Rollout, blue and green by hand", "argoproj.io/v1alpha1", "Rollout", rollout + "  strategy: {blueGreen: {activeService: web, autoPromotionEnabled: false}}\n" + argo, Forbids, "autoPromotionEnabled"},
		{"Rollout, paused", "argoproj.io/v1alpha1", "Rollout", rollout + "  paused: true\n" + argo, Forbids, "The Rollout is paused."},
		{"Rollout, another's template", "argoproj.io/v1alpha1", "Rollout", "spec: {workloadRef: {kind: Deployment, name: web}}\n" + argo, Forbids, "from Deployment web"},
		{"Rollout, not healthy", "argoproj.io/v1alpha1", "Rollout", rollout + strings.Replace(argo, "Healthy", "Degraded", 1), Forbids, "in progress"},
		{"Rollout, not observed", "argoproj.io/v1alpha1", "Rollout", rollout + strings.Replace(argo, `"3"`, `"2"`, 1), Forbids, "0 of 2 pods are new"},

		{"CloneSet", "apps.kruise.io/v1alpha1", "CloneSet", rollout + kruise, "", ""},
		{"CloneSet, in place", "apps.kruise.io/v1alpha1", "CloneSet", rollout + "  updateStrategy: {type: InPlaceIfPossible}\n" + kruise, Forbids, "restart none"},
		{"CloneSet, paused", "apps.kruise.io/v1alpha1", "CloneSet", rollout + "  updateStrategy: {paused: true}\n" + kruise, Forbids, "update is paused"},
		{"CloneSet, partition", "apps.kruise.io/v1alpha1", "CloneSet", rollout + "  updateStrategy: {partition: 50%}\n" + kruise, Forbids, "partition"},
		{"CloneSet, no partition", "apps.kruise.io/v1alpha1", "CloneSet", rollout + "  updateStrategy: {partition: 0}\n" + kruise, "", ""},
		{"CloneSet of one", "apps.kruise.io/v1alpha1", "CloneSet", strings.Replace(rollout, "replicas: 2", "replicas: 1", 1) + kruise, Interrupts, "one replica"},
		{"CloneSet, scaled to 0", "apps.kruise.io/v1alpha1", "CloneSet", strings.Replace(rollout, "replicas: 2", "replicas: 0", 1) + kruise, Forbids, "scaled to 0"},

		{"Kruise's StatefulSet", "apps.kruise.io/v1beta1", KindStatefulSet, rollout + kruise, "", ""},
		{"Kruise's StatefulSet, in place", "apps.kruise.io/v1beta1", KindStatefulSet, rollout + "  updateStrategy: {rollingUpdate: {podUpdatePolicy: InPlaceIfPossible}}\n" + kruise, Forbids, "restart none"},
		{"Kruise's StatefulSet, OnDelete", "apps.kruise.io/v1beta1", KindStatefulSet, rollout + "  updateStrategy: {type: OnDelete}\n" + kruise, Forbids, "OnDelete"},
		{"Kruise's StatefulSet, partition", "apps.kruise.io/v1beta1", KindStatefulSet, rollout + "  updateStrategy: {rollingUpdate: {partition: 1}}\n" + kruise, Forbids, "partition"},

		{"Kruise's StatefulSet, paused", "apps.kruise.io/v1beta1", KindStatefulSet, rollout + "  updateStrategy: {rollingUpdate: {paused: true}}\n" + kruise, Forbids, "update is paused"},
		{"Kruise's StatefulSet of one", "apps.kruise.io/v1beta1", KindStatefulSet, strings.Replace(rollout, "replicas: 2", "replicas: 1", 1) + kruise, Interrupts, "one replica"},
		{"Kruise's StatefulSet without template", "apps.kruise.io/v1beta1", KindStatefulSet, "spec: {replicas: 2}\n" + kruise, Forbids, "no pod template"},

		{"DeploymentConfig", "apps.openshift.io/v1", "DeploymentConfig", openshift + kruise, "", ""},
		{"DeploymentConfig, paused", "apps.openshift.io/v1", "DeploymentConfig", openshift + "  paused: true\n" + kruise, Forbids, "The DeploymentConfig is paused."},
		{"DeploymentConfig, no trigger", "apps.openshift.io/v1", "DeploymentConfig", strings.Replace(openshift, "ConfigChange", "ImageChange", 1) + kruise, Forbids, "restart nothing"},
		{"DeploymentConfig, Recreate", "apps.openshift.io/v1", "DeploymentConfig", openshift + "  strategy: {type: Recreate}\n" + kruise, Interrupts, "Recreate"},
	}
}

func TestPreflightOthers(t *testing.T) {
	for _, test := range otherExamples() {
		t.Run(test.name, func(t *testing.T) {
			w := other(t, test.apiVersion, test.kind, test.text)
			found := Preflight(w)
			if test.weight == "" {
				if len(found) != 0 {
					t.Fatalf("found %+v, want nothing", found)
				}
				if w.Target.template().Labels["app"] != "web" || w.Target.selector().MatchLabels["app"] != "web" {
					t.Errorf("template %+v, selector %+v", w.Target.template(), w.Target.selector())
				}
				if next := Next(beginning(w)); next.Action != Stamp {
					t.Errorf("the step after the beginning is %s (%s)", next.Action, next.Message)
				}
				return
			}
			if len(found) == 0 || found[0].Weight != test.weight || !strings.Contains(found[0].Sentence, test.says) {
				t.Errorf("found %+v, want one that %s and says %q", found, test.weight, test.says)
			}
		})
	}
}

func TestOthersUnseen(t *testing.T) {
	w := other(t, "argoproj.io/v1alpha1", "Rollout", "spec: {}")
	w.Target = nil
	if got := Next(w); got.Phase != v1alpha1.PhaseRefused || !strings.Contains(got.Message, "other-kinds") {
		t.Errorf("one that may not be read: %+v", got)
	}
	w = other(t, "argoproj.io/v1alpha1", "Rollout", "spec: {}")
	w.Restart.Spec.Scope = v1alpha1.ScopePod
	if got := Next(w); got.Phase != v1alpha1.PhaseRefused || !strings.Contains(got.Message, "single pod") {
		t.Errorf("one pod of it: %+v", got)
	}
}
