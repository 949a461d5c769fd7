// Package health tells whether a task that runs does its work. A Probe asks
// once (HTTP, TCP, or a command); Tracker is Marathon's rule about what the
// answers mean, a pure state; Watch asks in time and reports what changed.
//
// Until the first success probes come 50 ms after each other, then twice as
// late each time up to the interval, so that a start is seen at once. From
// then on they come every interval. One probe is under way at a time; each is
// bounded by its timeout.
package health
