package alerts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const manifests = "../../manifests/alerts"

// TestRules plays each rule's tests with the Prometheus that Debian ships.
func TestRules(t *testing.T) {
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", filepath.Join(manifests, "nodeagent.rules.yaml"))
	for _, r := range Rules() {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			promtool(t, "test", "rules", filepath.Join(manifests, "tests", r.Name+".yaml"))
		})
	}
}

// TestRunbooks: each alert has its page, and its tests see it come, stay away
// and go; no page or tests are left of an alert that is gone.
func TestRunbooks(t *testing.T) {
	known := map[string]bool{}
	for _, r := range Rules() {
		if known[r.Name] {
			t.Errorf("two alerts are called %s", r.Name)
		}
		known[r.Name] = true
		page := read(t, filepath.Join("../../docs/runbooks", r.Name+".md"))
		for _, part := range []string{"# " + r.Name + "\n", "\n## What it means\n", "\n## Look\n", "\n## Decide\n", "\n## Mend\n", "\n## Silence\n"} {
			if !strings.Contains(page, part) {
				t.Errorf("the runbook of %s lacks %q", r.Name, strings.TrimSpace(part))
			}
		}
		tests := read(t, filepath.Join(manifests, "tests", r.Name+".yaml"))
		for _, part := range []string{"- name: fires", "- name: does not fire", "- name: resolves"} {
			if !strings.Contains(tests, part) {
				t.Errorf("the tests of %s lack %q", r.Name, part)
			}
		}
	}
	for _, pattern := range []string{"../../docs/runbooks/*.md", manifests + "/tests/*.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			name, _, _ := strings.Cut(filepath.Base(path), ".")
			if !known[name] {
				t.Errorf("%s belongs to no alert", path)
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("promtool is not run with -short")
	}
	tool := os.Getenv("NODEAGENT_TEST_PROMTOOL")
	if tool == "" {
		t.Fatal("NODEAGENT_TEST_PROMTOOL is not set: it is the path of promtool. Run `make test`, which fetches it, or `go test -short` for the unit tests alone")
	}
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
