package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/cgroup"
)

// A cgroup of somebody else below ours, which cannot be removed because it has
// one below itself, keeps nothing from being attached or started.
func TestAttachLeavesAForeignCgroup(t *testing.T) {
	l := newLauncher(t, nil)
	foreign, _, err := l.tree.Create("foreign", cgroup.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(l.o.CgroupRoot, "*", l.o.CgroupParent, "foreign"))
	if l.tree.V2() {
		dirs = []string{filepath.Join(l.o.CgroupRoot, l.o.CgroupParent, "foreign")}
	}
	if err != nil || len(dirs) == 0 {
		t.Fatalf("the foreign cgroup is not where it should be: %v", err)
	}
	for _, dir := range dirs {
		below := filepath.Join(dir, "below")
		if err := os.Mkdir(below, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = os.Remove(below)
			_ = os.Remove(dir)
		})
	}
	if _, err := l.Attach(soon(t)); err != nil {
		t.Errorf("attaching refused because of a foreign cgroup: %v", err)
	}
	if _, err := foreign.ID(); err != nil {
		t.Errorf("the foreign cgroup is not there any more: %v", err)
	}
	start(t, l, acting(t, "beside"))
}
