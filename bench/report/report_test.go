package report

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func rows() []Row {
	return []Row{
		Beside("idle", "ms/s", 0.35123, "containerd", 110).RatioAtMost(0.01),
		Beside("walk", "ms", 640, "du", 600).RatioAtMost(1),
		Beside("wrong figures", "", 0, "containerd", 0).AtMost(0),
		Alone("memory", "MiB", 41.04).AtMost(40),
		Alone("appends of 512 B", "µs", 1.9),
	}
}

func TestTable(t *testing.T) {
	want := `| figure | ours | peer | ratio | target | holds |
|---|---|---|---|---|---|
| idle | 0.351 ms/s | 110 ms/s (containerd) | 1/313 | ≤ 1/100 of the peer | yes |
| walk | 640 ms | 600 ms (du) | 1.07 | ≤ 1 of the peer | **no** |
| wrong figures | 0 | 0 (containerd) |  | ≤ 0 | yes |
| memory | 41 MiB |  |  | ≤ 40 MiB | **no** |
| appends of 512 B | 1.9 µs |  |  |  |  |
`
	if got := Table(rows()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNoRatioHoldsNothing(t *testing.T) {
	if r := Beside("walk", "ms", 1, "du", 0).RatioAtMost(1); r.Ratio != nil || r.Holds {
		t.Errorf("%+v: without a figure of the peer nothing is proved", r)
	}
}

func TestWriteAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results", "disk.json")
	if err := Write(path, rows()); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil || !reflect.DeepEqual(got, rows()) {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestInsert(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	text := "above\n<!-- disk -->\nold\n<!-- /disk -->\nbelow\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Insert(path, "disk", "new\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := os.ReadFile(path)
	if want := "above\n<!-- disk -->\nnew\n<!-- /disk -->\nbelow\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := Insert(path, "launch", ""); err == nil {
		t.Error("no error for a file without the lines")
	}
}
