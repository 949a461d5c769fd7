package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const recordedLeak = "../../pkg/disk/testdata/series/leak-to-limit.jsonl.gz"

// TestReplayCommand replays what a real program wrote.
func TestReplayCommand(t *testing.T) {
	var out, notes bytes.Buffer
	run := func(args ...string) error {
		out.Reset()
		notes.Reset()
		cmd := newRootCommand()
		cmd.SetArgs(append([]string{"replay"}, args...))
		cmd.SetOut(&out)
		cmd.SetErr(&notes)
		return cmd.Execute()
	}
	if err := run(recordedLeak); err != nil {
		t.Fatal(err)
	}
	line := out.String()
	for _, part := range []string{
		" offender series/leak-to-limit/app: /debug.log in leak-to-limit/app grew ", "its ephemeral-storage limit of 200 MiB is reached in ",
		" KiB/s to ", "; full in ", ", expected ",
	} {
		if !strings.Contains(line, part) || strings.Count(line, "\n") != 1 {
			t.Errorf("printed %q, want one line with %q", line, part)
		}
	}
	if !strings.Contains(notes.String(), "verdicts on 1 containers in 6m59s, 1 changes; the agent ended") {
		t.Errorf("noted %q", notes.String())
	}
	if err := run("-o", "json", "--all", recordedLeak); err != nil {
		t.Fatal(err)
	}
	offenders := 0
	dec := json.NewDecoder(&out)
	for dec.More() {
		var v replayed
		if err := dec.Decode(&v); err != nil {
			t.Fatal(err)
		}
		if v.Offender {
			offenders++
			if v.Bound != "container" || v.FullSeconds.Soonest == nil || v.Message == "" || len(v.Growing) == 0 || v.Growing[0].Path != "/debug.log" {
				t.Fatalf("an offender is told as %+v", v)
			}
		}
	}
	if offenders < 100 {
		t.Errorf("%d verdicts tell an offender", offenders)
	}

	// A horizon of a minute is reached only at the end.
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("disk: {horizon: 1m}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := strings.Fields(line)[0]
	if err := run("--config", config, recordedLeak); err != nil {
		t.Fatal(err)
	}
	if later := strings.Fields(out.String())[0]; later <= first {
		t.Errorf("with a horizon of a minute told at %s, with 30 at %s", later, first)
	}

	for _, c := range []struct{ args, want string }{
		{"/none", "no such file"},
		{"-o yaml " + recordedLeak, "want text or json"},
		{"replay_test.go", "cannot replay replay_test.go: cannot read the recording: line 1"},
		{"", "accepts 1 arg"},
	} {
		if err := run(strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("replay %s: %v, want %q", c.args, err, c.want)
		}
	}
}
