// Package cgroup makes, fills, counts and ends the cgroups of launched tasks,
// on cgroup v2 and on v1 (each controller in a tree of its own).
//
// The words: a Tree is this node's cgroup file system with the one folder in it
// that is ours; a Group is one task's cgroup beneath it. Its limits are written
// before anything runs in it.
//
// On v2 a process is born inside (clone3 with CLONE_INTO_CGROUP). On v1 the
// thread that clones it joins first, and the child inherits. Either way nothing
// of a task ever runs without its limits.
//
// Cost, measured on 2 cores of Linux 6.18: docs/decisions/0011-process-model.md.
package cgroup
