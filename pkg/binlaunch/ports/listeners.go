package ports

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// table is one of the kernel's lists of sockets below /proc/PID/net, and the
// state in which a socket there holds its port (include/net/tcp_states.h):
// LISTEN, and for datagrams CLOSE, which is any that is bound and not
// connected.
type table struct {
	name     string
	protocol v1alpha1.Protocol
	state    string
}

func tables() []table {
	return []table{
		{"tcp", v1alpha1.ProtocolTCP, "0A"}, {"tcp6", v1alpha1.ProtocolTCP, "0A"},
		{"udp", v1alpha1.ProtocolUDP, "07"}, {"udp6", v1alpha1.ProtocolUDP, "07"},
	}
}

// Listeners reads the sockets that hold a port in one network namespace:
// proc/1 is the host's. IPv6 may be missing in a kernel; nothing else may. It
// costs about a millisecond per thousand sockets.
func Listeners(process string) ([]Listener, error) {
	var all []Listener
	for _, t := range tables() {
		sockets, err := readTable(filepath.Join(process, "net", t.name), t.state)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(t.name, "6") {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read who listens: %w", err)
		}
		for _, s := range sockets {
			all = append(all, Listener{Port: Port{int32(s.local.port), t.protocol}, Inode: s.inode})
		}
	}
	return all, nil
}

// socket is one line of such a list.
type socket struct {
	local, remote end
	inode         uint64
}

// end is an address as the kernel prints it, and a port.
type end struct {
	address string
	port    uint16
}

// readTable reads the sockets in one state; any with "".
func readTable(path, state string) ([]socket, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseTable(f, state)
}

func parseTable(r io.Reader, state string) ([]socket, error) {
	var all []socket
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[0] == "sl" || (state != "" && f[3] != state) {
			continue
		}
		local, errL := parseEnd(f[1])
		remote, errR := parseEnd(f[2])
		inode, errI := strconv.ParseUint(f[9], 10, 64)
		if err := errors.Join(errL, errR, errI); err != nil {
			return nil, fmt.Errorf("cannot read %q: %w", lines.Text(), err)
		}
		all = append(all, socket{local: local, remote: remote, inode: inode})
	}
	return all, lines.Err()
}

func parseEnd(s string) (end, error) {
	address, port, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return end{}, fmt.Errorf("no address and port: %q", s)
	}
	return end{address, uint16(n)}, nil
}
