//go:build !amd64 || race

package keeper

import "syscall"

// ownStack is false where cloneOnStack is not written, and with the race detector,
// which takes the child for the keeper's thread: there the child gets a copy of
// the keeper's memory, which only takes longer.
const ownStack = false

func cloneOnStack(*cloneArgs, uintptr, *image) (uintptr, syscall.Errno) { panic("not called") }
