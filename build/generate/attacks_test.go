package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAttacks: every attack in docs/launch/attacks.md has a test, and that test
// is there.
func TestAttacks(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/launch/attacks.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 || strings.HasPrefix(line, "|---") || strings.Contains(line, "| test |") {
			continue
		}
		rows++
		named, folder := 0, ""
		for _, m := range regexp.MustCompile("`([^`]+)`|\\b((?:Test|Fuzz)\\w+)").FindAllStringSubmatch(cells[2], -1) {
			if m[1] != "" {
				folder = m[1]
				continue
			}
			named++
			if !hasTest(t, folder, m[2]) {
				t.Errorf("%s has no %s", folder, m[2])
			}
		}
		if named == 0 {
			t.Errorf("no test for %s", cells[0])
		}
	}
	if rows == 0 {
		t.Error("no attack is told")
	}
}

func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+name+"(") {
			return true
		}
	}
	return false
}
