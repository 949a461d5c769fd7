package main

import (
	"time"

	"github.com/nodeagent/nodeagent/pkg/disk"
)

const (
	// scrape is how often a Prometheus asks, and evaluates; the Prometheus
	// operator's default is 30 s.
	scrape = 15 * time.Second
	// window is what it predicts from: the same five minutes that the agent
	// looks back. The usual six hours would see nothing of these leaks.
	window = 5 * time.Minute
)

// peer is the alert that many have:
//
//	predict_linear(room[5m], horizon) < 0, for some time
//
// over the room to each bound that the container has, as the agent measured it.
type peer struct{ hold time.Duration }

// rule tells of each moment whether there is an alert.
type rule func(f disk.Facts) bool

type point struct {
	at    time.Time
	value float64
}

// rule is a fresh run of the alert by the agent's own bounds and horizon.
func (p *peer) rule(policy disk.Policy) rule {
	var next, since time.Time
	series := map[string][]point{}
	firing := false
	return func(f disk.Facts) bool {
		if f.At.Before(next) {
			return firing
		}
		next = f.At.Add(scrape)
		holds := false
		for name, room := range rooms(f, policy) {
			s := append(series[name], point{f.At, float64(room)})
			for f.At.Sub(s[0].at) > window {
				s = s[1:]
			}
			series[name] = s
			if len(s) >= 2 && predictLinear(s, f.At, policy.Horizon) < 0 {
				holds = true
			}
		}
		switch {
		case !holds:
			since, firing = time.Time{}, false
		case since.IsZero():
			since = f.At
		}
		firing = holds && f.At.Sub(since) >= p.hold
		return firing
	}
}

// rooms is what is left to each bound.
func rooms(f disk.Facts, p disk.Policy) map[string]int64 {
	out := map[string]int64{}
	var held int64
	for _, h := range f.Parts {
		held += h.Usage.Bytes
		out["bytes "+h.Mount] = h.Filesystem.Avail - p.Reserve.Of(h.Filesystem.Size)
		if h.Filesystem.Inodes > 0 {
			out["inodes "+h.Mount] = h.Filesystem.InodesFree - p.InodeReserve.Of(h.Filesystem.Inodes)
		}
	}
	if limit := f.Limits.Containers[f.Container.Name]; limit > 0 {
		out["container"] = limit - held
	}
	if f.Limits.Pod > 0 {
		out["pod"] = f.Limits.Pod - held
	}
	return out
}

// predictLinear is the value after ahead of the line of least squares through
// the points, as Prometheus computes it (promql/functions.go, linearRegression).
func predictLinear(points []point, now time.Time, ahead time.Duration) float64 {
	var n, sumX, sumY, sumXY, sumX2 float64
	for _, p := range points {
		x := p.at.Sub(now).Seconds()
		n++
		sumX += x
		sumY += p.value
		sumXY += x * p.value
		sumX2 += x * x
	}
	covariance, variance := sumXY-sumX*sumY/n, sumX2-sumX*sumX/n
	slope := covariance / variance
	return sumY/n - slope*sumX/n + slope*ahead.Seconds()
}
