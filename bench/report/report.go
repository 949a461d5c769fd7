// Package report is the form in which every benchmark tells its figures: rows
// that set ours beside a peer's, as JSON for programs and as a table for people.
package report

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Row is one figure of ours beside a peer's of the same run. Without a peer
// PeerName is empty; without a Target the row is told and promises nothing, and
// Holds is true.
type Row struct {
	Name     string   `json:"name"`
	Ours     float64  `json:"ours"`
	Peer     *float64 `json:"peer"` // null: there is none
	PeerName string   `json:"peerName"`
	Unit     string   `json:"unit"`
	Ratio    *float64 `json:"ratio"` // ours / peer; null where there is no peer, or its figure is 0
	Target   string   `json:"target"`
	Holds    bool     `json:"holds"`
}

// Alone is a figure without a peer.
func Alone(name, unit string, ours float64) Row {
	return Row{Name: name, Unit: unit, Ours: ours, Holds: true}
}

// Beside is a figure with a peer's of the same unit.
func Beside(name, unit string, ours float64, peerName string, peer float64) Row {
	r := Row{Name: name, Unit: unit, Ours: ours, Peer: &peer, PeerName: peerName, Holds: true}
	if ratio := ours / peer; peer != 0 && !math.IsNaN(ratio) && !math.IsInf(ratio, 0) {
		r.Ratio = &ratio
	}
	return r
}

// Promise says what the row is to hold, in words, and whether it does.
func (r Row) Promise(target string, holds bool) Row {
	r.Target, r.Holds = target, holds
	return r
}

// RatioAtMost promises that ours is at most so much of the peer's. It does not
// hold when there is no ratio.
func (r Row) RatioAtMost(most float64) Row {
	target := fmt.Sprintf("≤ %s of the peer", number(most))
	if most > 0 && most < 0.5 {
		target = fmt.Sprintf("≤ 1/%s of the peer", number(1/most))
	}
	return r.Promise(target, r.Ratio != nil && *r.Ratio <= most)
}

// AtMost promises that ours is at most so much, in the row's unit.
func (r Row) AtMost(most float64) Row {
	return r.Promise(strings.TrimSpace(fmt.Sprintf("≤ %s %s", number(most), r.Unit)), r.Ours <= most)
}

// Write writes rows as a JSON list, whole or not at all.
func Write(path string, rows []Row) error {
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot tell the results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot write the results: %w", err)
	}
	return replace(path, append(text, '\n'))
}

// Read reads what Write wrote.
func Read(path string) ([]Row, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the results: %w", err)
	}
	var rows []Row
	if err := json.Unmarshal(text, &rows); err != nil {
		return nil, fmt.Errorf("cannot read the results %s: %w", path, err)
	}
	return rows, nil
}

// Table is rows as a Markdown table.
func Table(rows []Row) string {
	var b strings.Builder
	b.WriteString("| figure | ours | peer | ratio | target | holds |\n|---|---|---|---|---|---|\n")
	for _, r := range rows {
		peer, ratio, holds := "", "", ""
		if r.Peer != nil {
			peer = fmt.Sprintf("%s (%s)", withUnit(*r.Peer, r.Unit), r.PeerName)
		}
		if r.Ratio != nil {
			ratio = ratioOf(*r.Ratio)
		}
		if r.Target != "" {
			holds = map[bool]string{true: "yes", false: "**no**"}[r.Holds]
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.Name, withUnit(r.Ours, r.Unit), peer, ratio, r.Target, holds)
	}
	return b.String()
}

// Insert puts text between the lines `<!-- name -->` and `<!-- /name -->` of a
// Markdown file, in place of what stood there.
func Insert(path, name, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot show the results: %w", err)
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	before, rest, found := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("cannot show the results: %s has no lines %q and %q", path, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return replace(path, []byte(before+begin+text+end+after))
}

func replace(path string, text []byte) error {
	next := path + ".new"
	if err := os.WriteFile(next, text, 0o644); err != nil {
		return fmt.Errorf("cannot write the results: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("cannot write the results: %w", err)
	}
	return nil
}

func withUnit(v float64, unit string) string {
	return strings.TrimSpace(number(v) + " " + unit)
}

// ratioOf shows a small ratio as one over so much.
func ratioOf(v float64) string {
	if v > 0 && v < 0.1 {
		return "1/" + number(1/v)
	}
	return number(v)
}

// number has three significant digits, and all before the point.
func number(v float64) string {
	if math.Abs(v) >= 100 {
		return strconv.FormatFloat(math.Round(v), 'f', -1, 64)
	}
	short, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	if err != nil {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return strconv.FormatFloat(short, 'f', -1, 64)
}
