//go:build linux

package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckHostRoot(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"host/proc", "host/etc", "empty"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	write(t, filepath.Join(root, "file"), 1)
	for _, c := range []struct{ path, want string }{
		{"host", ""},
		{"empty", "is no host's root folder"},
		{"file", "is no folder"},
		{"missing", "no such file or directory"},
	} {
		err := CheckHostRoot(filepath.Join(root, c.path))
		if (err == nil) != (c.want == "") || (err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "set hostRoot to"))) {
			t.Errorf("%s: %v, want %q and what to do", c.path, err, c.want)
		}
	}
}
