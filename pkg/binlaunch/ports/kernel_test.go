package ports

import (
	"context"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/osthread"
)

// Real sockets of all four kinds are found, and the process that has them.
func TestListeners(t *testing.T) {
	open := map[string]Port{}
	for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
		if strings.HasPrefix(network, "tcp") {
			l, err := net.Listen(network, ":0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			open[network] = Port{int32(l.Addr().(*net.TCPAddr).Port), "TCP"}
			continue
		}
		c, err := net.ListenPacket(network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open[network] = Port{int32(c.LocalAddr().(*net.UDPAddr).Port), "UDP"}
	}
	all, err := Listeners("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	for network, port := range open {
		i := slices.IndexFunc(all, func(l Listener) bool { return l.Port == port })
		if i < 0 {
			t.Errorf("%s on %v is not among %v", network, port, all)
			continue
		}
		h, ok := FindHolder("/proc", all[i].Inode)
		if !ok || h.Pid != os.Getpid() || h.Comm == "" {
			t.Errorf("%s is held by %v, %v; want %d", network, h, ok, os.Getpid())
		}
	}
}

// A connection is no listener: an ephemeral port that a client has is free.
func TestListenersLeavesConnectionsOut(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := Listeners("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	port := Port{int32(c.LocalAddr().(*net.TCPAddr).Port), "TCP"}
	if slices.ContainsFunc(all, func(l Listener) bool { return l.Port == port }) {
		t.Errorf("a client's port %v counts as listened on", port)
	}
}

// Who took a connection is known by the socket that accept gave him; while
// nobody did, that is told.
func TestAccepted(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "tcp"} {
		l, err := net.Listen(network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		host := "127.0.0.1"
		if network == "tcp6" {
			host = "::1"
		}
		c, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		if inode, err := Network("").Accepted(ctx, c); err == nil {
			t.Errorf("%s: nobody accepted, and %d did", network, inode)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		inode, err := Network("").Accepted(t.Context(), c)
		if err != nil || !Owns("/proc", os.Getpid(), inode) || Owns("/proc", os.Getppid(), inode) {
			t.Errorf("%s: accepted by socket %d, %v", network, inode, err)
		}
	}
}

func TestPodUID(t *testing.T) {
	const uid = "0d1f3c5a-1111-2222-3333-0123456789ab"
	for groups, want := range map[string]string{
		"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0d1f3c5a_1111_2222_3333_0123456789ab.slice/cri-x.scope": uid,
		"4:memory:/kubepods/besteffort/pod0d1f3c5a-1111-2222-3333-0123456789ab/abc":                                                uid,
		"0::/system.slice/ssh.service": "",
	} {
		if got := podUID(groups); got != want {
			t.Errorf("%s: %q, want %q", groups, got, want)
		}
	}
}

// A socket held in another network namespace takes connections made there, and
// none made here.
func TestHoldInAnotherNamespace(t *testing.T) {
	ns := newNamespace(t)
	file, err := ns.Hold(t.Context(), 9100)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	conn, err := ns.DialContext(t.Context(), "tcp", "127.0.0.1:9100")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if server.RemoteAddr().String() != conn.LocalAddr().String() {
		t.Errorf("accepted %s, want %s", server.RemoteAddr(), conn.LocalAddr())
	}
	if _, err := ns.Hold(t.Context(), 9100); err == nil {
		t.Error("the port is held twice")
	}
	if here, err := Network("/proc/self/ns/net").Hold(t.Context(), 9100); err == nil {
		_ = here.Close() // free in our own
	} else if !strings.Contains(err.Error(), "address already in use") {
		t.Error(err)
	}
}

// newNamespace makes a network namespace with loopback up, that ends with the
// test.
func newNamespace(t *testing.T) Network {
	t.Helper()
	path, done := make(chan string), make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		failed <- osthread.Run(func() error { // the namespace ends with the thread
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			if err := loopbackUp(); err != nil {
				return err
			}
			path <- "/proc/self/task/" + strconv.Itoa(unix.Gettid()) + "/ns/net"
			<-done
			return nil
		})
	}()
	t.Cleanup(func() { close(done) })
	select {
	case p := <-path:
		return Network(p)
	case err := <-failed:
		t.Fatalf("cannot make a network namespace (the tests run as root): %v", err)
		return ""
	}
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
}
