package ports

import (
	"bufio"
	"errors"
	"fmt"
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
		sockets, err := readTable(filepath.Join(process, "net", t.name), t)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(t.name, "6") {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read who listens: %w", err)
		}
		all = append(all, sockets...)
	}
	return all, nil
}

func readTable(path string, t table) ([]Listener, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Listener
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != t.state {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		port, errP := strconv.ParseUint(hex, 16, 16)
		inode, errI := strconv.ParseUint(fields[9], 10, 64)
		if err := errors.Join(errP, errI); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, Listener{Port: Port{int32(port), t.protocol}, Inode: inode})
	}
	return all, lines.Err()
}
