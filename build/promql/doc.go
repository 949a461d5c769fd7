// Package promql holds what nodeagent ships for Prometheus to Prometheus' own
// parser and the operator's own types: the alerts' and the dashboard's queries
// name metrics and labels that docs/metrics.md has, and only those, and so do the
// series that the alerts' tests play.
//
// It reads the generated files, imports nothing of the agent, and is a module
// of its own so that the agent's go.mod does not carry Prometheus.
// Run it with -count=1: go test does not see files outside the module change.
package promql
