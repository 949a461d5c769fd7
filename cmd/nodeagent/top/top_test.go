package top

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
)

var update = flag.Bool("update", false, "write the golden files anew")

func seconds(s float64) *float64 { return &s }

// sample has an offender, a slow writer, an idle container, one outside
// Kubernetes, and one with a hostile name.
func sample() Report {
	return Report{
		Node: "node-1", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Filesystems: []Filesystem{{
			Mount: "/var/lib/containerd", Size: 100 << 30, Used: 71 << 30, Available: 29 << 30, Reserve: 15 << 30, FullSeconds: seconds(720),
			Inodes: 6_553_600, InodesUsed: 655_360, InodesFree: 5_898_240, InodeReserve: 327_680,
		}},
		Containers: []Container{
			{
				Namespace: "shop", Pod: "checkout-7c9f-abcde", Container: "app", ID: "1", Bytes: 4 << 30, Inodes: 12,
				Parts: map[string]int64{"layer": 4<<30 - 5<<20, "logs": 5 << 20}, InodeParts: map[string]int64{"layer": 9, "logs": 3}, Rate: Rate{Low: 18 << 20, Expected: 20 << 20, High: 22 << 20},
				FullSeconds: seconds(720), Bound: "filesystem", Offender: true, Method: "events", AgeSeconds: 1,
				Message: "/app/logs/debug.log grew", Growing: []File{{Path: "/app/logs/debug.log", Bytes: 4 << 30, BytesPerSecond: 20 << 20}, {Path: "/spool", Files: 9000, Bytes: 1 << 20}},
			},
			{Namespace: "shop", Pod: "cart-1", Container: "app", ID: "2", Bytes: 5 << 30, Inodes: 100_000, Parts: map[string]int64{"layer": 5 << 30}, Method: "walk", Rate: Rate{Expected: 100}, FullSeconds: seconds(1e6)},
			{Namespace: "kube-system", Pod: "dns", Container: "dns", ID: "3", Bytes: 4096, Inodes: 3, Method: "walk"},
			{Container: "moby/4f3c", ID: "4", Bytes: 8192, Inodes: 5, Method: "walk"},
			{Namespace: "evil", Pod: "p", Container: "a\x1b[2Jb\n", ID: "5", Method: "walk"},
		},
	}
}

func ids(all []Container) string {
	var s strings.Builder
	for _, c := range all {
		s.WriteString(c.ID)
	}
	return s.String()
}

func TestArrange(t *testing.T) {
	for _, c := range []struct {
		order  Order
		filter string
		want   string
	}{
		{ByFull, "", "12534"},
		{ByGrowth, "", "12534"},
		{BySize, "", "21435"},
		{ByInodes, "", "21435"},
		{ByName, "", "53421"},
		{ByFull, "shop/", "12"},
		{ByFull, "APP", "12"},
		{ByFull, "nobody", ""},
	} {
		if got := ids(Arrange(sample().Containers, c.order, c.filter)); got != c.want {
			t.Errorf("by %s with %q: %s, want %s", c.order, c.filter, got, c.want)
		}
	}
}

// TestArrangeByWhatRunsOut: growth is that of inodes where these run out first.
func TestArrangeByWhatRunsOut(t *testing.T) {
	r := sample()
	r.Containers[2].Resource, r.Containers[2].InodeRate = "inodes", Rate{Expected: 1000}
	if got := ids(Arrange(r.Containers, ByGrowth, "")); got != "13254" {
		t.Errorf("with 1000 inodes a second in 3: %s, want 13254", got)
	}
	r.Containers[2].InodeRate.Expected = 9000
	if got := ids(Arrange(r.Containers, ByGrowth, "")); got != "31254" {
		t.Errorf("with 9000 inodes a second in 3: %s, want 31254", got)
	}
	r.Containers[2].Resource = "bytes"
	if got := ids(Arrange(r.Containers, ByGrowth, "")); got != "12534" {
		t.Errorf("with bytes that run out first: %s, want 12534", got)
	}
}

// TestSummaryFits: what is left out of a file system's line where there is little
// room is not how it ends.
func TestSummaryFits(t *testing.T) {
	f := sample().Filesystems[0]
	for width, want := range map[int]string{
		96: "/var/lib/containerd  71.0 GiB of 100.0 GiB, 10% of inodes used, reserve 15.0 GiB, full in 12m00s",
		80: "/var/lib/containerd  71.0 GiB of 100.0 GiB, 10% of inodes used, full in 12m00s",
		70: "/var/lib/containerd  71.0 GiB of 100.0 GiB used, full in 12m00s",
		56: "/var/…ainerd  71.0 GiB of 100.0 GiB used, full in 12m00s",
	} {
		if got := f.line(width); got != want {
			t.Errorf("in %d columns %q, want %q", width, got, want)
		}
	}
	f.Mount = strings.Repeat("/mnt", 100)
	for width := 30; width < 200; width++ {
		if n := len([]rune(f.line(width))); n > width {
			t.Errorf("%d columns in %d", n, width)
		}
	}
}

func TestText(t *testing.T) {
	for in, want := range map[float64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3.2 * 1024 * 1024: "3.2 MiB", 5 << 40: "5.0 TiB"} {
		if got := Size(in); got != want {
			t.Errorf("size %v is %q, want %q", in, got, want)
		}
	}
	for in, want := range map[float64]string{math.Inf(1): "-", 0: "now", -3: "now", 59: "59s", 61: "1m01s", 7265: "2h01m", 300000: "3d", 1e12: "-"} {
		if got := Span(in); got != want {
			t.Errorf("span %v is %q, want %q", in, got, want)
		}
	}
	for _, c := range []struct {
		in    string
		width int
		right bool
		want  string
	}{
		{"abc", 5, false, "abc  "}, {"abc", 5, true, "  abc"}, {"abcdefgh", 5, false, "ab…gh"}, {"abcdef", 3, false, "abc"}, {"x", 0, false, ""},
	} {
		if got := fit(c.in, c.width, c.right); got != c.want {
			t.Errorf("fit %q into %d is %q, want %q", c.in, c.width, got, c.want)
		}
	}
	if got := curve([]float64{0, 1, 2, 4}, 6); got != "  ▁▃▅█" {
		t.Errorf("curve is %q", got)
	}
	if got := curve([]float64{0, 0}, 2); got != "▁▁" {
		t.Errorf("flat curve is %q", got)
	}
}

func TestHostileNamesStayPlain(t *testing.T) {
	var out bytes.Buffer
	if err := WriteTable(&out, sample(), ByName, "", 200); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\r") || strings.Count(out.String(), "\n") != 7 {
		t.Errorf("a container's name reaches the terminal as it is: %q", out.String())
	}
}

func TestTableGolden(t *testing.T) {
	var out bytes.Buffer
	for _, width := range []int{80, 120, 200} {
		from := out.Len()
		if err := WriteTable(&out, sample(), ByFull, "", width); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()[from:]) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > width {
				t.Errorf("a line of %d in a terminal of %d: %s", n, width, line)
			}
		}
	}
	const golden = "testdata/table.txt"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("the table differs from %s; -update writes it:\n%s", golden, out.String())
	}
}

// play presses keys one after the other.
func play(t *testing.T, m model, keys ...string) model {
	t.Helper()
	for _, k := range keys {
		next, _ := m.Update(press(k))
		m = next.(model)
	}
	return m
}

func press(k string) tea.KeyPressMsg {
	switch k {
	case "enter":
		return tea.KeyPressMsg{Code: tea.KeyEnter}
	case "esc":
		return tea.KeyPressMsg{Code: tea.KeyEscape}
	case "down":
		return tea.KeyPressMsg{Code: tea.KeyDown}
	case "backspace":
		return tea.KeyPressMsg{Code: tea.KeyBackspace}
	}
	return tea.KeyPressMsg{Code: []rune(k)[0], Text: k}
}

func shown(t *testing.T) model {
	t.Helper()
	m := newModel(func() (Report, error) { return sample(), nil }, ByFull, "")
	next, again := m.Update(reported{report: sample()})
	if again == nil {
		t.Fatal("after a report no further one is asked for")
	}
	return next.(model)
}

// TestInodesRunOut: a file system, and a container, of which inodes run out is
// not told as one that does not fill.
func TestInodesRunOut(t *testing.T) {
	sound := Filesystem{Size: 100, Used: 20, Available: 80, Reserve: 15, Inodes: 1000, InodesUsed: 100, InodesFree: 900, InodeReserve: 50}
	for want, change := range map[string]func(*Filesystem){
		"does not fill":              func(*Filesystem) {},
		"full in 10s":                func(f *Filesystem) { f.FullSeconds, f.InodesFullSeconds = seconds(10), seconds(20) },
		"out of inodes in 20s":       func(f *Filesystem) { f.FullSeconds, f.InodesFullSeconds = seconds(30), seconds(20) },
		"out of inodes in 40s":       func(f *Filesystem) { f.InodesFullSeconds = seconds(40) },
		"past its reserve":           func(f *Filesystem) { f.Available = 15 },
		"past its reserve of inodes": func(f *Filesystem) { f.InodesFree = 50 },
	} {
		f := sound
		change(&f)
		if got := f.outcome(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	r := sample()
	r.Containers[0].Resource, r.Containers[0].InodeRate = "inodes", Rate{Low: 900, Expected: 1000, High: 1100}
	m := newModel(nil, ByFull, "")
	next, _ := m.Update(reported{report: r})
	table := next.(model).View().Content
	detail := play(t, next.(model), "enter").View().Content
	if !strings.Contains(table, "1000 ino/s") || !strings.Contains(detail, "grows 1000 ino/s (between 900 ino/s and 1100 ino/s)") ||
		!strings.Contains(detail, "its filesystem is out of inodes in 12m00s") {
		t.Errorf("nothing tells of inodes in\n%s\n%s", table, detail)
	}
}

func TestKeys(t *testing.T) {
	m := shown(t)
	if got := play(t, m, "s").order; got != ByGrowth {
		t.Errorf("s sorts by %s", got)
	}
	if got := play(t, m, "s", "s", "s", "s", "s").order; got != ByFull {
		t.Errorf("five times s does not come round: %s", got)
	}
	d := play(t, m, "down", "enter")
	if d.at != detail || d.chosen != "2" {
		t.Errorf("down, enter shows %v of %q", d.at, d.chosen)
	}
	if got := play(t, d, "esc"); got.at != table || got.chosen != "2" {
		t.Errorf("esc leads to %v of %q", got.at, got.chosen)
	}
	f := play(t, m, "/", "d", "n", "x", "backspace", "s", "enter")
	if f.filter != "dns" || ids(f.rows()) != "3" || f.at != table {
		t.Errorf("filter %q shows %s", f.filter, ids(f.rows()))
	}
	if got := play(t, f, "/", "esc"); got.filter != "" {
		t.Errorf("esc keeps the filter %q", got.filter)
	}
	if _, quit := m.Update(press("q")); quit == nil {
		t.Error("q does not quit")
	}
}

func TestViewKeepsLastFiguresOnError(t *testing.T) {
	m := shown(t)
	next, _ := m.Update(reported{err: errors.New("cannot ask the agent")})
	text := next.(model).View().Content
	if !strings.Contains(text, "cannot ask the agent") || !strings.Contains(text, "9f-abcde") {
		t.Errorf("the screen lacks the error or the last figures:\n%s", text)
	}
}

func TestDetailNamesFiles(t *testing.T) {
	text := play(t, shown(t), "enter").View().Content
	for _, want := range []string{"shop/checkout-7c9f-abcde/app", "/app/logs/debug.log", "/spool (9000 files)", "20.0 MiB/s", "filesystem in 12m00s", "logs           5.0 MiB in 3 inodes"} {
		if !strings.Contains(text, want) {
			t.Errorf("the detail lacks %q:\n%s", want, text)
		}
	}
}

func TestHistoryForgetsTheGone(t *testing.T) {
	h := history{}
	for range 2 * kept {
		h = h.add(sample())
	}
	if len(h["1"]) != kept {
		t.Errorf("%d rates are kept, want %d", len(h["1"]), kept)
	}
	if h = h.add(Report{}); len(h) != 0 {
		t.Errorf("gone containers are remembered: %v", h)
	}
}
