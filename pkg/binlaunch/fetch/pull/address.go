package pull

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// inward lists what is not the public internet, besides what netip knows.
func inward() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []string{
		"0.0.0.0/8",      // this host (RFC 1122)
		"::/96",          // IPv4-compatible (RFC 4291, deprecated)
		"100.64.0.0/10",  // carrier-grade NAT (RFC 6598)
		"192.0.0.0/24",   // protocol assignments (RFC 6890)
		"198.18.0.0/15",  // benchmarks (RFC 2544)
		"240.0.0.0/4",    // reserved, and broadcast (RFC 1112)
		"64:ff9b:1::/48", // local translation (RFC 8215)
		"fec0::/10",      // site-local (RFC 3879)
		"192.88.99.0/24", // 6to4 relays (RFC 7526)
		"2001::/23",      // protocol assignments, Teredo (RFC 2928)
		"2002::/16",      // 6to4, which embeds an IPv4 address (RFC 3056)
		"255.255.255.255/32",
	} {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// where says what kind of address it is, "" for one of the public internet.
func where(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if nat64 := netip.MustParsePrefix("64:ff9b::/96"); nat64.Contains(ip) { // an IPv4 address in it (RFC 6052)
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	switch {
	case ip.IsLoopback():
		return "loopback"
	case ip.IsLinkLocalUnicast():
		return "link-local"
	case ip.IsPrivate():
		return "private"
	case !ip.IsGlobalUnicast(): // multicast, unspecified
		return "special"
	}
	for _, p := range inward() {
		if p.Contains(ip) {
			return "special"
		}
	}
	return ""
}

// AddressError says that a host turned out to be where it may not be.
type AddressError struct{ Host, IP, Where string }

func (e *AddressError) Error() string {
	return fmt.Sprintf("%s is at the %s address %s, where only hosts that the spec names may be (if this is meant, name it, or set launch.allowPrivateRedirects in the agent's configuration)",
		e.Host, e.Where, e.IP)
}

// gate decides about connections when the address is known, so that a name
// that changes its address between two looks gains nothing.
type gate struct {
	written   map[string]bool // host:port that the spec or the environment names
	toPrivate bool
	timeout   time.Duration
}

// judge decides whether a connection to ip may be made for hostport.
func (g *gate) judge(hostport string, ip netip.Addr) error {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	kind := where(ip)
	_, literal := netip.ParseAddr(host)
	switch {
	case kind == "", g.toPrivate && kind != "link-local":
		return nil
	case g.written[hostport] && (kind != "link-local" || literal == nil):
		// A cloud's metadata lives at a link-local address: nobody means it by
		// a name.
		return nil
	}
	return &AddressError{Host: host, IP: ip.String(), Where: kind}
}

// dial is net.Dialer's, with the look at the address right before connect(2).
func (g *gate) dial(ctx context.Context, network, hostport string) (net.Conn, error) {
	d := net.Dialer{Timeout: g.timeout, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return g.judge(hostport, ap.Addr())
	}}
	return d.DialContext(ctx, network, hostport)
}
