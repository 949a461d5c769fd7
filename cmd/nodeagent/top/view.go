package top

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

const (
	bold    = "\x1b[1m"
	reverse = "\x1b[7m"
	red     = "\x1b[31m"
	off     = "\x1b[0m"
)

// View draws the whole screen.
func (m model) View() tea.View {
	lines := m.tableLines()
	if m.at == detail {
		lines = m.detailLines()
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
}

func (m model) tableLines() []string {
	cols := layout(m.width)
	lines := append([]string{m.title()}, summary(m.report, m.width)...)
	lines = append(lines, bold+header(cols)+off)
	rows, at := m.rows(), m.cursor()
	from := max(0, min(at-m.page()/2, len(rows)-m.page()))
	for i := from; i < min(len(rows), from+m.page()); i++ {
		lines = append(lines, paint(row(cols, rows[i], m.history), rows[i].Offender, i == at))
	}
	return append(lines, m.help())
}

func (m model) title() string {
	if m.err != nil {
		return red + fit(fmt.Sprintf("%v; the figures are of %s", m.err, m.report.At.Format(time.TimeOnly)), m.width, false) + off
	}
	return fmt.Sprintf("%snodeagent top%s  %s  %s  %d containers, by %s", bold, off, plain(m.report.Node),
		m.report.At.Format(time.TimeOnly), len(m.report.Containers), m.order)
}

func (m model) help() string {
	if m.at == typing {
		return "filter: " + m.filter + "█   enter keeps it, esc clears it"
	}
	filter := ""
	if m.filter != "" {
		filter = "  filter " + m.filter
	}
	return "↑↓ choose  enter files  s sort  / filter  q quit" + filter
}

func paint(s string, offender, chosen bool) string {
	if offender {
		s = red + s
	}
	if chosen {
		s = reverse + s
	}
	return s + off
}

// detailLines shows one container with the files that grow in it.
func (m model) detailLines() []string {
	rows := m.rows()
	if len(rows) == 0 {
		return []string{m.title(), "the container is gone", "esc back"}
	}
	c := rows[m.cursor()]
	lines := []string{
		m.title(),
		bold + plain(c.fullName()) + off,
		fmt.Sprintf("%s in %d inodes, by %s %.0f s ago", Size(float64(c.Bytes)), c.Inodes, c.Method, c.AgeSeconds),
		fmt.Sprintf("grows %s (between %s and %s)  %s", rate(c.Rate.Expected), rate(c.Rate.Low), rate(c.Rate.High), curve(m.history[c.key()], kept)),
	}
	if c.InodeRate.Expected >= 1 {
		lines = append(lines, fmt.Sprintf("grows %s (between %s and %s)", inodeRate(c.InodeRate.Expected), inodeRate(c.InodeRate.Low), inodeRate(c.InodeRate.High)))
	}
	lines = append(lines, until(c))
	for _, name := range []string{"layer", "logs", "emptydir", "volume", "deleted"} {
		if n, ok := c.Parts[name]; ok {
			lines = append(lines, fmt.Sprintf("  %-10s%12s in %d inodes", name, Size(float64(n)), c.InodeParts[name]))
		}
	}
	if c.Message != "" {
		lines = append(lines, red+plain(c.Message)+off)
	}
	lines = append(lines, bold+fmt.Sprintf("%12s %14s  GROWING", "SIZE", "GROWTH")+off)
	for _, f := range c.Growing {
		lines = append(lines, fmt.Sprintf("%12s %14s  %s", Size(float64(f.Bytes)), rate(f.BytesPerSecond), fileName(f)))
	}
	if len(c.Growing) == 0 {
		lines = append(lines, "nothing grows")
	}
	return append(lines, "", "esc back  ↑↓ next container  q quit")
}

func until(c Container) string {
	if c.FullSeconds == nil {
		return "reaches no bound at this rate"
	}
	if c.Resource == "inodes" {
		return fmt.Sprintf("its %s is out of inodes in %s", c.Bound, Span(*c.FullSeconds))
	}
	return fmt.Sprintf("reaches the bound of its %s in %s", c.Bound, Span(*c.FullSeconds))
}

func fileName(f File) string {
	if f.Files > 0 {
		if f.FilesPerSecond >= 1 {
			return fmt.Sprintf("%s (%d files, %.0f more/s)", plain(f.Path), f.Files, f.FilesPerSecond)
		}
		return fmt.Sprintf("%s (%d files)", plain(f.Path), f.Files)
	}
	return plain(f.Path)
}
