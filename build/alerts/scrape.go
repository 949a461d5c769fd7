package alerts

// ScrapeJob is how a Prometheus without the operator finds the agents. What the
// PodMonitor does is the same.
const ScrapeJob = `- job_name: nodeagent
  honor_labels: true    # namespace, pod and container are those that are told of, not the agent's own
  kubernetes_sd_configs:
  - role: pod
    namespaces: {names: [nodeagent]}
  relabel_configs:
  - {action: keep, source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_name, __meta_kubernetes_pod_container_port_name], regex: nodeagent;metrics}
  - {source_labels: [__meta_kubernetes_pod_node_name], target_label: node}
`

// Scrape is the job as a file, an element of a Prometheus' scrape_configs.
func Scrape() []byte { return []byte(head + ScrapeJob) }
