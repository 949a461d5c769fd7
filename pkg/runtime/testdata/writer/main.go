// Command writer is the only program of the test image. It writes what its
// first argument says into /written and, given a second one, stays until it is
// told to end.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := os.WriteFile("/written", []byte(os.Args[1]), 0o600); err != nil {
		os.Exit(1)
	}
	if len(os.Args) > 2 {
		told := make(chan os.Signal, 1)
		signal.Notify(told, syscall.SIGTERM)
		<-told
	}
}
