package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/bench/report"
	"github.com/nodeagent/nodeagent/pkg/disk"
)

// want is what is true of a series: whether what is written goes on and on.
type want struct {
	Name     string
	Offender bool
	From     float64 // seconds: before it nothing grows
}

func readWants(path string) ([]want, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []want
	return all, json.Unmarshal(text, &all)
}

// outcome is what one judge made of one series. Times are since it began.
type outcome struct {
	want    want
	told    time.Duration // when it was first told as an offender; 0: never
	changes int           // of the verdict
	full    time.Duration // when a bound was reached in truth; 0: not in the recording
}

// through plays a recording to its end. Without a rule the verdict counts.
func (o *outcome) through(p *disk.Replay, alert rule) error {
	was := false
	for {
		v, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f, _ := p.Facts(v.Container)
		s := v.At.Sub(p.Began)
		if o.full == 0 && reached(rooms(f, p.Policy())) {
			o.full = s
		}
		is := v.Offender
		if alert != nil {
			is = alert(f)
		}
		if is != was {
			o.changes++
			was = is
		}
		if is && o.told == 0 {
			o.told = s
		}
	}
}

func reached(rooms map[string]int64) bool {
	for _, room := range rooms {
		if room <= 0 {
			return true
		}
	}
	return false
}

// right tells whether an offender was told as one, and before the bound.
func (o outcome) right() bool {
	return o.told > 0 && o.told.Seconds() >= o.want.From && (o.full == 0 || o.told < o.full)
}

// score sums up what a judge made of all series.
type score struct {
	name              string
	found, missed     int
	falsely           int
	flaps             int
	delays, leadTimes []float64 // seconds
	outcomes          []outcome
}

func (s *score) add(o outcome) {
	s.outcomes = append(s.outcomes, o)
	expected := 0
	switch {
	case o.want.Offender && o.right():
		s.found++
		expected = 1
		s.delays = append(s.delays, o.told.Seconds()-o.want.From)
		if o.full > 0 {
			s.leadTimes = append(s.leadTimes, (o.full - o.told).Seconds())
		}
	case o.want.Offender:
		s.missed++
		expected = o.changes
	case o.told > 0:
		s.falsely++
	}
	s.flaps += max(0, o.changes-expected)
}

func (s score) precision() float64 { return share(s.found, s.falsely) }
func (s score) recall() float64    { return share(s.found, s.missed) }

func share(right, wrong int) float64 {
	if right+wrong == 0 {
		return 0
	}
	return float64(right) / float64(right+wrong)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// rowsOf sets the first score beside each of the others.
func rowsOf(scores []score) []report.Row {
	var rows []report.Row
	ours := scores[0]
	for _, p := range scores[1:] {
		rows = append(rows,
			report.Beside("precision: of those told, how many fill a disk", "", ours.precision(), p.name, p.precision()).
				Promise("≥ 0.95 and ≥ the peer", ours.precision() >= max(0.95, p.precision())),
			report.Beside("recall: of those that fill a disk, how many are told before it is full", "", ours.recall(), p.name, p.recall()).
				Promise("1", ours.recall() == 1),
			report.Beside("time from the growth's beginning until it is told, median", "s", median(ours.delays), p.name, median(p.delays)),
			report.Beside("lead: time from when it is told until the bound is reached, median", "s", median(ours.leadTimes), p.name, median(p.leadTimes)),
			report.Beside("changes of the verdict beyond the one that is right", "", float64(ours.flaps), p.name, float64(p.flaps)).
				Promise("0", ours.flaps == 0),
		)
	}
	return rows
}

// perSeries is a table of when each judge told of each series.
func perSeries(wants []want, scores []score) string {
	var b strings.Builder
	b.WriteString("| series | fills a disk | full after |")
	for _, s := range scores {
		fmt.Fprintf(&b, " %s |", s.name)
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat("---|", len(scores)) + "\n")
	for i, w := range wants {
		truth := "no"
		if w.Offender {
			truth = fmt.Sprintf("yes, grows from %.0f s on", w.From)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |", w.Name, truth, when(scores[0].outcomes[i].full))
		for _, s := range scores {
			o := s.outcomes[i]
			told := when(o.told)
			if o.told > 0 && !o.want.Offender {
				told = "**" + told + "**"
			}
			fmt.Fprintf(&b, " %s |", told)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func when(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}
