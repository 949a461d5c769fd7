package disk

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// hostJoin is where this process sees a folder of the host.
func hostJoin(hostRoot, folder string) string { return filepath.Join(hostRoot, folder) }

// hostPath is a path of this process as the host sees it.
func hostPath(hostRoot, p string) string {
	if hostRoot == "/" || !below(p, hostRoot) {
		return p
	}
	return cmp.Or(strings.TrimPrefix(p, hostRoot), "/")
}

// CheckHostRoot tells whether the host's root folder is mounted at a path: a
// wrong one would make every layer look as if it were gone.
func CheckHostRoot(hostRoot string) error {
	const advice = "set hostRoot to where the host's root folder is mounted (in the DaemonSet a hostPath of /), / on the host itself"
	if info, err := os.Stat(hostRoot); err != nil {
		return fmt.Errorf("cannot use hostRoot: %w: %s", err, advice)
	} else if !info.IsDir() {
		return fmt.Errorf("cannot use hostRoot: %s is no folder: %s", hostRoot, advice)
	}
	// Every host has these two; an empty folder that a missing mount leaves has none.
	for _, name := range []string{"proc", "etc"} {
		if _, err := os.Stat(filepath.Join(hostRoot, name)); err != nil {
			return fmt.Errorf("cannot use hostRoot: %s is no host's root folder (%w): %s", hostRoot, err, advice)
		}
	}
	return nil
}
