// Command writer is the only program of the test image. It writes what its
// first argument says into /written and, given a second one, stays until it is
// killed.
package main

import (
	"os"
	"syscall"
)

func main() {
	if err := os.WriteFile("/written", []byte(os.Args[1]), 0o600); err != nil {
		os.Exit(1)
	}
	for len(os.Args) > 2 {
		_ = syscall.Pause() // the Go runtime's own signals end it
	}
}
