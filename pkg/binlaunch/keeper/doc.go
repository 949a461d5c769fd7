// Package keeper is the small program that stays with one launched task: its
// parent, the first process of its pid namespace, the reader of its output and
// the only one who writes down how it ended.
//
// The agent starts it outside of its own cgroup and hands it a plan in three
// parts, so that both work beside each other (package plan). The keeper makes the
// task's view of the host on a thread of its own, clones the task into its cgroup
// and shuts it in between clone and execve, without a second program in between.
// From then on it needs no agent. When the keeper itself is killed, the kernel
// ends the whole pid namespace with it: no task runs that nobody watches.
//
// What a task can reach of it: signals are ignored by the kernel's rule for a
// namespace's first process, memory and descriptors are closed to it by user
// namespace and uid. Exit and output are files in folders that the task's view
// does not have.
//
// It holds about 2 MiB (docs/decisions/0011-process-model.md), so it imports
// neither fmt nor encoding/json nor net.
package keeper
