// Package dashboard is nodeagent's Grafana dashboard as code.
// build/generate writes manifests/dashboard/nodeagent.json from it, and
// build/promql holds its queries to Prometheus' parser and to the metrics that
// there are.
//
// The types in model.go are the few of Grafana's dashboard schema that it
// needs. Grafana's Foundation SDK has them all; its module does not come
// through the Go module proxy (docs/dependencies.md).
package dashboard
