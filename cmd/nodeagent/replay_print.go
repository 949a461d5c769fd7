package main

import (
	"fmt"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/top"
	"github.com/nodeagent/nodeagent/pkg/disk"
)

// replayed is a verdict as `replay -o json` prints it. Times until full are in
// seconds, and left out for what does not grow.
type replayed struct {
	At          time.Time        `json:"at"`
	Namespace   string           `json:"namespace,omitempty"`
	Pod         string           `json:"pod,omitempty"`
	Container   string           `json:"container"`
	ID          string           `json:"id"`
	Offender    bool             `json:"offender"`
	Since       time.Time        `json:"since,omitzero"`
	Bound       string           `json:"bound"`
	Resource    string           `json:"resource"`
	Room        int64            `json:"room"` // bytes or inodes
	Filesystem  string           `json:"filesystem"`
	Bytes       int64            `json:"bytes"`
	Inodes      int64            `json:"inodes"`
	Rate        top.Rate         `json:"rate"`      // bytes a second
	InodeRate   top.Rate         `json:"inodeRate"` // inodes a second
	FullSeconds fullSeconds      `json:"fullSeconds"`
	Message     string           `json:"message,omitempty"`
	Growing     []top.File       `json:"growing,omitempty"`
	Parts       map[string]int64 `json:"parts"`
	InodeParts  map[string]int64 `json:"inodeParts"`
}

type fullSeconds struct {
	Soonest  *float64 `json:"soonest,omitempty"`
	Expected *float64 `json:"expected,omitempty"`
	Latest   *float64 `json:"latest,omitempty"`
}

func replayedOf(v disk.Verdict) replayed {
	c := containerReport(v, "", v.At)
	return replayed{
		At: v.At, Namespace: c.Namespace, Pod: c.Pod, Container: c.Container, ID: c.ID,
		Offender: v.Offender, Since: v.Since, Bound: c.Bound, Resource: string(v.Resource),
		Room: v.Room, Filesystem: v.Filesystem, Bytes: c.Bytes, Inodes: c.Inodes, Parts: c.Parts, InodeParts: c.InodeParts,
		Rate: c.Rate, InodeRate: top.Rate{Low: v.InodeRate.Low, Expected: v.InodeRate.Expected, High: v.InodeRate.High},
		FullSeconds: fullSeconds{untilSeconds(v.Until.Soonest), untilSeconds(v.Until.Expected), untilSeconds(v.Until.Latest)},
		Message:     c.Message, Growing: c.Growing,
	}
}

// replayLine is a verdict in one line for people:
//
//	2026-01-02T03:04:05.0Z offender k8s.io/4f3c shop/web-1/app: /app/debug.log in … (from 18.1 to 20.3 MiB/s, full in 15m10s to 17m02s)
func replayLine(v disk.Verdict) string {
	rate, what := v.Rate, "%s/s to %s/s, expected %s/s"
	amount := func(n float64) string { return top.Size(n) }
	if v.Resource == disk.Inodes {
		rate, amount = v.InodeRate, func(n float64) string { return fmt.Sprintf("%.0f inodes", n) }
	}
	state := "calm"
	if v.Offender {
		state = "offender"
	}
	text := v.Message
	if text == "" {
		text = fmt.Sprintf("holds %s; the nearest bound is the %s's", top.Size(float64(v.Usage.Bytes)), v.Bound)
	}
	return fmt.Sprintf("%s %-8s %s/%s: %s ("+what+"; full in %s to %s, expected %s)",
		v.At.UTC().Format("2006-01-02T15:04:05.0Z"), state, namespaceOf(v), disk.Name(v.Container), text,
		amount(rate.Low), amount(rate.High), amount(rate.Expected),
		fullIn(v.Until.Soonest), fullIn(v.Until.Latest), fullIn(v.Until.Expected))
}

func namespaceOf(v disk.Verdict) string {
	if ns := v.Container.Pod.Namespace; ns != "" {
		return ns
	}
	return v.Container.Namespace
}

func fullIn(d time.Duration) string {
	if d == disk.Never {
		return "never"
	}
	return top.Span(d.Seconds())
}
