package main

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/disk"
)

// TestEvidenceOfManySmallFiles takes the verdict that 20 real processes with
// their small files came to, and follows its evidence to wherever people read
// it: the sentence that the Restart and the Event carry, the log, the report.
func TestEvidenceOfManySmallFiles(t *testing.T) {
	f, err := os.Open("../../pkg/disk/testdata/series/many-small-writers.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := disk.NewReplay(f)
	if err != nil {
		t.Fatal(err)
	}
	var v disk.Verdict
	for !v.Offender {
		if v, err = p.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(v.Message, "/ in many-small-writers/app holds ") || !strings.Contains(v.Message, " MiB) and gets ") ||
		!strings.Contains(v.Message, "is out of inodes in ") {
		t.Errorf("message %q", v.Message)
	}
	if len(v.Evidence) == 0 || v.Evidence[0].Path != "/" || v.Evidence[0].Files < 10_000 || v.Evidence[0].FileRate < 30 {
		t.Errorf("evidence %+v", v.Evidence)
	}

	var log bytes.Buffer
	logOffence(slog.New(slog.NewTextHandler(&log, nil)), v)
	if !strings.Contains(log.String(), " files, ") || !strings.Contains(log.String(), " more/s, ") {
		t.Errorf("log %q", log.String())
	}
	c := containerReport(v, "walk", time.Now())
	if len(c.Growing) == 0 || c.Growing[0].Files < 10_000 || c.Growing[0].FilesPerSecond < 30 || c.Message != v.Message {
		t.Errorf("report %+v", c)
	}
}
