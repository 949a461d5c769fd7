package ports

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The kernel's socket diagnostics (sock_diag(7), linux/inet_diag.h). One socket
// is looked up by its two ends in microseconds; /proc/net/tcp would be read in
// full, which takes tens of milliseconds on a busy node. The netlink libraries
// ask for a dump of all sockets, and do not see an IPv4 connection that a
// server on :: has taken.

// diagRequest is struct inet_diag_req_v2 behind its header.
type diagRequest struct {
	Header   unix.NlMsghdr
	Family   uint8
	Protocol uint8
	Ext, Pad uint8
	States   uint32
	ID       diagID
}

// diagID is struct inet_diag_sockid; ports and addresses in network order.
type diagID struct {
	LocalPort, RemotePort [2]byte
	Local, Remote         [16]byte
	Interface             uint32
	Cookie                [2]uint32
}

// diagAnswer is struct inet_diag_msg behind its header.
type diagAnswer struct {
	Header                       unix.NlMsghdr
	Family, State, Timer, Retran uint8
	ID                           diagID
	Expires, ReadQ, WriteQ, UID  uint32
	Inode                        uint32
}

const (
	sockDiagByFamily = 20 // linux/sock_diag.h
	tcpListen        = 10 // net/tcp_states.h
)

// findSocket returns the inode of the TCP socket between two ends; 0 while
// nobody has accepted it.
func findSocket(local, remote netip.AddrPort) (uint64, error) {
	req := diagRequest{Protocol: unix.IPPROTO_TCP, States: ^uint32(0)}
	req.Header = unix.NlMsghdr{Len: uint32(binary.Size(req)), Type: sockDiagByFamily, Flags: unix.NLM_F_REQUEST, Seq: 1}
	req.ID.Cookie = [2]uint32{^uint32(0), ^uint32(0)} // INET_DIAG_NOCOOKIE
	binary.BigEndian.PutUint16(req.ID.LocalPort[:], local.Port())
	binary.BigEndian.PutUint16(req.ID.RemotePort[:], remote.Port())
	if l, r := local.Addr().Unmap(), remote.Addr().Unmap(); l.Is4() && r.Is4() {
		req.Family = unix.AF_INET
		copy(req.ID.Local[:], l.AsSlice())
		copy(req.ID.Remote[:], r.AsSlice())
	} else {
		req.Family = unix.AF_INET6
		req.ID.Local, req.ID.Remote = local.Addr().As16(), remote.Addr().As16()
	}
	answer, err := ask(req)
	if err != nil {
		return 0, err
	}
	if answer.State == tcpListen {
		return 0, errors.New("it is closed already") // the listener was found in its place
	}
	return uint64(answer.Inode), nil
}

func ask(req diagRequest) (diagAnswer, error) {
	var answer diagAnswer
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return answer, fmt.Errorf("cannot ask the kernel for sockets: %w", err)
	}
	defer unix.Close(fd)
	var out bytes.Buffer
	if err := binary.Write(&out, binary.NativeEndian, req); err != nil {
		return answer, err
	}
	if err := unix.Sendto(fd, out.Bytes(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return answer, fmt.Errorf("cannot ask the kernel for sockets: %w", err)
	}
	in := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, in, 0) // the kernel has answered within Sendto
	if err != nil {
		return answer, fmt.Errorf("cannot ask the kernel for sockets: %w", err)
	}
	if err := binary.Read(bytes.NewReader(in[:n]), binary.NativeEndian, &answer.Header); err != nil {
		return answer, err
	}
	if answer.Header.Type == unix.NLMSG_ERROR && n >= unix.SizeofNlMsghdr+4 {
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(in[unix.SizeofNlMsghdr:])))
		if errno == unix.ENOENT {
			return answer, fmt.Errorf("the kernel does not know the connection, or has no module tcp_diag: %w", errno)
		}
		return answer, errno
	}
	return answer, binary.Read(bytes.NewReader(in[:n]), binary.NativeEndian, &answer)
}
