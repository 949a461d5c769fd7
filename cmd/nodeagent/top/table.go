package top

import (
	"fmt"
	"io"
	"strings"
)

// column is one column of the table.
type column struct {
	title string
	width int  // 0: it gets its share of what is left
	share int  // of what the others leave
	right bool // numbers stand right
	// least is the width of the terminal from which on it is shown.
	least int
	text  func(c Container, h history) string
}

const curveWidth = 10

// columns are the table's, in order. Part columns stand only where a terminal
// is wide enough for them.
func columns() []column {
	part := func(name string) func(Container, history) string {
		return func(c Container, _ history) string {
			n, ok := c.Parts[name]
			if !ok {
				return "-"
			}
			return Size(float64(n))
		}
	}
	return []column{
		{title: "", width: 1, text: func(c Container, _ history) string { return mark(c) }},
		{title: "NAMESPACE", share: 2, least: 100, text: func(c Container, _ history) string { return plain(c.Namespace) }},
		{title: "POD", share: 4, text: func(c Container, _ history) string { return plain(c.Pod) }},
		{title: "CONTAINER", share: 2, text: func(c Container, _ history) string { return plain(c.Container) }},
		{title: "LAYER", width: 10, right: true, least: 120, text: part("layer")},
		{title: "LOGS", width: 10, right: true, least: 140, text: part("logs")},
		{title: "EMPTYDIR", width: 10, right: true, least: 140, text: part("emptydir")},
		{title: "VOLUME", width: 10, right: true, least: 170, text: part("volume")},
		{title: "DELETED", width: 10, right: true, least: 170, text: part("deleted")},
		{title: "TOTAL", width: 10, right: true, text: func(c Container, _ history) string { return Size(float64(c.Bytes)) }},
		{title: "GROWTH", width: 12, right: true, text: func(c Container, _ history) string { return growth(c) }},
		{title: "", width: curveWidth, least: 90, text: func(c Container, h history) string { return curve(h[c.key()], curveWidth) }},
		{title: "FULL IN", width: 8, right: true, text: func(c Container, _ history) string { return Span(c.full()) }},
		{title: "METHOD", width: 11, least: 110, text: func(c Container, _ history) string { return c.Method }},
	}
}

// growth is that of what runs out first.
func growth(c Container) string {
	if c.inodesRunOut() {
		return inodeRate(c.InodeRate.Expected)
	}
	return rate(c.Rate.Expected)
}

// mark is "!" before an offender.
func mark(c Container) string {
	if c.Offender {
		return "!"
	}
	return " "
}

// layout fits the columns into a terminal of that width.
func layout(width int) []column {
	var shown []column
	fixed, shares := 0, 0
	for _, c := range columns() {
		if width < c.least {
			continue
		}
		shown = append(shown, c)
		fixed += c.width + 1
		shares += c.share
	}
	for i := range shown {
		if shown[i].width == 0 {
			shown[i].width = max(8, (width-fixed+1)*shown[i].share/shares)
		}
	}
	return shown
}

func header(cols []column) string {
	cells := make([]string, 0, len(cols))
	for _, c := range cols {
		cells = append(cells, fit(c.title, c.width, c.right))
	}
	return strings.Join(cells, " ")
}

func row(cols []column, c Container, h history) string {
	cells := make([]string, 0, len(cols))
	for _, col := range cols {
		cells = append(cells, fit(col.text(c, h), col.width, col.right))
	}
	return strings.Join(cells, " ")
}

// summary is a line for each file system, as much of it as there is room for.
func summary(r Report, width int) []string {
	lines := make([]string, 0, len(r.Filesystems))
	for _, f := range r.Filesystems {
		lines = append(lines, f.line(width))
	}
	return lines
}

// line leaves out the reserve first where it would be too long, then the inodes,
// and then the middle of the mount point.
func (f Filesystem) line(width int) string {
	mount := plain(f.Mount)
	used := fmt.Sprintf("  %s of %s", Size(float64(f.Used)), Size(float64(f.Size)))
	inodes, end := "", ", "+f.outcome()
	if f.Inodes > 0 {
		inodes = fmt.Sprintf(", %.0f%% of inodes", 100*float64(f.InodesUsed)/float64(f.Inodes))
	}
	for _, text := range []string{
		used + inodes + " used, reserve " + Size(float64(f.Reserve)) + end,
		used + inodes + " used" + end,
		used + " used" + end,
	} {
		if len([]rune(mount+text)) <= width {
			return mount + text
		}
	}
	text := used + " used" + end
	return fit(fit(mount, max(8, width-len([]rune(text))), false)+text, width, false)
}

// WriteTable prints a report once, for --once.
func WriteTable(w io.Writer, r Report, by Order, filter string, width int) error {
	cols := layout(width)
	lines := append(summary(r, width), header(cols))
	for _, c := range Arrange(r.Containers, by, filter) {
		lines = append(lines, row(cols, c, nil))
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return fmt.Errorf("cannot write the table: %w", err)
		}
	}
	return nil
}
