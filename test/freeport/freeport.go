// Package freeport finds ports for tests that start servers.
package freeport

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// From gives a port that nobody listens on, out of the ten thousand from first
// on, and to no other test before this one ends, whichever process asks. Let
// these lie below those that the kernel gives to connections, 32,768 and up: of
// them another could come in between, or while a server is started again.
func From(t testing.TB, first int) int {
	t.Helper()
	for range 100 {
		port := first + rand.IntN(10000) //nolint:gosec // no secret: it keeps tests that run at once apart
		release, mine := reserve(t.Context(), port)
		if !mine {
			continue
		}
		if l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", ":"+strconv.Itoa(port)); err == nil {
			_ = l.Close()
			t.Cleanup(release)
			return port
		}
		release()
	}
	t.Fatalf("no port is free from %d on", first)
	return 0
}

// reserve makes a port this test's by a socket of its name, which one process
// alone can have and which goes with it (unix(7), abstract).
func reserve(ctx context.Context, port int) (release func(), mine bool) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", fmt.Sprintf("@nodeagent-test-port-%d", port))
	if err != nil {
		return nil, false
	}
	return func() { _ = l.Close() }, true
}
