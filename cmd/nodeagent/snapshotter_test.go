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
	failed := func() float64 {
		_, text := a.get("/metrics")
		v, ok := sample(t, text, `nodeagent_disk_measure_failures_total{method="snapshotter"}`)
		if !ok {
			t.Fatal("failures are not counted")
		}
		return v
	}
	for _, s := range []struct {
		name, script, held string
		mayFail            bool // containerd's own walk fails over a file that vanishes: the last figure stays
	}{
		{name: "made", script: `mkdir -p a/b; for i in 1 2 3; do head -c $((i*300000)) /dev/urandom > a/b/$i; done`},
		{name: "appended", script: `head -c 3000000 /dev/urandom >> a/b/1`},
		{name: "truncated", script: `truncate -s 100 a/b/1`},
		{name: "renamed over", script: `head -c 2000000 /dev/urandom > new; mv new a/b/2`, mayFail: true},
		{name: "hard links", script: `ln a/b/2 a/two; ln a/b/2 a/b/zwei`},
		{name: "sparse, punched", script: `truncate -s 1G sparse; head -c 4M /dev/urandom > punched; sync punched; fallocate -p -o 1M -l 2M punched`},
		{name: "odd names, FIFO, links out", script: `mkdir "$(printf 'new\nline')"; echo x > "$(printf '\377\376')"; mkfifo fifo; ln -s / root; ln -s ../.. up`},
		{name: "allocated, reflink", script: `fallocate -l 3M allocated; cp --reflink=auto a/b/2 copy; head -c 8192 /dev/urandom >> copy`},
		{name: "devices, socket", script: `mknod null c 1 3; mknod whiteout c 0 0; mknod loop b 7 200; perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "sock", Listen => 1) or die'`},
		{name: "deleted and still open", script: `head -c 1000000 /dev/urandom > held`, held: "held", mayFail: true},
		{name: "deep", script: `mkdir -p "$(printf 'deep/%.0s' $(seq 200))"`},
		{name: "many files", script: `mkdir many; for i in $(seq 500); do echo $i > many/$i; done`},
		{name: "come and go", script: `for i in $(seq 300); do echo $i > temporary; rm temporary; done`, mayFail: true},
		{name: "removed", script: `rm -rf ./*`, mayFail: true},
	} {
		before := failed()
		for snapshotter, folder := range folders {
			cmd := exec.Command("bash", "-ec", s.script+"; sync -f .")
			cmd.Dir = folder
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s on %s: %v: %s", s.name, snapshotter, err, out)
			}
			if s.held != "" {
				deletedAndOpen(t, filepath.Join(folder, s.held))
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
		if n := failed() - before; n > 0 && !s.mayFail {
			t.Errorf("%s: %v looks failed", s.name, n)
		}
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
}

// deletedAndOpen deletes a file that stays open until the test's end: a
// snapshotter that walks sees it no more, one that keeps a device does.
func deletedAndOpen(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
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
