//go:build !race

package keeper

import "syscall"

// ownStack: the child shares the keeper's memory, on a stack of its own.
const ownStack = true

// cloneOnStack clones, and has the child run m.child on the stack that args
// name. It returns in the parent alone.
//
//go:noescape
func cloneOnStack(args *cloneArgs, size uintptr, m *image) (pid uintptr, errno syscall.Errno)

// childOf is what cloneOnStack calls.
//
//go:nosplit
//go:norace
func childOf(m *image) { m.child() } //nolint:unused // fork_amd64.s calls it
