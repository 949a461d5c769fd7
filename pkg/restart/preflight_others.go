package restart

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func preflightOther(o *Other) []Finding {
	if paused, _ := o.flag("spec", "paused"); paused {
		return []Finding{{Forbids, fmt.Sprintf("The %s is paused.", o.kind.Kind)}}
	}
	if found := o.kind.preflight(o); len(found) > 0 {
		return found
	}
	switch r := rolloutOther(o); {
	case o.mapAt(o.kind.Template...) == nil:
		return []Finding{{Forbids, fmt.Sprintf("The %s has no pod template.", o.kind.Kind)}}
	case o.replicas() == 0:
		return []Finding{{Forbids, fmt.Sprintf("The %s is scaled to 0: there is nothing to restart.", o.kind.Kind)}}
	case !r.complete:
		return []Finding{{Forbids, "A rollout is in progress, or pods are missing: " + r.sentence}}
	}
	return nil
}

// preflightRollout: Argo's Rollout goes through its steps for every new
// template, be it an annotation alone.
func preflightRollout(o *Other) []Finding {
	if name := o.text("spec", "workloadRef", "name"); name != "" {
		return []Finding{{Forbids, fmt.Sprintf("The Rollout takes its pod template from %s %s, which is not written to.", o.text("spec", "workloadRef", "kind"), name)}}
	}
	if auto, there := o.flag("spec", "strategy", "blueGreen", "autoPromotionEnabled"); there && !auto {
		return []Finding{{Forbids, "The Rollout waits for a person's promotion (autoPromotionEnabled: false): the restart would not come to an end."}}
	}
	steps, _, _ := unstructured.NestedSlice(o.object.Object, "spec", "strategy", "canary", "steps")
	for _, s := range steps {
		step, _ := s.(map[string]any)
		pause, is := step["pause"].(map[string]any)
		if is && pause["duration"] == nil {
			return []Finding{{Forbids, "The Rollout has a canary step that waits for a person's promotion (pause without duration): the restart would not come to an end."}}
		}
	}
	return nil
}

// preflightCloneSet: Kruise can change running pods in place. The annotation
// would then be written into them, and no pod would be restarted.
func preflightCloneSet(o *Other) []Finding {
	switch kind := o.text("spec", "updateStrategy", "type"); kind {
	case "InPlaceIfPossible", "InPlaceOnly":
		return []Finding{inPlace("CloneSet", kind)}
	}
	if paused, _ := o.flag("spec", "updateStrategy", "paused"); paused {
		return []Finding{{Forbids, "The CloneSet's update is paused."}}
	}
	if o.positive("spec", "updateStrategy", "partition") {
		return []Finding{{Forbids, "The CloneSet's update has a partition: only a part of its pods would be restarted."}}
	}
	if o.replicas() == 1 && !o.positive("spec", "updateStrategy", "maxSurge") {
		return []Finding{{Interrupts, "The CloneSet has one replica and no maxSurge: its pod goes before the new one starts."}}
	}
	return nil
}

func preflightKruiseStatefulSet(o *Other) []Finding {
	rolling := []string{"spec", "updateStrategy", "rollingUpdate"}
	at := func(field string) []string { return append(append([]string{}, rolling...), field) }
	switch kind := o.text(at("podUpdatePolicy")...); kind {
	case "InPlaceIfPossible", "InPlaceOnly":
		return []Finding{inPlace(KindStatefulSet, kind)}
	}
	paused, _ := o.flag(at("paused")...)
	switch {
	case o.text("spec", "updateStrategy", "type") == "OnDelete":
		return []Finding{{Forbids, "The StatefulSet's update strategy is OnDelete: of Kruise's it cannot be restarted."}}
	case paused:
		return []Finding{{Forbids, "The StatefulSet's update is paused."}}
	case o.positive(at("partition")...):
		return []Finding{{Forbids, "The StatefulSet's update has a partition: only a part of its pods would be restarted."}}
	case o.replicas() == 1:
		return []Finding{{Interrupts, "The StatefulSet has one replica: its pod goes before the new one starts."}}
	}
	return nil
}

func inPlace(kind, policy string) Finding {
	return Finding{Forbids, fmt.Sprintf("The %s is updated in place (%s): the annotation would be written into the running pods and restart none.", kind, policy)}
}

// preflightDeploymentConfig: OpenShift's rolls out a changed template only
// where a trigger says so.
func preflightDeploymentConfig(o *Other) []Finding {
	triggers, _, _ := unstructured.NestedSlice(o.object.Object, "spec", "triggers")
	changes := false
	for _, t := range triggers {
		trigger, _ := t.(map[string]any)
		changes = changes || trigger["type"] == "ConfigChange"
	}
	if !changes {
		return []Finding{{Forbids, "The DeploymentConfig has no ConfigChange trigger: a changed template would restart nothing."}}
	}
	if o.text("spec", "strategy", "type") == "Recreate" {
		return []Finding{{Interrupts, "The DeploymentConfig's strategy is Recreate: all pods go before a new one starts."}}
	}
	return nil
}
