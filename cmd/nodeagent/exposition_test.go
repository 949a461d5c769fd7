package main

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestExposition holds what /metrics tells: read by promtool, no series twice,
// and names, types, help and labels as in the golden file. The process knows
// the API (which is away), so that the metrics of restarts are there too.
func TestExposition(t *testing.T) {
	const golden = "testdata/exposition.txt"
	d := newContainerd(t)
	write(t, filepath.Join(d.addPod(t, "web-02", "web"), "debug.log"), 1<<20)
	grow(t, filepath.Join(d.addPod(t, "web-01", "web"), "debug.log"))
	a := startAgent(t, d, "--kubeconfig", deadAPI(t))
	a.await("/readyz", "ready but for the pods", func(code int, body string) bool {
		return code == http.StatusServiceUnavailable && body == "pods: this node's pods were not yet listed\n"
	})
	text := a.await("/metrics", "what the snapshotter keeps, and when a file that grows fills the disk", func(_ int, body string) bool {
		return strings.Contains(body, "\nnodeagent_filesystem_images_bytes{") && strings.Contains(body, "\nnodeagent_container_disk_full_latest_seconds{")
	})

	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	// What a look finds, and what is made of it, is told one after the other.
	for deadline := time.Now().Add(patience); !*update && normalised(text) != string(want) && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		_, text = a.get("/metrics")
	}

	promtool(t, text)
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		series, _, _ := strings.Cut(line, "} ")
		if !strings.HasPrefix(line, "#") && seen[series] {
			t.Errorf("twice: %s", line)
		}
		seen[series] = true
	}
	if v, _ := sample(t, text, `promhttp_metric_handler_errors_total{cause="gathering"}`); v != 0 {
		t.Error("errors while gathering")
	}

	got := normalised(text)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got != string(want) && !*update {
		t.Errorf("the exposition is not %s; run this test with -update and read the difference\ngot:\n%s", golden, got)
	}
	listed(t, text)
}

// grow appends to a file until the test ends, which it does long before there are
// 300 MiB.
func grow(t *testing.T, path string) {
	t.Helper()
	write(t, path, 1<<20)
	done := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		pause := time.NewTicker(200 * time.Millisecond)
		defer pause.Stop()
		for range 3000 {
			if err != nil {
				break
			}
			select {
			case <-done:
				ended <- f.Close()
				return
			case <-pause.C:
				_, err = f.Write(make([]byte, 100<<10))
				err = errors.Join(err, f.Sync())
			}
		}
		ended <- errors.Join(err, f.Close())
	}()
	t.Cleanup(func() {
		close(done)
		if err := <-ended; err != nil {
			t.Errorf("cannot write %s: %v", path, err)
		}
	})
}

func promtool(t *testing.T, text string) {
	t.Helper()
	tool := os.Getenv("NODEAGENT_TEST_PROMTOOL")
	if tool == "" {
		t.Fatal("NODEAGENT_TEST_PROMTOOL is not set: it is the path of promtool. Run `make test`, which fetches it, or `go test -short` for the unit tests alone")
	}
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = strings.NewReader(own(text))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// own drops what Go's client library tells of any process.
func own(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if strings.HasPrefix(name, "nodeagent_") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// normalised takes out what differs from machine to machine.
func normalised(text string) string {
	text = own(text)
	text = regexp.MustCompile(`(?m)^([^#].*) \S+$`).ReplaceAllString(text, "$1 _")
	text = regexp.MustCompile(`(filesystem|version)="[^"]*"`).ReplaceAllString(text, `$1="_"`)
	return regexp.MustCompile(`method="(events|walk)"`).ReplaceAllString(text, `method="_"`)
}

// listed tells whether docs/metrics.md names every metric.
func listed(t *testing.T, text string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(own(text), -1) {
		if !strings.Contains(string(page), "`"+m[1]+"`") {
			t.Errorf("docs/metrics.md does not name %s", m[1])
		}
	}
}
