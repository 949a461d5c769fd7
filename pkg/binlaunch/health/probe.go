package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

// Dial opens a connection, perhaps in another network namespace.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Target is the port that is asked. The hosts are tried in order: a task may
// listen on loopback alone, or on the node's address alone.
type Target struct {
	Hosts []string
	Port  int
	Dial  Dial
	// Mine tells whether it was the task itself that took the connection. With
	// a held socket the old task of an update may answer as well, which tells
	// nothing of the new one. Nil: whoever listens is the task.
	Mine func(net.Conn) error
}

// ErrOther says that another process took the connection.
var ErrOther = errors.New("the task that is to be replaced answered")

// bursts are the numbers of connections that are opened at once until the task
// itself has taken one of them. Which of two processes that listen on one
// socket takes a connection is the scheduler's choice, and a lone one often
// goes to the same; of many at once each gets some.
func bursts() []int { return []int{1, 4, 16, 64, 64, 64} }

// connect opens a connection that the task itself has taken.
func (t Target) connect(ctx context.Context) (net.Conn, error) {
	if t.Mine == nil {
		return t.dial(ctx)
	}
	var err error
	for _, n := range bursts() {
		var conn net.Conn
		if conn, err = t.burst(ctx, n); !errors.Is(err, ErrOther) {
			return conn, err
		}
	}
	return nil, err
}

// burst opens n connections and returns one that the task has taken. The
// others are closed without a word.
func (t Target) burst(ctx context.Context, n int) (net.Conn, error) {
	var all []net.Conn
	var taken net.Conn
	defer func() {
		for _, c := range all {
			if c != taken {
				_ = c.Close()
			}
		}
	}()
	for range n {
		conn, err := t.dial(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, conn)
	}
	for _, conn := range all {
		err := t.Mine(conn)
		if err == nil {
			taken = conn
			return conn, nil
		}
		if !errors.Is(err, ErrOther) {
			return nil, err
		}
	}
	return nil, ErrOther
}

func (t Target) dial(ctx context.Context) (net.Conn, error) {
	var first error
	for _, host := range t.Hosts {
		conn, err := t.Dial(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(t.Port)))
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		return nil, fmt.Errorf("cannot ask port %d: no address", t.Port)
	}
	return nil, first
}

// TCP opens a connection.
type TCP struct{ Target Target }

// Probe implements Probe.
func (p TCP) Probe(ctx context.Context) error {
	conn, err := p.Target.connect(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

// HTTP asks by GET and does not follow redirects: they count as a success, as
// they do in Marathon and in the kubelet.
type HTTP struct {
	Target Target
	Path   string
	TLS    bool // the certificate is not verified: the node asks itself
	// Most is the highest status code that is a success: 399, or 299 for
	// readiness.
	Most int
}

// mostOfBody is how much of an answer is read.
const mostOfBody = 1 << 20

// Probe implements Probe.
func (p HTTP) Probe(ctx context.Context) error {
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return p.Target.connect(ctx) },
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the node asks a task of its own
		DisableKeepAlives: true,
	}
	scheme := "http"
	if p.TLS {
		scheme = "https"
	}
	url := fmt.Sprintf("%s://%s%s", scheme, net.JoinHostPort("localhost", strconv.Itoa(p.Target.Port)), p.Path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("cannot ask %s: %w", url, err)
	}
	req.Header.Set("User-Agent", "nodeagent-health")
	res, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("cannot ask %s: %w", url, err)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, mostOfBody))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return fmt.Errorf("cannot read the answer of %s: %w", url, err)
	}
	if res.StatusCode < 200 || res.StatusCode > p.Most {
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	return nil
}

// Exec runs a command; how is the caller's matter.
type Exec struct {
	// Run runs it to its end and returns its exit code and the last of what it
	// wrote.
	Run func(ctx context.Context) (code int, output string, err error)
}

// Probe implements Probe.
func (p Exec) Probe(ctx context.Context) error {
	code, output, err := p.Run(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("cannot run the check: %w", err)
	case code != 0:
		return fmt.Errorf("the check ended with %d: %.200q", code, output)
	}
	return nil
}
