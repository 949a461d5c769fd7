// Package freeport finds ports for tests that start servers.
package freeport

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// From gives a port that nobody listens on, out of the ten thousand from first
// on. Let these lie below those that the kernel gives to connections, 32,768 and
// up: of them another could come in between, or while a server is started again.
func From(t testing.TB, first int) int {
	t.Helper()
	for range 100 {
		port := first + rand.IntN(10000) //nolint:gosec // no secret: it keeps tests that run at once apart
		if l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", ":"+strconv.Itoa(port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatalf("no port is free from %d on", first)
	return 0
}
