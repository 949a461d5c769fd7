package ports

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/osthread"
)

// Network is a network namespace: a path such as /proc/1/ns/net, or empty for
// the agent's own. The agent's pod has one of its own, and what it launches
// runs in the host's.
type Network string

// Do runs f on a thread in that namespace. The sockets that f opens belong to
// it for good. It needs CAP_SYS_ADMIN where the namespace is not our own.
func (n Network) Do(f func() error) error {
	if n == "" || n.isOurs() {
		return f()
	}
	return osthread.Run(func() error {
		other, err := os.Open(string(n))
		if err != nil {
			return fmt.Errorf("cannot open the host's network namespace: %w", err)
		}
		defer other.Close()
		if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot enter the network namespace %s: %w", n, err)
		}
		return f()
	})
}

func (n Network) isOurs() bool {
	own, err1 := os.Stat("/proc/self/ns/net")
	other, err2 := os.Stat(string(n))
	return err1 == nil && err2 == nil && os.SameFile(own, other)
}

// DialContext opens a connection from within the namespace. The address has to
// be numeric: a name would be looked up elsewhere.
func (n Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Hold opens a listening TCP socket on all addresses, IPv4 and IPv6 where the
// kernel has it, and returns its descriptor. Connections are taken in from
// then on, and answered once a task has the socket.
func (n Network) Hold(ctx context.Context, port int32) (*os.File, error) {
	var file *os.File
	err := n.Do(func() error {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+strconv.Itoa(int(port)))
		if err != nil {
			return err
		}
		defer l.Close() // file is a descriptor of its own
		file, err = l.(*net.TCPListener).File()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on port %d: %w", port, err)
	}
	return file, nil
}
