// Package store keeps what was fetched, by digest of its content, across
// restarts of the agent and of the node.
//
// An entry is a folder with the tree that was unpacked (files/), the list of
// what is in it with a digest for each file (entry.json), and the boot at which
// that was last held against the disk (verified). It comes into being by one
// rename of a Draft whose every byte was synced before, and leaves by one
// rename back: a process killed at any moment leaves an entry whole or not
// there, and what lies in tmp/ is swept by the next Open.
//
// The store is bounded in bytes. What was used longest ago leaves first, never
// what has a Lease and never what was handed out a moment ago. Leases are
// files, so they outlive the agent as the tasks do that hold them.
//
// After a reboot an entry is read again in full before it is handed out; in
// the same boot a look at inode, size and times of each file suffices (about
// 2 µs a file). What is not as it was is removed and counted.
package store
