package dashboard

import (
	"bytes"
	"encoding/json"
)

// JSON is the dashboard as Grafana imports it.
func JSON() ([]byte, error) {
	var panels []panel
	for _, part := range [][]panel{overview(), disks(), containers(), restarts(), agents()} {
		panels = append(panels, part...)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(board{
		UID: "nodeagent", Title: "nodeagent", Tags: []string{"kubernetes", "disk"},
		Description:   "Generated from build/dashboard. What containers write, when disks are full, what was restarted.",
		SchemaVersion: 39, Editable: true, GraphTooltip: 1, Refresh: "30s",
		Time:       map[string]any{"from": "now-3h", "to": "now"},
		Templating: templating{List: variables()},
		Panels:     arrange(panels),
	})
	return out.Bytes(), err
}

func variables() []variable {
	all := map[string]any{"text": "All", "value": "$__all"}
	return []variable{
		{Name: "datasource", Label: "Prometheus", Type: "datasource", Query: "prometheus"},
		{
			Name: "instance", Label: "Agent", Type: "query", Query: "label_values(nodeagent_build_info, instance)",
			Datasource: source(), Refresh: 2, Multi: true, IncludeAll: true, AllValue: ".*", Sort: 1, Current: all,
		},
		{
			Name: "namespace", Label: "Namespace", Type: "query", Query: "label_values(nodeagent_container_offender, namespace)",
			Datasource: source(), Refresh: 2, Multi: true, IncludeAll: true, AllValue: ".*", Sort: 1, Current: all,
		},
	}
}

func overview() []panel {
	return []panel{
		stat("Offenders", "Containers that are judged to fill a disk or their own limit.", "none",
			`sum(nodeagent_container_offender{instance=~"$instance"})`, step{Color: "green"}, from("red", 1)),
		stat("Next disk full in", "Until the reserve of the first file system is reached; +Inf when none grows.", "s",
			`min(nodeagent_filesystem_full_seconds{instance=~"$instance"})`, step{Color: "red"}, from("orange", 1800), from("green", 21600)),
		stat("Restarts in 24 h", "Of those that left a series before; a first result of its kind is not counted.", "none",
			`sum(increase(nodeagent_restarts_total{instance=~"$instance"}[24h]))`),
		stat("Freed in 24 h", "Bytes that went with replaced pods.", "bytes",
			`sum(increase(nodeagent_restart_freed_bytes_total{instance=~"$instance"}[24h]))`),
		stat("Agents without containerd", "Agents that do not hear from containerd at this moment.", "none",
			`sum(1 - nodeagent_runtime_connected{instance=~"$instance"})`, step{Color: "green"}, from("red", 1)),
		stat("Oldest figure", "Age of the oldest disk figure of any container.", "s",
			`max(nodeagent_disk_measure_age_seconds{instance=~"$instance"})`, step{Color: "green"}, from("orange", 300), from("red", 900)),
	}
}

func disks() []panel {
	byDisk := []string{"instance", "filesystem", "resource"}
	return []panel{
		row("Disks"),
		list("Full in", "Until the reserve of each file system is reached. Those that do not grow are left out.", 10, false, byDisk,
			column{"full in", "s", `min by (instance, filesystem, resource) (nodeagent_filesystem_full_seconds{instance=~"$instance"} < Inf)`}),
		graph("Used, up to the reserve", "1 is where the reserve begins and the kubelet evicts.", "percentunit", 14,
			query{`nodeagent_filesystem_used_bytes{instance=~"$instance"} / (nodeagent_filesystem_size_bytes{instance=~"$instance"} - nodeagent_filesystem_reserve_bytes{instance=~"$instance"})`, "{{instance}} {{filesystem}}"},
			query{`nodeagent_filesystem_used_inodes{instance=~"$instance"} / (nodeagent_filesystem_size_inodes{instance=~"$instance"} - nodeagent_filesystem_reserve_inodes{instance=~"$instance"})`, "{{instance}} {{filesystem}} inodes"}),
		graph("Used", "By all writers, and where the reserve begins.", "bytes", 12,
			query{`nodeagent_filesystem_used_bytes{instance=~"$instance"}`, "{{instance}} {{filesystem}} used"},
			query{`nodeagent_filesystem_size_bytes{instance=~"$instance"} - nodeagent_filesystem_reserve_bytes{instance=~"$instance"}`, "{{instance}} {{filesystem}} reserve begins"}),
		graph("Unattributed", "Used, but by no container, image layer or orphaned snapshot: image pulls, hostPath and local volumes, the host.", "bytes", 12,
			query{`nodeagent_filesystem_unattributed_bytes{instance=~"$instance"}`, "{{instance}} {{filesystem}}"}),
	}
}

func containers() []panel {
	byContainer := []string{"instance", "namespace", "pod", "container"}
	return []panel{
		row("Containers"),
		list("Offenders", "Judged to fill a disk or their own limit.", 12, false, byContainer,
			column{"full in", "s", `min by (instance, namespace, pod, container) (min without (bound, resource) (nodeagent_container_disk_full_seconds{instance=~"$instance",namespace=~"$namespace"}) and nodeagent_container_offender == 1)`},
			column{"bytes", "bytes", `sum by (instance, namespace, pod, container) (sum without (part) (nodeagent_container_disk_bytes{instance=~"$instance",namespace=~"$namespace"}) and nodeagent_container_offender == 1)`},
			column{"growth", "Bps", `sum by (instance, namespace, pod, container) (nodeagent_container_disk_growth_bytes_per_second{instance=~"$instance",namespace=~"$namespace"} and nodeagent_container_offender == 1)`}),
		list("Largest", "What containers hold now, in all parts.", 12, true, byContainer,
			column{"bytes", "bytes", `topk(15, sum by (instance, namespace, pod, container) (nodeagent_container_disk_bytes{instance=~"$instance",namespace=~"$namespace"}))`},
			column{"inodes", "none", `topk(15, sum by (instance, namespace, pod, container) (nodeagent_container_disk_inodes{instance=~"$instance",namespace=~"$namespace"}))`}),
		graph("Fastest growing", "As expected from the samples; 0 when it does not grow.", "Bps", 12,
			query{`topk(10, nodeagent_container_disk_growth_bytes_per_second{instance=~"$instance",namespace=~"$namespace"} > 0)`, "{{namespace}}/{{pod}} {{container}}"}),
		graph("Fastest growing in inodes", "Files and folders that are made; those that make none are left out.", "none", 12,
			query{`topk(10, nodeagent_container_disk_growth_inodes_per_second{instance=~"$instance",namespace=~"$namespace"})`, "{{namespace}}/{{pod}} {{container}}"}),
		graph("Bytes by part", "Of all containers that are chosen.", "bytes", 12,
			query{`sum by (part) (nodeagent_container_disk_bytes{instance=~"$instance",namespace=~"$namespace"})`, "{{part}}"}),
	}
}

func restarts() []panel {
	return []panel{
		row("Restarts"),
		bars("By result", "", "none", 8,
			query{`sum by (result) (increase(nodeagent_restarts_total{instance=~"$instance"}[$__rate_interval]))`, "{{result}}"}),
		bars("Freed", "Bytes that replaced pods had written and that went with them.", "bytes", 8,
			query{`sum by (instance) (increase(nodeagent_restart_freed_bytes_total{instance=~"$instance"}[$__rate_interval]))`, "{{instance}}"}),
		graph("Duration", "From when a Restart was taken up to its end, over the last 6 hours.", "s", 8,
			query{`histogram_quantile(0.5, sum by (le, kind) (increase(nodeagent_restart_duration_seconds_bucket{instance=~"$instance"}[6h])))`, "{{kind}} half"},
			query{`histogram_quantile(0.95, sum by (le, kind) (increase(nodeagent_restart_duration_seconds_bucket{instance=~"$instance"}[6h])))`, "{{kind}} 95%"}),
		graph("Under way", "", "none", 12,
			query{`nodeagent_restart_active{instance=~"$instance"}`, "{{instance}}"}),
		bars("Steps tried again", "Mostly the API server's refusals or absence.", "none", 12,
			query{`sum by (step) (increase(nodeagent_restart_errors_total{instance=~"$instance"}[$__rate_interval]))`, "{{step}}"}),
	}
}

func agents() []panel {
	return []panel{
		row("Agents"),
		graph("Age of figures", "The oldest of each agent.", "s", 8,
			query{`max by (instance, method) (nodeagent_disk_measure_age_seconds{instance=~"$instance"})`, "{{instance}} {{method}}"}),
		bars("Failures", "Looks that could not be taken; questions to containerd that failed.", "none", 8,
			query{`sum by (method) (increase(nodeagent_disk_measure_failures_total{instance=~"$instance"}[$__rate_interval]))`, "measure {{method}}"},
			query{`sum by (call) (increase(nodeagent_runtime_failures_total{instance=~"$instance"}[$__rate_interval]))`, "containerd {{call}}"}),
		graph("Time of one look", "95% take less.", "s", 8,
			query{`histogram_quantile(0.95, sum by (le, instance, method) (rate(nodeagent_disk_measure_duration_seconds_bucket{instance=~"$instance"}[$__rate_interval])))`, "{{instance}} {{method}}"}),
		graph("Hears from containerd", "1 or 0.", "none", 8,
			query{`nodeagent_runtime_connected{instance=~"$instance"}`, "{{instance}}"}),
		graph("Containers known", "", "none", 8,
			query{`sum by (instance) (nodeagent_runtime_containers{instance=~"$instance"})`, "{{instance}}"}),
		graph("Not measured", "Looks that hang; layers of snapshotters that keep no plain folder.", "none", 8,
			query{`nodeagent_disk_measures_stuck{instance=~"$instance"}`, "{{instance}} stuck"},
			query{`sum by (instance, snapshotter) (nodeagent_disk_unsupported_layers{instance=~"$instance"})`, "{{instance}} {{snapshotter}}"}),
		graph("Memory", "Resident.", "bytes", 12,
			query{`process_resident_memory_bytes{instance=~"$instance"} and on (job, instance) nodeagent_build_info`, "{{instance}}"}),
		graph("CPU", "Share of one core.", "percentunit", 12,
			query{`rate(process_cpu_seconds_total{instance=~"$instance"}[$__rate_interval]) and on (job, instance) nodeagent_build_info`, "{{instance}}"}),
	}
}
