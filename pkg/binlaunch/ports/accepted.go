package ports

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Accepted returns the inode of the other end of a TCP connection within the
// node: the socket that accept gave to whoever took the connection. It waits
// until somebody took it, or ctx ends.
func (n Network) Accepted(ctx context.Context, conn net.Conn) (uint64, error) {
	theirs, ok1 := conn.RemoteAddr().(*net.TCPAddr)
	ours, ok2 := conn.LocalAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return 0, fmt.Errorf("no TCP connection: %s", conn.RemoteAddr())
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		var inode uint64
		err := n.Do(func() error {
			var err error
			inode, err = findSocket(theirs.AddrPort(), ours.AddrPort())
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("cannot find the other end of the connection to %s: %w", theirs, err)
		}
		if inode != 0 {
			return inode, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("nobody took the connection to %s: %w", theirs, ctx.Err())
		case <-tick.C:
		}
	}
}
