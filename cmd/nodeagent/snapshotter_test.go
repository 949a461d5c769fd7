package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
)

// TestSnapshotters: layers that are no folder of their own are measured by what
// a real containerd's snapshotter tells of them, after each thing that a
// container may do. du looks where the snapshotter keeps them.
func TestSnapshotters(t *testing.T) {
	d := newContainerd(t)
	folders, kept := map[string]string{}, map[string]string{}
	for i, snapshotter := range []string{"native", "blockfile"} {
		mounts := d.addPodOn(t, snapshotter, fmt.Sprint(snapshotter, "-0", i), "app")
		folders[snapshotter], kept[snapshotter] = t.TempDir(), mounts[0].Source
		if err := mount.All(mounts, folders[snapshotter]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := mount.UnmountAll(folders[snapshotter], 0); err != nil {
				t.Error(err)
			}
		})
	}
	a := startAgent(t, d, "--standalone")
	a.awaitReady()
	for _, s := range []struct{ name, script string }{
		{"made", `mkdir -p a/b; for i in 1 2 3; do head -c $((i*300000)) /dev/urandom > a/b/$i; done`},
		{"appended", `head -c 3000000 /dev/urandom >> a/b/1`},
		{"truncated", `truncate -s 100 a/b/1`},
		{"renamed over", `head -c 2000000 /dev/urandom > new; mv new a/b/2`},
		{"hard links", `ln a/b/2 a/two; ln a/b/2 a/b/zwei`},
		{"sparse, punched", `truncate -s 1G sparse; head -c 4M /dev/urandom > punched; sync punched; fallocate -p -o 1M -l 2M punched`},
		{"odd names, FIFO, links out", `mkdir "$(printf 'new\nline')"; echo x > "$(printf '\377\376')"; mkfifo fifo; ln -s / root; ln -s ../.. up`},
		{"many files", `mkdir many; for i in $(seq 500); do echo $i > many/$i; done`},
		{"removed", `rm -rf ./*`},
	} {
		for snapshotter, folder := range folders {
			cmd := exec.Command("bash", "-ec", s.script+"; sync -f .")
			cmd.Dir = folder
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s on %s: %v: %s", s.name, snapshotter, err, out)
			}
		}
		a.await("/metrics", s.name, func(_ int, text string) bool {
			for i, snapshotter := range []string{"native", "blockfile"} {
				labels := fmt.Sprintf(`{container="app",namespace="shop",part="layer",pod="%[1]s-0%[2]d",uid="00000000-0000-0000-0000-0000000000%02[2]d"}`, snapshotter, i)
				got, _ := sample(t, text, "nodeagent_container_disk_bytes"+labels)
				if got != diskUse(t, kept[snapshotter]) {
					return false
				}
			}
			return true
		})
	}
	_, text := a.get("/metrics")
	for _, want := range []string{`method="snapshotter",namespace="shop",part="layer",pod="native-00"`, `method="snapshotter",namespace="shop",part="layer",pod="blockfile-01"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no figure with %s", want)
		}
	}
	for _, no := range []string{"nodeagent_disk_unsupported_layers{", `nodeagent_filesystem_size_bytes{filesystem=""}`} {
		if strings.Contains(text, no) {
			t.Errorf("there is a %s", no)
		}
	}
	if v, ok := sample(t, text, `nodeagent_disk_measure_failures_total{method="snapshotter"}`); !ok || v != 0 {
		t.Errorf("%v failures, %v", v, ok)
	}
}

// diskUse is what du says of a folder or file.
func diskUse(t *testing.T, path string) float64 {
	t.Helper()
	out, err := exec.Command("du", "-s", "-x", "--block-size=1", filepath.Clean(path)).Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseFloat(strings.Fields(string(out))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return n
}
