//go:build !amd64

package keeper

import "syscall"

// ownStack is false where cloneOnStack is not written: there the child gets a
// copy of the keeper's memory, which only takes longer.
const ownStack = false

func cloneOnStack(*cloneArgs, uintptr, *image) (uintptr, syscall.Errno) { panic("not called") }
