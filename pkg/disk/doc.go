// Package disk tells how much each container of this node has written into
// its writable layer, how fast that grows, until when there is room, which
// file it is, and whether that is an offence.
//
// The way through it: a Meter measures one layer; the samples of a layer
// become a Rate; the rate and the room that is left become a time until full;
// Judge makes a Verdict of these. Rate, time and verdict are pure functions
// of values. Only the meter and the watcher touch the kernel.
package disk
