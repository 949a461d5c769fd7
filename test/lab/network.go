package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ensureBridge makes the bridge that joins the nodes and the host, and the
// host's routes to pods and Services. All of it goes with the bridge.
func ensureBridge() error {
	if _, err := netlink.LinkByName(bridgeName); err == nil {
		return addHostRoutes() // a killed up may have come no further
	}
	if err := checkAddressesFree(); err != nil {
		return err
	}
	// A fixed address: a bridge without one takes that of its first port and
	// changes it with its ports, while the nodes remember the old one.
	mac, err := net.ParseMAC("02:6e:61:00:00:01")
	if err != nil {
		return err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName, HardwareAddr: mac}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("cannot make the bridge %s: %w", bridgeName, err)
	}
	return addHostRoutes()
}

// checkAddressesFree refuses to take over a network that the machine uses.
func checkAddressesFree() error {
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("cannot list the machine's routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			continue // the default route
		}
		if ours := overlap(r.Dst); ours != "" {
			return fmt.Errorf("cannot use the network %s for the lab: the machine has a route to %s", ours, r.Dst)
		}
	}
	return nil
}

// overlap names the lab's network that shares addresses with the other, or "".
func overlap(other *net.IPNet) string {
	for _, cidr := range []string{nodeNetwork, podNetwork, serviceNetwork} {
		_, ours, err := net.ParseCIDR(cidr)
		if err == nil && (ours.Contains(other.IP) || other.Contains(ours.IP)) {
			return cidr
		}
	}
	return ""
}

func addHostRoutes() error {
	link, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("cannot find the bridge %s: %w", bridgeName, err)
	}
	for _, s := range []struct{ key, value string }{
		// Whatever the machine forwards elsewhere, nothing that comes from a
		// node or a pod is sent on: the lab cannot reach the outside.
		{"ipv4/conf/" + bridgeName + "/forwarding", "0"},
		{"ipv6/conf/" + bridgeName + "/disable_ipv6", "1"},
	} {
		if err := setNetSysctl(s.key, s.value); err != nil {
			return err
		}
	}
	if err := addAddress(link, hostIP+"/24"); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", bridgeName, err)
	}
	for n := 1; n <= maxNodes; n++ {
		if err := addRoute(podSubnet(n), nodeIP(n)); err != nil {
			return err
		}
	}
	// kube-proxy of node 1 serves the host as well.
	return addRoute(serviceNetwork, nodeIP(1))
}

func setNetSysctl(key, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0o644)
	if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(key, "ipv6/") {
		return nil // a kernel without IPv6
	}
	if err != nil {
		return fmt.Errorf("cannot set net/%s to %s: %w", key, value, err)
	}
	return nil
}

func addAddress(link netlink.Link, cidr string) error {
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return fmt.Errorf("cannot read the address %s: %w", cidr, err)
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("cannot give %s the address %s: %w", link.Attrs().Name, cidr, err)
	}
	return nil
}

func addRoute(cidr, via string) error {
	_, dst, err := net.ParseCIDR(cidr)
	if err != nil {
		return fmt.Errorf("cannot read the network %s: %w", cidr, err)
	}
	if err := netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)}); err != nil {
		return fmt.Errorf("cannot route %s via %s: %w", cidr, via, err)
	}
	return nil
}

// plugIn gives the node whose init is pid its eth0, the other end of which is
// on the bridge.
func plugIn(n, pid int) error {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("cannot find the bridge %s: %w", bridgeName, err)
	}
	if err := unplug(n); err != nil {
		return err
	}
	// The same address at each start: the others' ARP caches stay right.
	mac, err := net.ParseMAC(nodeMAC(n))
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = vethName(n), bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: mac, PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("cannot connect %s to the bridge: %w", nodeName(n), err)
	}
	if err := setNetSysctl("ipv6/conf/"+vethName(n)+"/disable_ipv6", "1"); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", vethName(n), err)
	}
	return nil
}

func unplug(n int) error { return deleteLink(vethName(n)) }

func deleteLink(name string) error {
	link, err := netlink.LinkByName(name)
	if isNoLink(err) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("cannot remove the interface %s: %w", name, err)
	}
	return nil
}

func isNoLink(err error) bool {
	var none netlink.LinkNotFoundError
	return errors.As(err, &none)
}

// setCable takes the node's network away, or gives it back, as if its cable
// were pulled: its eth0 has no carrier then.
func setCable(n int, plugged bool) error {
	link, err := netlink.LinkByName(vethName(n))
	if err != nil {
		return fmt.Errorf("cannot find the network of %s (is it running?): %w", nodeName(n), err)
	}
	set := netlink.LinkSetDown
	if plugged {
		set = netlink.LinkSetUp
	}
	if err := set(link); err != nil {
		return fmt.Errorf("cannot switch %s: %w", vethName(n), err)
	}
	return nil
}

// whole asks the kernel for a list until nothing changed while it was told: it
// says so when an interface came or went meanwhile.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for tries := 0; ; tries++ {
		found, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || tries == 50 {
			return found, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// labLinks names the lab's interfaces in this network namespace.
func labLinks() ([]string, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("cannot list the interfaces: %w", err)
	}
	var names []string
	for _, l := range links {
		if name := l.Attrs().Name; strings.HasPrefix(name, "nalab") {
			names = append(names, name)
		}
	}
	return names, nil
}

// configureNodeNetwork runs in the node: addresses, routes, forwarding.
func configureNodeNetwork(n int) error {
	for _, l := range []struct{ name, cidr string }{{"lo", "127.0.0.1/8"}, {"eth0", nodeIP(n) + "/24"}} {
		link, err := netlink.LinkByName(l.name)
		if err != nil {
			return fmt.Errorf("cannot find %s: %w", l.name, err)
		}
		if err := addAddress(link, l.cidr); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("cannot bring %s up: %w", l.name, err)
		}
	}
	for m := 1; m <= maxNodes; m++ {
		if m == n {
			continue
		}
		if err := addRoute(podSubnet(m), nodeIP(m)); err != nil {
			return err
		}
	}
	if err := addRoute("0.0.0.0/0", hostIP); err != nil {
		return err
	}
	for _, s := range []struct{ key, value string }{
		{"ipv4/ip_forward", "1"},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/eth0/rp_filter", "0"},
		// What the host sends to a Service turns round in node 1; a redirect
		// would tell it to go to the pod's node, which knows no such address.
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/eth0/send_redirects", "0"},
	} {
		if err := setNetSysctl(s.key, s.value); err != nil {
			return err
		}
	}
	return repeatRefused()
}

// repeatRefused has a TCP client send again what kube-proxy refused: it says so
// by ICMP, which is dropped here, while a pod that refuses says so by TCP.
//
// For nftables exchanges a rule and the map of endpoints in it at two moments. A
// packet between them finds no endpoint of a Service that always had some
// (docs/decisions/0020-refused-in-between.md).
func repeatRefused() error {
	// At 192 bits of an ICMP error is the address that the packet was sent to; a
	// Service's has these 16 first.
	services := netip.MustParsePrefix(serviceNetwork).Addr().As4()
	rule := fmt.Sprintf(`table ip nalab {
	chain output {
		type filter hook output priority raw; policy accept;
		icmp type destination-unreachable icmp code port-unreachable @th,192,16 %#02x%02x drop
	}
}
`, services[0], services[1])
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rule)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot set up what happens to refused connections: %w: %s", err, out)
	}
	return nil
}
