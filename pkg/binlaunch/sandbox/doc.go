// Package sandbox makes a process of a Spec: in a cgroup, in namespaces, with a
// view of the host by profile, under an own uid, a seccomp filter and, where
// the kernel has it, Landlock. The process belongs to the node: it runs on when
// the agent ends, and the next agent attaches to it.
//
// The flow: look at the host once (facts.go), have a keeper that waits begin
// (spawn.go), build the plan of a Spec (build.go, view.go: pure) and make the
// cgroup while the keeper does what it has of the plan (launcher.go). The keeper (package keeper) is the task's parent and
// the only one who writes how it ended.
//
// A task's state folder holds who it is (record.json: boot id, cgroup id), what
// the keeper told of its start and end, and a lock that the keeper holds as
// long as it lives. It must be in memory (/run), so that a reboot empties it.
// All folders in Options and Spec are paths that mean the same on the host and
// here.
//
// From inside a pod the launcher needs: the host's pid namespace (hostPID: a
// pid namespace is entered downward only, so there is no other way to the
// host's), the host's mount and network namespaces as paths (/proc/1/ns/mnt),
// /sys/fs/cgroup and the folders at their own paths, CAP_SYS_ADMIN and the
// others of Requirements, no seccomp profile and no AppArmor profile, for all
// that a process cannot undo is inherited.
package sandbox
