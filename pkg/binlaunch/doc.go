// Package binlaunch keeps programs running that were named by URL: it fetches
// them, starts them shut in, watches them, starts them again, and exchanges
// them without a gap. They belong to the node and not to the agent: when the
// agent ends, they run on, and the next agent takes them up again.
//
// The words: a Binary is what is wanted. A source tells Binaries (the API
// server, a folder, the command line). A unit is one Binary on this node; it
// has a current task and, during an update, a next one. A task goes through
// the states of package lifecycle. What is to be done next is decided by the
// pure function decide; a unit's own goroutine applies it, so that nothing in
// a unit is locked. Fetching, starting, stopping and probing run beside it and
// come back as events.
//
// What a unit has to know again after a restart of the agent stands in one
// small file of its own, written before a process is started, so that no
// process is ever started twice or forgotten.
package binlaunch
