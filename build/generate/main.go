// Command generate writes what is told twice from the place where it is told
// once: the agent's rights in manifests/base/rbac.yaml from restart.Rights,
// docs/config.md from the Go types of the configuration and their defaults,
// docs/metrics.md from the packages' tables of metrics. Run it in the
// repository's root; `make generate` does.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := generate("."); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// page is one generated file.
type page struct {
	path string // in the repository
	make func(root string) ([]byte, error)
}

func pages() []page {
	return []page{
		{"manifests/base/rbac.yaml", rbac},
		{"manifests/overlays/other-kinds/rbac.yaml", otherKinds},
		{"docs/config.md", config},
		{"docs/metrics.md", metrics},
	}
}

func generate(root string) error {
	for _, p := range pages() {
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
