// Package disk tells how much each container of this node has written to disk
// (layer, logs, emptyDirs, image VOLUMEs, deleted files that are still open),
// how fast that grows, until when there is room, which file it is, and whether
// that is an offence.
//
// The way through it: a Meter measures one layer (meter.go; walk.go is the way
// that works everywhere). The Looks of a layer become a Series (series.go), the
// series a Trend (rate.go), the trend and the room that is left a time until
// full (forecast.go). Judge makes a Verdict of these (judge.go), with the files
// that grew as evidence (evidence.go) and one sentence for a person
// (message.go). Those are pure functions of values. The Watcher (watch.go) does
// it for all layers, paced by cost (pace.go), and shows it as metrics
// (metrics.go, collect.go). Only the meter and the watcher touch the kernel.
package disk
