package main

import (
	"bytes"

	"github.com/nodeagent/nodeagent/build/alerts"
)

const alertsHead = `<!-- Generated from build/alerts by make generate; change it there. -->
# Alerts

Severity critical wakes a person; warning waits for the working day. Each alert leads to its runbook.

`

const alertsTail = `
## Install them
| Prometheus | how |
|---|---|
| run by the Prometheus operator | ` + "`kubectl apply -k manifests/alerts`" + `: a PodMonitor and a PrometheusRule. Add the labels that your Prometheus selects by |
| any other | ` + "`manifests/alerts/nodeagent.rules.yaml`" + ` under ` + "`rule_files`" + `, and the job below |

` + "```yaml" + `
- job_name: nodeagent
  honor_labels: true    # namespace, pod and container are those that are told of, not the agent's own
  kubernetes_sd_configs:
  - role: pod
    namespaces: {names: [nodeagent]}
  relabel_configs:
  - {action: keep, source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_name, __meta_kubernetes_pod_container_port_name], regex: nodeagent;metrics}
  - {source_labels: [__meta_kubernetes_pod_node_name], target_label: node}
` + "```" + `

` + "`honor_labels`" + ` is needed: without it Prometheus puts the agent's own pod in place of the one that is told of. The label ` + "`node`" + ` is for people; without it alerts name the target's address.

One incident can raise several of them. In Alertmanager, let the disk's alert speak for the container's:
` + "```yaml" + `
inhibit_rules:
- source_matchers: [alertname =~ "NodeagentDiskFullSoon|NodeagentDiskPastReserve"]
  target_matchers: [alertname =~ "NodeagentOffender|NodeagentUnattributedGrowth"]
  equal: [instance]
` + "```" + `

The links lead to this repository. ` + "`go run ./build/generate -runbooks https://wiki.example/nodeagent`" + ` writes them with a place of your own, where each page is found as NAME.md.

## How they are tested
` + "`manifests/alerts/tests`" + ` has promtool tests of each alert: that it fires, with the whole text; that it does not; that it resolves. ` + "`build/promql`" + ` holds every query of the alerts and of the dashboard to Prometheus' own parser and to the metrics and labels of [metrics.md](metrics.md).
`

func alertsPage(string) ([]byte, error) {
	return bytes.Join([][]byte{[]byte(alertsHead), alerts.Table(), []byte(alertsTail)}, nil), nil
}
