// Package alerts is the one place where nodeagent's alert rules stand. From
// the table in Rules come manifests/alerts/nodeagent.rules.yaml for a plain
// Prometheus, manifests/alerts/prometheusrule.yaml for one that the Prometheus
// operator runs, and the table in docs/alerts.md; build/generate writes them.
//
// Severities: critical wakes a person, warning is for the next working day.
// Every rule has a page in docs/runbooks and a file of promtool tests in
// manifests/alerts/tests, both named after it.
//
// Rules ask for no job name: which targets are agents is told by
// nodeagent_build_info.
package alerts
