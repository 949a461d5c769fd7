package pull

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhere(t *testing.T) {
	for ip, want := range map[string]string{
		"93.184.216.34": "", "2606:2800:220:1::1": "", "::ffff:93.184.216.34": "", "64:ff9b::5db8:d822": "",
		"127.0.0.1": "loopback", "127.9.9.9": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback", "64:ff9b::7f00:1": "loopback",
		"10.0.0.1": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.1.1": "private", "fd00::1": "private", "::ffff:10.1.2.3": "private", "64:ff9b::a00:1": "private",
		"169.254.169.254": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local",
		"0.0.0.0": "special", "0.1.2.3": "special", "::": "special", "::7f00:1": "special", "224.0.0.1": "special", "ff02::1": "special", "255.255.255.255": "special", "240.0.0.1": "special",
		"100.64.0.1": "special", "100.128.0.1": "", "198.18.0.1": "special", "2002:7f00:1::": "special", "172.32.0.1": "", "169.253.0.1": "",
	} {
		if got := where(netip.MustParseAddr(ip)); got != want {
			t.Errorf("where(%s) = %q, want %q", ip, got, want)
		}
	}
}

func TestGate(t *testing.T) {
	g := &gate{written: map[string]bool{"shop:80": true, "10.0.0.1:80": true, "169.254.1.1:80": true}}
	for _, c := range []struct {
		hostport, ip string
		ok           bool
	}{
		{"elsewhere:80", "93.184.216.34", true},
		{"elsewhere:80", "10.0.0.1", false}, // DNS says so now
		{"elsewhere:80", "127.0.0.1", false},
		{"shop:80", "10.0.0.1", true},
		{"shop:80", "127.0.0.1", true},
		{"shop:80", "169.254.169.254", false}, // nobody means it by a name
		{"shop:6443", "10.0.0.1", false},      // another port
		{"169.254.1.1:80", "169.254.1.1", true},
		{"10.0.0.1:80", "10.0.0.1", true},
		{"10.0.0.2:80", "10.0.0.2", false},
	} {
		if err := g.judge(c.hostport, netip.MustParseAddr(c.ip)); (err == nil) != c.ok {
			t.Errorf("%s at %s: %v", c.hostport, c.ip, err)
		}
		// Where all private addresses are allowed a cloud's metadata is not.
		ok := c.ok || where(netip.MustParseAddr(c.ip)) != "link-local"
		if err := (&gate{written: g.written, toPrivate: true}).judge(c.hostport, netip.MustParseAddr(c.ip)); (err == nil) != ok {
			t.Errorf("allowed: %s at %s: %v", c.hostport, c.ip, err)
		}
	}
}

// TestGateLooksWhenItConnects: the address counts that is connected to, not the
// one of an earlier look.
func TestGateLooksWhenItConnects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	name := net.JoinHostPort("localhost", port)
	g := &gate{written: map[string]bool{}, timeout: time.Minute}
	var address *AddressError
	if _, err := g.dial(context.Background(), "tcp", name); !errors.As(err, &address) {
		t.Errorf("error is %v", err)
	}
	g.written[name] = true
	c, err := g.dial(context.Background(), "tcp", name)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestContentRange(t *testing.T) {
	for s, want := range map[string][3]int64{
		"bytes 5-9/10": {5, 10, 1}, "bytes 0-0/*": {0, -1, 1}, "": {0, 0, 0}, "bytes */10": {0, 0, 0}, "bytes 5-9": {0, 0, 0}, "items 5-9/10": {0, 0, 0}, "bytes x-9/10": {0, 0, 0},
	} {
		from, total, ok := contentRange(s)
		if ok != (want[2] == 1) || ok && (from != want[0] || total != want[1]) {
			t.Errorf("contentRange(%q) = %d, %d, %v", s, from, total, ok)
		}
	}
}

// TestPauses: they double up to the longest, no two who wait come back together,
// and a server that is busy says when.
func TestPauses(t *testing.T) {
	limits := Limits{MinPause: 250 * time.Millisecond, MaxPause: 10 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		waits := func(b *body) time.Duration {
			began := time.Now()
			if err := b.wait(); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		var all [2][]time.Duration
		for i := range all {
			b := newBody(t.Context(), nil, limits, &Item{}, nil)
			b.failed = errors.New("it is away")
			for n := range 8 {
				d, about := waits(b), min(limits.MinPause<<n, limits.MaxPause)
				if d < about/2 || d > about*3/2 {
					t.Errorf("pause %d is %s, about %s is wanted", n, d, about)
				}
				all[i] = append(all[i], d)
			}
		}
		if slices.Equal(all[0], all[1]) {
			t.Errorf("both wait %v", all[0])
		}
		for asked, want := range map[time.Duration]time.Duration{5 * time.Second: 5 * time.Second, time.Hour: limits.MaxPause} {
			b := newBody(t.Context(), nil, limits, &Item{}, nil)
			b.failed = &busyError{after: asked}
			if d := waits(b); d != want {
				t.Errorf("a server asked for %s: %s", asked, d)
			}
		}
	})
}

func TestStall(t *testing.T) {
	for _, c := range []struct {
		name    string
		gap     time.Duration // between two chunks
		size    int
		think   time.Duration // that the reader takes between reads
		stalled time.Duration // 0: not at all
	}{
		{"fast", time.Millisecond, 1000, 0, 0},
		{"just enough", 900 * time.Millisecond, 1000, 0, 0},
		{"a trickle", time.Second, 100, 0, 30 * time.Second},
		{"silence", time.Hour, 1000, 0, 30 * time.Second},
		{"a slow reader", time.Millisecond, 1000, time.Minute, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := io.Pipe()
				done := make(chan struct{})
				defer func() { <-done }()
				go func() {
					defer close(done)
					for range 200 {
						time.Sleep(c.gap)
						if _, err := w.Write(make([]byte, c.size)); err != nil {
							return
						}
					}
					_ = w.Close()
				}()
				start := time.Now()
				s := &stallReader{r: r, cancel: func() { _ = r.CloseWithError(context.Canceled) }, window: 30 * time.Second, rate: 1000}
				var err error
				for err == nil {
					time.Sleep(c.think)
					_, err = s.Read(make([]byte, 4096))
				}
				var stall *stallError
				if errors.As(err, &stall) != (c.stalled > 0) || c.stalled > 0 && time.Since(start).Round(time.Second) > c.stalled+time.Second {
					t.Errorf("%v after %v", err, time.Since(start))
				}
				_ = r.Close()
			})
		})
	}
}
