package top

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Size writes bytes for people: 0 B, 3.2 MiB.
func Size(n float64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return strconv.FormatFloat(math.Trunc(n), 'f', 0, 64) + " B"
	}
	i := -1
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", n, units[i])
}

// rate writes growth: nothing for none.
func rate(n float64) string {
	if n < 1 {
		return "-"
	}
	return Size(n) + "/s"
}

// inodeRate writes growth in inodes.
func inodeRate(n float64) string {
	if n < 1 {
		return "-"
	}
	return fmt.Sprintf("%.0f ino/s", n)
}

// Span writes a time until full: "-" for never.
func Span(seconds float64) string {
	switch {
	case math.IsInf(seconds, 1) || seconds > 365*24*3600:
		return "-"
	case seconds <= 0:
		return "now"
	}
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// curve draws the last values as blocks, the highest one full. A curve of
// zeros is flat.
func curve(values []float64, width int) string {
	const blocks = "▁▂▃▄▅▆▇█"
	if len(values) > width {
		values = values[len(values)-width:]
	}
	top := 0.0
	for _, v := range values {
		top = max(top, v)
	}
	var s strings.Builder
	s.WriteString(strings.Repeat(" ", width-len(values)))
	for _, v := range values {
		i := 0
		if top > 0 {
			i = int(math.Round(v / top * 7))
		}
		s.WriteRune([]rune(blocks)[min(max(i, 0), 7)])
	}
	return s.String()
}

// plain shows a name that a container chose: whatever could move the cursor or
// hide text is written out.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
}

// fit cuts or pads s to width characters. What is cut loses its middle: the
// ends of a pod's name and of a path tell most.
func fit(s string, width int, right bool) string {
	r := []rune(s)
	switch {
	case width <= 0:
		return ""
	case len(r) > width && width < 4:
		return string(r[:width])
	case len(r) > width:
		head := (width - 1) / 2
		return string(r[:head]) + "…" + string(r[len(r)-(width-1-head):])
	case right:
		return strings.Repeat(" ", width-len(r)) + s
	}
	return s + strings.Repeat(" ", width-len(r))
}
