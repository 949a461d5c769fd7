package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecord: what a real agent took down while a layer was written to makes
// the same verdicts again, up to the last figure. The recording before is kept.
func TestRecord(t *testing.T) {
	d := newContainerd(t)
	upper := d.addPod(t, "web-01", "web")
	file := filepath.Join(t.TempDir(), "samples.jsonl.gz")
	if err := os.WriteFile(file, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := startAgent(t, d, "--standalone", "--record", file)
	a.awaitReady()
	write(t, filepath.Join(upper, "debug.log"), 3<<20)
	want := diskUse(t, upper)
	a.await("/metrics", "what was written", func(_ int, text string) bool {
		v, _ := sample(t, text, webBytes)
		return v == want
	})
	if code := a.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	stdout, stderr, code := run(t, "replay", "--all", "-o", "json", file)
	if code != 0 || !strings.Contains(stderr, " verdicts on 1 containers in ") || !strings.HasSuffix(stderr, "; the agent ended\n") {
		t.Fatalf("replay: exit code %d, %s", code, stderr)
	}
	var first, last replayed
	verdicts := 0
	for dec := json.NewDecoder(strings.NewReader(stdout)); dec.More(); verdicts++ {
		last = replayed{}
		if err := dec.Decode(&last); err != nil {
			t.Fatal(err)
		}
		if verdicts == 0 {
			first = last
		}
	}
	if verdicts < 2 || first.Bytes >= 3<<20 || float64(last.Bytes) != want {
		t.Errorf("%d verdicts from %d to %d bytes, want to %v", verdicts, first.Bytes, last.Bytes, want)
	}
	if last.Namespace != "shop" || last.Pod != "web-01" || last.Container != "web" || last.Parts["layer"] != last.Bytes {
		t.Errorf("the last verdict is %+v", last)
	}
	if stdout, stderr, code = run(t, "replay", "--all", file); code != 0 || strings.Count(stdout, " shop/web-01/web: ") != verdicts {
		t.Errorf("replay --all: exit code %d, want %d lines of shop/web-01/web:\n%s%s", code, verdicts, stdout, stderr)
	}
	if kept, err := os.ReadFile(file + ".1"); err != nil || string(kept) != "before" {
		t.Errorf("of the recording before %q is kept, %v", kept, err)
	}
}
