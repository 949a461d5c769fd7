package restart

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// preflightJob leaves a Job alone unless its owner allowed otherwise and its
// failure policy makes an eviction free: then the Job starts another pod and
// counts no failure.
func preflightJob(j *batchv1.Job) []Finding {
	switch {
	case j.Annotations[v1alpha1.AnnotationRestart] != "act":
		return []Finding{{Forbids, fmt.Sprintf("A Job is left alone: ending its pod could lose work or run it twice. The annotation %s: act on the Job allows it.", v1alpha1.AnnotationRestart)}}
	case !ignoresDisruption(j.Spec.PodFailurePolicy):
		return []Finding{{Forbids, "The Job's podFailurePolicy does not ignore the condition DisruptionTarget before other rules: an evicted pod would count as a failure."}}
	case wantedByJob(j) == 0:
		return []Finding{{Forbids, "The Job has nothing left to run."}}
	}
	return []Finding{{Warns, "What the Job's pod has done so far is done again; but a program that ends with code 0 when it is told to stop counts as one that has done its work."}}
}

// ignoresDisruption tells whether the first rule that an evicted pod can match
// ignores it. The kubelet ends it by SIGTERM or SIGKILL, so a rule on exit
// codes can come first: 143, 137.
func ignoresDisruption(policy *batchv1.PodFailurePolicy) bool {
	if policy == nil {
		return false
	}
	for _, rule := range policy.Rules {
		if matchesDisruption(rule.OnPodConditions) {
			return rule.Action == batchv1.PodFailurePolicyActionIgnore
		}
		if matchesSignal(rule.OnExitCodes) {
			return false
		}
	}
	return false
}

func matchesDisruption(patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
	return slices.ContainsFunc(patterns, func(p batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
		return p.Type == corev1.DisruptionTarget && (p.Status == "" || p.Status == corev1.ConditionTrue)
	})
}

func matchesSignal(r *batchv1.PodFailurePolicyOnExitCodesRequirement) bool {
	if r == nil {
		return false
	}
	for _, code := range []int32{137, 143} {
		if slices.Contains(r.Values, code) == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
			return true
		}
	}
	return false
}

// wantedByJob is how many pods a Job runs at once, and none once it has ended.
func wantedByJob(j *batchv1.Job) int32 {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return 0
		}
	}
	if j.Spec.Suspend != nil && *j.Spec.Suspend {
		return 0
	}
	parallel := wanted(j.Spec.Parallelism)
	if j.Spec.Completions != nil {
		parallel = min(parallel, *j.Spec.Completions-j.Status.Succeeded)
	}
	return max(parallel, 0)
}
