package fetch

import (
	"encoding/base64"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// proxy is one as companies have it: it forwards http, tunnels https by
// CONNECT, and knows the names that nobody else here does.
type proxy struct {
	*httptest.Server
	names map[string]string // host: where it really is
	user  string            // user:password it asks for, if any

	mu    sync.Mutex
	asked []string
}

func newProxy(t *testing.T, names map[string]string) *proxy {
	t.Helper()
	p := &proxy{names: names}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.RequestURI)
	p.mu.Unlock()
	if p.user != "" && r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(p.user)) {
		w.Header().Set("Proxy-Authenticate", `Basic realm="shop"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	host, _, _ := strings.Cut(r.Host, ":")
	to, ok := p.names[host]
	switch {
	case !ok:
		http.Error(w, "no such host", http.StatusBadGateway)
	case r.Method == http.MethodConnect:
		tunnel(w, to)
	default:
		r.URL.Host = to
		(&httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}}).ServeHTTP(w, r)
	}
}

// tunnel passes bytes both ways until one side ends.
func tunnel(w http.ResponseWriter, to string) {
	server, err := net.Dial("tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer server.Close()
	client, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(server, buffered)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// was tells what it was asked, and forgets it.
func (p *proxy) was() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.asked = nil }()
	return p.asked
}

// TestProxy: what is not here is asked of the environment's proxies, https
// through a tunnel in which they read nothing, and what NO_PROXY names is not.
// 0.0.0.0 is this machine too, but no loopback, which is never asked of a proxy.
func TestProxy(t *testing.T) {
	content := gz(t, tarOf(t, member{name: "x", body: "binary"}))
	serve := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	plain, secure := httptest.NewServer(serve), httptest.NewTLSServer(serve)
	defer plain.Close()
	defer secure.Close()
	// httptest's certificate is example.com's.
	plainAt, secureAt := plain.Listener.Addr().String(), secure.Listener.Addr().String()
	forHTTP := newProxy(t, map[string]string{"artifacts.example": plainAt, "0.0.0.0": plainAt})
	forHTTPS := newProxy(t, map[string]string{"example.com": secureAt})
	_, port, _ := net.SplitHostPort(plainAt)
	both := []string{"SECRET=x", "HTTP_PROXY=" + forHTTP.URL, "HTTPS_PROXY=" + forHTTPS.URL}
	for _, c := range []struct {
		name         string
		environ      []string
		url          string
		plain, https []string // what each proxy is asked
	}{
		{"http", both, "http://artifacts.example/x.tar.gz", []string{"GET http://artifacts.example/x.tar.gz"}, nil},
		{"https", both, "https://example.com/x.tar.gz", nil, []string{"CONNECT example.com:443"}},
		{"in lower case", []string{"https_proxy=" + forHTTPS.URL}, "https://example.com/x.tar.gz", nil, []string{"CONNECT example.com:443"}},
		{"without a scheme", []string{"https_proxy=" + forHTTPS.Listener.Addr().String()}, "https://example.com/x.tar.gz", nil, []string{"CONNECT example.com:443"}},
		{"an address", both, "http://0.0.0.0:" + port + "/x.tar.gz", []string{"GET http://0.0.0.0:" + port + "/x.tar.gz"}, nil},
		{"NO_PROXY", append(both, "NO_PROXY=10.0.0.0/8,0.0.0.0"), "http://0.0.0.0:" + port + "/x.tar.gz", nil, nil},
		{"NO_PROXY of others", append(both, "NO_PROXY=.other.example"), "http://artifacts.example/x.tar.gz", []string{"GET http://artifacts.example/x.tar.gz"}, nil},
		{"loopback", both, plain.URL + "/x.tar.gz", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, func(o *Options) { o.Environ, o.CAFile = c.environ, caOf(t, secure) })
			e, _ := b.get(Artifact{URL: c.url, SHA256: digest(content)})
			if got := read(t, e.Path, "x"); got != "binary" {
				t.Errorf("got %q", got)
			}
			if was := forHTTP.was(); !slices.Equal(was, c.plain) {
				t.Errorf("HTTP_PROXY was asked %q, want %q", was, c.plain)
			}
			if was := forHTTPS.was(); !slices.Equal(was, c.https) {
				t.Errorf("HTTPS_PROXY was asked %q, want %q", was, c.https)
			}
		})
	}
}

// TestProxyRefuses: what a proxy does not let through is told, and its password
// is in no message.
func TestProxyRefuses(t *testing.T) {
	content := []byte("x")
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	defer secure.Close()
	p := newProxy(t, map[string]string{"example.com": secure.Listener.Addr().String()})
	p.user = "shop:secret"
	with := func(user string) *bench {
		return newBench(t, func(o *Options) {
			o.CAFile = caOf(t, secure)
			o.Environ = []string{"HTTPS_PROXY=" + strings.Replace(p.URL, "http://", "http://"+user, 1), "HTTP_PROXY=" + strings.Replace(p.URL, "http://", "http://"+user, 1)}
		})
	}
	a := Artifact{URL: "https://example.com/x", SHA256: digest(content)}
	b := with("")
	if err := b.fails(a); !strings.Contains(err, "Proxy Authentication Required") {
		t.Error(err)
	}
	b = with("shop:wrong-one@")
	for _, url := range []string{"https://example.com/x", "http://example.com/x"} {
		if err := b.fails(Artifact{URL: url, SHA256: digest(content)}); strings.Contains(err, "wrong-one") || !strings.Contains(err, "407") && !strings.Contains(err, "Proxy Authentication Required") {
			t.Error(err)
		}
	}
	with("shop:secret@").get(a)
	b = with("shop:secret@")
	if err := b.fails(Artifact{URL: "https://elsewhere.example/x", SHA256: digest(content)}); !strings.Contains(err, "Bad Gateway") || strings.Contains(err, "secret") {
		t.Error(err)
	}
	p.Close()
	if err := b.fails(a); !strings.Contains(err, "connection refused") || strings.Contains(err, "secret") {
		t.Error(err)
	}
}

// TestProxyRedirects: behind a proxy, which dials, a redirect inward is refused by
// the address in it.
func TestProxyRedirects(t *testing.T) {
	secret := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("secret")) }))
	defer secret.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.FormValue("to"))
		w.WriteHeader(http.StatusFound)
	}))
	defer server.Close()
	at := secret.Listener.Addr().String()
	p := newProxy(t, map[string]string{"artifacts.example": server.Listener.Addr().String(), "10.96.0.1": at, "169.254.169.254": at})
	for to, word := range map[string]string{
		"http://10.96.0.1/": "at the private address", "http://169.254.169.254/latest": "at the link-local address", secret.URL: "at the loopback address",
		"http://localhost/": "at the loopback address",
	} {
		b := newBench(t, func(o *Options) { o.Environ = []string{"HTTP_PROXY=" + p.URL} })
		b.refused(word, Artifact{URL: "http://artifacts.example/x?to=" + url.QueryEscape(to), Insecure: true})
		if was := p.was(); len(was) != 1 {
			t.Errorf("the proxy was asked %q", was)
		}
	}
}

// caOf is a file with a server's certificate.
func caOf(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
