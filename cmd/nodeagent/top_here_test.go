package main

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/top"
)

// TestTopByItself: where no agent runs, top asks the real containerd and measures.
func TestTopByItself(t *testing.T) {
	d := newContainerd(t)
	upper := d.addPod(t, "web-01", "web")
	write(t, filepath.Join(upper, "debug.log"), 3<<20)
	config := writeConfig(t, "containerd: {socket: "+d.socket+"}\nsocket: "+socketPath(t)+"\n")
	stdout, stderr, code := run(t, "top", "-o", "json", "--config", config)
	var r top.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	if len(r.Containers) != 1 || len(r.Filesystems) != 1 || time.Since(r.At) > patience {
		t.Fatalf("got %s", stdout)
	}
	c, fs := r.Containers[0], r.Filesystems[0]
	if c.Pod != "web-01" || c.Container != "web" || float64(c.Bytes) != diskUse(t, upper) || c.Method != "walk" || c.Offender || c.InodeParts["layer"] < 2 || c.InodeParts["layer"] != c.Inodes {
		t.Errorf("the container is told as %+v", c)
	}
	if fs.Size <= 0 || fs.Used <= 0 || fs.Available <= 0 || fs.Reserve <= 0 || fs.InodesUsed+fs.InodesFree != fs.Inodes {
		t.Errorf("its file system is told as %+v", fs)
	}
}
