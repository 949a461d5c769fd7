// Package blockdev finds a disk for tests that limit what is read and written.
package blockdev

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Number is that of some disk of this machine: 8:0.
func Number(t testing.TB) string {
	t.Helper()
	all, err := filepath.Glob("/sys/block/*/dev")
	if err != nil || len(all) == 0 {
		t.Fatalf("this machine has no disk: %v", err)
	}
	raw, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}
