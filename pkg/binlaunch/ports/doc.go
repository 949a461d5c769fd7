// Package ports treats the host's ports as a resource. Assign is the decision,
// a pure function: which ports a task gets, or who holds the one it needs. It
// is given what is claimed (by other tasks, and by pods as their host ports)
// and what is really listened on, as the kernel tells it.
//
// Hold opens the listening socket of a port for a task, in the host's network
// namespace, so that it stays open while one task takes over from another.
package ports
