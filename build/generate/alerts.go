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
` + alerts.ScrapeJob + "```" + `
It is ` + "`manifests/alerts/scrape.yaml`" + ` too. Prometheus' service account needs get, list and watch on pods in the namespace nodeagent; one outside the cluster finds them with ` + "`kubeconfig_file`" + ` in the kubernetes_sd_config.

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
` + "`manifests/alerts/tests`" + ` has promtool tests of each alert: that it fires, with the whole text; that it does not; that it resolves. ` + "`build/promql`" + ` holds every query of the alerts and of the dashboard to Prometheus' own parser and to the metrics and labels of [metrics.md](metrics.md), and the series that those tests play to all the labels that agents expose. One story in ` + "`test/e2e`" + ` has Debian's Prometheus and Alertmanager scrape the agents by the job above and read these rules: a leak becomes a firing alert that names namespace, pod, container and owner, and it resolves after the restart.

## Whose it is
The labels ` + "`owner_kind` and `owner`" + ` of NodeagentOffender and NodeagentEvictionSoon name the workload that would be restarted; route by ` + "`namespace`" + ` or by them. The agent asks the API for it when a pod becomes an offender or would be full within 15 minutes (` + "`nodeagent_pod_owner_info`" + `), and never for other pods. Where it could not be asked the alert comes without.
`

func alertsPage(string) ([]byte, error) {
	return bytes.Join([][]byte{[]byte(alertsHead), alerts.Table(), []byte(alertsTail)}, nil), nil
}
