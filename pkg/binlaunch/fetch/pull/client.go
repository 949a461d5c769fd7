package pull

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// RedirectError says that a server leads to where it may not.
type RedirectError struct{ To, Reason string }

func (e *RedirectError) Error() string {
	return fmt.Sprintf("the server redirects to %s: %s", e.To, e.Reason)
}

// newClient makes the one client of a job. Answers are never unpacked on the
// way: the digest is that of the bytes as they are stored at the server.
func newClient(j Job) (*http.Client, error) {
	roots, err := certificates(j.CA)
	if err != nil {
		return nil, err
	}
	g := &gate{written: map[string]bool{}, toPrivate: j.ToPrivate, timeout: j.Limits.Connect}
	for _, hostport := range j.Proxies {
		g.written[hostport] = true
	}
	for _, it := range j.Items {
		for _, s := range append(append([]string{}, it.Sources...), it.Signatures...) {
			g.write(s)
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            g.dial,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    j.Limits.Connect,
			ResponseHeaderTimeout:  j.Limits.Header,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
			ReadBufferSize:         64 << 10,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			return g.redirect(j, req, via)
		},
	}, nil
}

// certificates are the system's and those of pem; nil: the system's alone.
func certificates(pem []byte) (*x509.CertPool, error) {
	if len(pem) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the configured CA file holds no certificate in PEM")
	}
	return pool, nil
}

// write notes that the spec names the host of a URL. Its https port is meant
// as well: servers redirect there.
func (g *gate) write(raw string) {
	u, err := url.Parse(raw)
	if err != nil {
		return
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "oci": "443", "oci+http": "80"}[u.Scheme]
	}
	g.written[net.JoinHostPort(u.Hostname(), port)] = true
	if port == "80" {
		g.written[net.JoinHostPort(u.Hostname(), "443")] = true
	}
}

// redirect decides whether a redirect is followed, and which headers go along.
func (g *gate) redirect(j Job, req *http.Request, via []*http.Request) error {
	to, last := req.URL, via[len(via)-1].URL
	refuse := func(format string, args ...any) error {
		return &RedirectError{To: to.Redacted(), Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case len(via) > j.Limits.Redirects:
		return refuse("that is more than %d redirects", j.Limits.Redirects)
	case to.Scheme != "http" && to.Scheme != "https":
		return refuse("the scheme %q is not followed", to.Scheme)
	case to.Scheme == "http" && last.Scheme == "https":
		return refuse("from https to http is not followed")
	case to.User != nil:
		return refuse("with a user and password is not followed")
	}
	// Behind a proxy the proxy dials: what can be seen from here is looked at.
	host := to.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		if err != nil {
			ip = netip.IPv6Loopback()
		}
		if err := g.judge(hostPort(to), ip); err != nil {
			return refuse("%v", err)
		}
	}
	if it, ok := req.Context().Value(itemKey{}).(*Item); ok {
		setHeaders(req, it.Headers)
	}
	return nil
}

// itemKey finds, in a request's context, the item it is made for.
type itemKey struct{}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// setHeaders gives a request the headers of its host, and takes those of other
// hosts off.
func setHeaders(req *http.Request, byHost map[string][]Header) {
	for host, headers := range byHost {
		if host != req.URL.Hostname() {
			for _, h := range headers {
				req.Header.Del(h.Name)
			}
		}
	}
	for _, h := range byHost[req.URL.Hostname()] {
		req.Header.Set(h.Name, h.Value)
	}
}
