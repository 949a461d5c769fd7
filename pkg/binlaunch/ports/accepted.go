package ports

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"
)

// Accepted returns the inode of the other end of a TCP connection within the
// node: the socket that accept gave to whoever took the connection. process is
// a /proc/PID of the network namespace that the connection was made in. It
// waits until somebody took it, or ctx ends.
func Accepted(ctx context.Context, process string, conn net.Conn) (uint64, error) {
	ours, theirs, err := endsOf(conn)
	if err != nil {
		return 0, err
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		inode, err := findEnd(process, theirs, ours)
		if err != nil || inode != 0 {
			return inode, err
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("nobody took the connection to %s: %w", conn.RemoteAddr(), ctx.Err())
		case <-tick.C:
		}
	}
}

// findEnd returns 0 where the connection still waits to be accepted.
func findEnd(process string, local, remote netip.AddrPort) (uint64, error) {
	for _, name := range []string{"tcp", "tcp6"} {
		sockets, err := readTable(filepath.Join(process, "net", name), "")
		if err != nil {
			continue
		}
		for _, s := range sockets {
			if s.local.is(local) && s.remote.is(remote) {
				return s.inode, nil
			}
		}
	}
	return 0, fmt.Errorf("the connection to %s has no other end on this node any more", local)
}

func endsOf(conn net.Conn) (ours, theirs netip.AddrPort, err error) {
	l, ok1 := conn.LocalAddr().(*net.TCPAddr)
	r, ok2 := conn.RemoteAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return ours, theirs, fmt.Errorf("no TCP connection: %s", conn.RemoteAddr())
	}
	return l.AddrPort(), r.AddrPort(), nil
}

// is compares an end as the kernel prints it (words in the machine's order)
// with an address; a server on :: sees IPv4 as ::ffff:a.b.c.d.
func (e end) is(a netip.AddrPort) bool {
	if e.port != a.Port() {
		return false
	}
	if len(e.address) == 8 {
		return a.Addr().Unmap().Is4() && strings.EqualFold(e.address, words(a.Addr().Unmap().AsSlice()))
	}
	full := a.Addr().As16()
	return strings.EqualFold(e.address, words(full[:]))
}

func words(b []byte) string {
	var out strings.Builder
	for ; len(b) >= 4; b = b[4:] {
		fmt.Fprintf(&out, "%08X", binary.NativeEndian.Uint32(b))
	}
	return out.String()
}
