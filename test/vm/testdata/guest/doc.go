// Package guest has tests that run in the machine alone: what the runner's own
// tests boot it with.
package guest
