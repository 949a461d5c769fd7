// Command generate writes what is told twice from the place where it is told
// once: the agent's rights in manifests/base/rbac.yaml from restart.Rights,
// what the API server refuses it from restart.Fences, the table in
// docs/restart.md from restart.Cases,
// docs/config.md from the Go types of the configuration and their defaults,
// docs/metrics.md from the packages' tables of metrics, docs/launch/lifecycle.md
// from the table of a task's life, the alert rules and
// docs/alerts.md from build/alerts, the dashboard from build/dashboard. Run it
// in the repository's root; `make generate` does.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nodeagent/nodeagent/build/alerts"
	"github.com/nodeagent/nodeagent/build/dashboard"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/lifecycle"
)

func main() {
	runbooks := flag.String("runbooks", alerts.Runbooks, "where alerts link to: the `URL` below which NAME.md is an alert's runbook")
	flag.Parse()
	if err := generate(".", *runbooks); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// page is one generated file.
type page struct {
	path string // in the repository
	make func(root string) ([]byte, error)
}

func pages(runbooks string) []page {
	return []page{
		{"manifests/base/rbac.yaml", rbac},
		{"manifests/base/fences.yaml", fences},
		{"manifests/overlays/other-kinds/rbac.yaml", otherKinds},
		{"manifests/overlays/reload/rbac.yaml", reloadRights},
		{"manifests/overlays/launch/rbac.yaml", launch},
		{"docs/config.md", config},
		{"docs/restart.md", cases},
		{"docs/metrics.md", metrics},
		{"docs/launch/lifecycle.md", func(string) ([]byte, error) { return lifecycle.Page(), nil }},
		{"docs/alerts.md", alertsPage},
		{"manifests/alerts/nodeagent.rules.yaml", func(string) ([]byte, error) { return alerts.Plain(runbooks) }},
		{"manifests/alerts/scrape.yaml", func(string) ([]byte, error) { return alerts.Scrape(), nil }},
		{"manifests/alerts/prometheusrule.yaml", func(string) ([]byte, error) { return alerts.Object(runbooks) }},
		{"manifests/dashboard/nodeagent.json", func(string) ([]byte, error) { return dashboard.JSON() }},
	}
}

func generate(root, runbooks string) error {
	for _, p := range pages(runbooks) {
		text, err := p.make(root)
		if err != nil {
			return fmt.Errorf("cannot make %s: %w", p.path, err)
		}
		if err := os.WriteFile(filepath.Join(root, p.path), text, 0o644); err != nil {
			return fmt.Errorf("cannot write: %w", err)
		}
	}
	return nil
}
