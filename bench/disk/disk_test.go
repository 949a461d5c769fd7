package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/bench/report"
)

func seconds(s float64) time.Time {
	return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second)))
}

// rising is 1 MiB a second from 10 MiB on.
func rising(until float64) (truth []point) {
	for s := 0.0; s <= until; s += 0.05 {
		truth = append(truth, point{seconds(s), 10<<20 + int64(s*(1<<20))})
	}
	return truth
}

func told(s, made float64, off int64) figure {
	return figure{at: seconds(s), made: seconds(made), bytes: 10<<20 + int64(made*(1<<20)) + off}
}

func TestSeenAfter(t *testing.T) {
	truth := rising(5)
	var prompt, late []figure
	for s := 0.0; s < 8; s += 0.5 {
		prompt = append(prompt, told(s, s, 0))
		late = append(late, told(s, max(0, s-2), 0))
	}
	for name, c := range map[string]struct {
		figures     []figure
		least, most time.Duration
	}{
		"prompt":                   {prompt, 300 * time.Millisecond, 500 * time.Millisecond},
		"two seconds behind":       {late, 2300 * time.Millisecond, 2500 * time.Millisecond},
		"never moves":              {[]figure{told(0, 0, 0), told(7, 0, 0)}, 6900 * time.Millisecond, 7 * time.Second},
		"an old one is no promise": {[]figure{told(0, 9, 0), told(7, 7, 0)}, 6900 * time.Millisecond, 7 * time.Second},
	} {
		got, ok := seenAfter(truth, c.figures)
		if !ok || got < c.least || got > c.most {
			t.Errorf("%s: %v, %v; want %v to %v", name, got, ok, c.least, c.most)
		}
	}
	if _, ok := seenAfter(truth, nil); ok {
		t.Error("without figures something was seen")
	}
}

func TestLargestError(t *testing.T) {
	truth := rising(5)
	for name, c := range map[string]struct {
		figures     []figure
		least, most float64
	}{
		"right":            {[]figure{told(1, 1, 0), told(5, 3, 0)}, 0, 0},
		"five percent off": {[]figure{told(1, 1, 0), told(3, 2, -629146)}, 0.045, 0.05},
		"zero":             {[]figure{{at: seconds(3), made: seconds(3)}}, 1, 1},
	} {
		got, ok := largestError(truth, c.figures)
		if !ok || got < c.least || got > c.most {
			t.Errorf("%s: %v, %v; want %v to %v", name, got, ok, c.least, c.most)
		}
	}
	if _, ok := largestError(truth, []figure{told(0, -3, 0)}); ok {
		t.Error("a figure from before the truth was held against it")
	}
}

func TestTaken(t *testing.T) {
	figures := []figure{told(1, 0.5, 0), told(1.1, 0.501, 0), told(1.2, 0.499, 0), told(1.3, 1.25, 0), told(1.4, 1.25, 0)}
	if got := taken(figures); got != 2 {
		t.Errorf("%d taken, want 2", got)
	}
}

// TestCPUTime holds the clock of a process against the kernel's count of ticks
// before and after it, of which each may lack two.
func TestCPUTime(t *testing.T) {
	for procTime(t) < 100*time.Millisecond { // however long that takes on a busy machine
		continue
	}
	before := procTime(t)
	got, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	after := procTime(t)
	if got < before-30*time.Millisecond || got > after+60*time.Millisecond {
		t.Errorf("%v, /proc/self/stat says %v before and %v after", got, before, after)
	}
}

// TestBench plays every load in a tiny size: it is not about the figures.
func TestBench(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: unit tests alone, no daemons")
	}
	containerd := os.Getenv("NODEAGENT_TEST_CONTAINERD_2")
	if containerd == "" {
		t.Fatal("NODEAGENT_TEST_CONTAINERD_2 is not set: it names the folder whose bin/ holds a containerd. Run `make test-unit`, which fetches it, or `go test -short`")
	}
	folder := t.TempDir()
	for name, of := range map[string]string{"bench": ".", "nodeagent": "../../cmd/nodeagent"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(folder, name), of)
		// As the Makefile builds it, so that the build cache has most of it.
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("cannot build %s: %v\n%s", name, err, out)
		}
	}
	readme := filepath.Join(folder, "README.md")
	if err := os.WriteFile(readme, []byte("<!-- bench/disk -->\n<!-- /bench/disk -->\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	disks, err := os.MkdirTemp("", "nbd") // short: a unix socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(disks) })
	results := filepath.Join(folder, "disk.json")
	cmd := exec.CommandContext(t.Context(), filepath.Join(folder, "bench"), "-tiny", "-agent", filepath.Join(folder, "nodeagent"),
		"-containerd", containerd, "-folder", disks, "-results", results, "-readme", readme)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rows, err := report.Read(results)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"idle (by ", "grow by 1 MiB/s", "error at rest", "temporary file", "one walk of 500", "appends of 512", "its log grows", "resident memory", "growth, 2 layers", "growth, one walk of 100", "grow by 1 MiB/s (by walk)", "its log grows by 1 MiB/s (by walk)"}
	for _, part := range want {
		if !hasRow(rows, part) {
			t.Errorf("no row %q in\n%s", part, report.Table(rows))
		}
	}
	if left, _ := os.ReadDir(disks); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + mark + strconv.Itoa(cmd.Process.Pid)); len(left) > 0 {
		t.Errorf("cgroups were left behind: %v", left)
	}
}

// procTime is utime and stime, the 14th and 15th field of /proc/self/stat.
func procTime(t *testing.T) time.Duration {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		t.Fatalf("cannot read %q", text)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

func hasRow(rows []report.Row, part string) bool {
	for _, r := range rows {
		if strings.Contains(r.Name, part) {
			return true
		}
	}
	return false
}
