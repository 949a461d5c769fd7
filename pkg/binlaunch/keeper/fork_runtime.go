package keeper

import _ "unsafe" // for go:linkname

// What package syscall does around its own fork: signals are blocked and the
// stack may not grow, so that the child can run a few system calls before
// execve. The runtime keeps these names for programs that fork themselves
// (gVisor is the one it names).

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()
