package alerts

import (
	"strings"
	"time"
)

// Severity says who is told.
type Severity string

// The severities.
const (
	Critical Severity = "critical" // a person, now
	Warning  Severity = "warning"  // a person, on a working day
)

// Rule is one alert.
type Rule struct {
	Name        string
	Severity    Severity
	For         time.Duration // how long Expr has to hold
	When        string        // the condition in words, for docs/alerts.md
	Summary     string        // one sentence with the names of what it is about
	Description string        // what follows from it and what is done by whom
	Expr        string
}

// node names the node in annotations. The label is made by
// manifests/alerts/podmonitor.yaml; without it the target's address has to do.
const node = `{{ with $labels.node }}{{ . }}{{ else }}{{ $labels.instance }}{{ end }}`

// workload names a container. Outside Kubernetes it has no pod.
const workload = `{{ with $labels.pod }}container {{ $labels.container }} of pod {{ $labels.namespace }}/{{ . }}{{ with $labels.owner }} ({{ $labels.owner_kind }} {{ . }}){{ end }}{{ else }}container {{ $labels.container }}{{ end }}`

// soon is a value in seconds. An offender that stopped growing a moment ago
// has no time until full.
const soon = `{{ if lt $value 604800.0 }}in {{ $value | humanizeDuration }}{{ else }}at some later time{{ end }}`

// Rules is the table of all alerts.
func Rules() []Rule {
	return append(append(diskRules(), restartRules()...), agentRules()...)
}

func diskRules() []Rule {
	return []Rule{{
		// No For: the agent judges with a series of samples and leaves the
		// verdict at another level than it enters it.
		Name: "NodeagentOffender", Severity: Warning,
		When:    "a container is judged to fill a disk or its own limit",
		Summary: "The " + workload + " on node " + node + ` {{ if eq $labels.resource "inodes" }}uses up the disk's inodes{{ else }}fills the disk{{ end }}.`,
		Description: "At its rate the first bound (the file system's reserve, its own ephemeral-storage limit or its pod's) is reached " + soon + ". " +
			"The agent restarts the workload unless the mode is observe, the namespace is excluded or the restart is refused; " +
			"the Restart and the Event on the pod name what grows.",
		Expr: owned(`min without (bound) (nodeagent_container_disk_full_seconds)
  and ignoring (resource) nodeagent_container_offender == 1`),
	}, {
		Name: "NodeagentDiskFullSoon", Severity: Critical, For: time.Minute,
		When:    "a file system reaches its reserve within 15 minutes",
		Summary: "Node " + node + " runs out of {{ $labels.resource }} on {{ $labels.filesystem }} " + soon + ".",
		Description: "That is when the reserve is reached and the kubelet starts to evict pods. " +
			"An offender would have been restarted 30 minutes before: either there is none that is to blame, or its restart did not help.",
		Expr: `nodeagent_filesystem_full_seconds < 15 * 60`,
	}, {
		Name: "NodeagentDiskPastReserve", Severity: Critical, For: 5 * time.Minute,
		When:        "a file system has less free than its reserve, in bytes or inodes",
		Summary:     "The file system {{ $labels.filesystem }} of node " + node + ` has only {{ if eq $labels.resource "inodes" }}{{ $value | humanize }} inodes{{ else }}{{ $value | humanize1024 }}B{{ end }} free, less than its reserve.`,
		Description: "The kubelet evicts pods and takes no new ones while this lasts, whether the disk still fills or not.",
		Expr: `label_replace(nodeagent_filesystem_available_bytes <= nodeagent_filesystem_reserve_bytes, "resource", "bytes", "", "")
or
label_replace(nodeagent_filesystem_available_inodes <= nodeagent_filesystem_reserve_inodes, "resource", "inodes", "", "")`,
	}, {
		Name: "NodeagentEvictionSoon", Severity: Warning, For: time.Minute,
		When:    "a container reaches its own ephemeral-storage limit or its pod's within 10 minutes",
		Summary: "The kubelet will evict the " + workload + " on node " + node + " " + soon + ".",
		Description: "It or its pod is about to reach its ephemeral-storage limit. " +
			"The kubelet then kills the pod with a second of grace, before another is started.",
		Expr: owned(`nodeagent_container_disk_full_seconds{bound=~"container|pod"} < 10 * 60`),
	}, {
		Name: "NodeagentUnattributedGrowth", Severity: Warning, For: 15 * time.Minute,
		When:    "what is neither a container's nor an image layer nor an orphaned snapshot grows so that the reserve is reached within 4 hours",
		Summary: "On node " + node + " something other than containers and image layers fills {{ $labels.filesystem }} by {{ $value | humanize1024 }}B a second.",
		Description: "At this rate the reserve is reached within 4 hours. " +
			"What containers hold is counted (layers, logs, emptyDirs, image volumes, deleted files that are still open) and is not it, so nothing is restarted: " +
			"image pulls, hostPath and local volumes, or programs of the host.",
		Expr: `deriv(nodeagent_filesystem_unattributed_bytes[30m]) > 100 * 1024
  and deriv(nodeagent_filesystem_unattributed_bytes[30m]) * 4 * 3600
    > nodeagent_filesystem_available_bytes - nodeagent_filesystem_reserve_bytes`,
	}}
}

func restartRules() []Rule {
	return []Rule{{
		Name: "NodeagentRestartFailed", Severity: Warning,
		When:    "a restart ended as Stalled or Failed in the last hour",
		Summary: "A restart of a {{ $labels.kind }} by node " + node + " ended as {{ $labels.result }}.",
		Description: "Its reason was {{ $labels.reason }}. Nothing more is done: the workload may be half-way through a rollout, unless it chose to be rolled back, " +
			"and what filled the disk goes on. `kubectl get restarts -A -o wide` names it and says what it waits for.",
		Expr: rise(`nodeagent_restarts_total{result=~"Stalled|Failed"}`),
	}, {
		Name: "NodeagentRestartRefused", Severity: Warning,
		When:    "a restart because of a filling disk was refused in the last hour",
		Summary: "A {{ $labels.kind }} on node " + node + " fills the disk, and its restart was refused.",
		Description: "It would not have been clean, or cannot be done, so nothing was touched and the disk goes on filling. " +
			"`kubectl get restarts -A -o wide` names it and gives the reason.",
		Expr: rise(`nodeagent_restarts_total{reason="DiskFill",result="Refused"}`),
	}, {
		Name: "NodeagentRestartUseless", Severity: Warning,
		When:    "restarts because of a filling disk succeeded in the last hour, and freed less than 64 MiB",
		Summary: "Restarts by node " + node + " succeeded but freed only {{ $value | humanize1024 }}B in the last hour.",
		Description: "What fills the disk is nothing that the replaced pods held (layers, logs, emptyDirs, image volumes, deleted files), or comes back at once. " +
			"Another restart after the cooldown will not help.",
		Expr: `increase(nodeagent_restart_freed_bytes_total[1h]) < 64 * 1024 * 1024
  and on (job, instance) (
` + indent(rise(`nodeagent_restarts_total{reason="DiskFill",result="Succeeded"}`), "    ") + `
  )`,
	}, {
		Name: "NodeagentRestartsRepeat", Severity: Warning,
		When:    "a node needed more than three restarts because of a filling disk in six hours",
		Summary: "Node " + node + " needed {{ $value | humanize }} restarts in six hours to keep its disk from filling.",
		Description: "Each one spends a revision of its workload and hides a leak that its owner should mend. " +
			"`kubectl get restarts -A -o wide` names the workloads and the files.",
		Expr: `sum without (kind, reason, result) (
  increase(nodeagent_restarts_total{reason="DiskFill",result="Succeeded"}[6h])
) > 3`,
	}}
}

func agentRules() []Rule {
	return []Rule{{
		Name: "NodeagentAbsent", Severity: Critical, For: 10 * time.Minute,
		When:        "Prometheus gets figures from no agent at all",
		Summary:     "No nodeagent is scraped by Prometheus.",
		Description: "Either no agent runs, or Prometheus no longer finds them. All other alerts of nodeagent are silent meanwhile.",
		Expr:        `absent(nodeagent_build_info)`,
	}, {
		Name: "NodeagentDown", Severity: Warning, For: 5 * time.Minute,
		When:        "an agent that answered within the last day does not",
		Summary:     "The agent of node " + node + " does not answer Prometheus.",
		Description: "The node's disk may be unwatched. Its containers are not affected.",
		Expr: `up == 0
  and on (job, instance) last_over_time(nodeagent_build_info[1d])`,
	}, {
		Name: "NodeagentFiguresStale", Severity: Warning, For: 5 * time.Minute,
		When:        "disk figures of a node's containers are older than 15 minutes",
		Summary:     "Node " + node + " has not measured the part {{ $labels.part }} of {{ $value | humanize }} of its containers for 15 minutes or more.",
		Description: "The last good figures are still told, and are not to be trusted. An offender among these containers goes unseen.",
		Expr: `count without (namespace, pod, container, uid, method) (
  nodeagent_disk_measure_age_seconds > 15 * 60
)`,
	}, {
		Name: "NodeagentMeasureStuck", Severity: Warning, For: 5 * time.Minute,
		When:        "looks at a layer have been under way for more than a minute, for 5 minutes",
		Summary:     "On node " + node + " {{ $value | humanize }} looks at a file system do not come back.",
		Description: "A file system hangs. Other file systems are measured on.",
		Expr:        `nodeagent_disk_measures_stuck > 0`,
	}, {
		Name: "NodeagentContainerdDisconnected", Severity: Warning, For: 5 * time.Minute,
		When:    "containerd does not answer the agent, or has not listed its containers for 10 minutes",
		Summary: "The agent of node " + node + " does not hear from containerd.",
		Description: "It goes on measuring the containers it knew. Those that were started since are unwatched. " +
			"It tries again every 10 seconds at most.",
		Expr: `nodeagent_runtime_connected == 0
  or time() - nodeagent_runtime_confirmed_timestamp_seconds > 10 * 60`,
	}}
}

// rise is true for an hour after a counter's series went up. A counter of
// results has no series before its first result, and increase() sees nothing
// in one that appears with a 1. So one that was not there an hour ago counts
// from 0, where its agent was seen an hour ago or has started since. That
// keeps a Prometheus that was started just now from telling of old results.
func rise(counter string) string {
	return `increase(` + counter + `[1h]) > 0
or (
  (` + counter + ` unless ` + counter + ` offset 1h) > 0
  and on (job, instance) (
    nodeagent_build_info offset 1h
    or on (job, instance) process_start_time_seconds > time() - 3600
  )
)`
}

// owned gives the series of containers the labels owner_kind and owner of their
// pod's workload. The agent asks for it within seconds; where it could not, or
// there is no pod, the series comes without.
func owned(expr string) string {
	return `(
  ` + indentRest(expr, "  ") + `
) * on (job, instance, namespace, pod, uid) group_left (owner_kind, owner) nodeagent_pod_owner_info
or on (job, instance, namespace, pod, container, uid)
  ` + indentRest(expr, "  ")
}

func indentRest(text, by string) string { return strings.ReplaceAll(text, "\n", "\n"+by) }
