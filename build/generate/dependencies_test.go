package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDependencies: what go.mod asks for directly has its reason in
// docs/dependencies.md, and nothing has one that is no longer asked for.
func TestDependencies(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	wanted := modules(`(?m)^(?:require )?\t?([a-z0-9.-]+\.[a-z]+/\S+) v\S+$`, read("go.mod"))
	table, _, _ := strings.Cut(read("docs/dependencies.md"), "\n## Tools")
	told := modules(`(?m)(?:^\| |, )([a-z0-9.-]+\.[a-z]+/[^ ,|]+)`, table)
	if len(wanted) == 0 || !slices.Equal(wanted, told) {
		t.Errorf("go.mod asks for\n%s\ndocs/dependencies.md tells of\n%s", strings.Join(wanted, "\n"), strings.Join(told, "\n"))
	}
}

func modules(pattern, text string) []string {
	var found []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	slices.Sort(found)
	return found
}
