package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"
)

// serveTLS answers the API server until the story ends, by a certificate of that
// name or address.
func (s *story) serveTLS(name string, h http.Handler) (address *net.TCPAddr, ca []byte) {
	s.t.Helper()
	certificate, ca := selfSigned(s.t, name)
	l, err := (&net.ListenConfig{}).Listen(s.ctx, "tcp", s.address()+":0")
	s.must(err)
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: h, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	go func() { _ = srv.ServeTLS(l, "", "") }()
	s.t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().(*net.TCPAddr), ca
}

// selfSigned is a certificate for a name or an address, and what to trust it by.
func selfSigned(t *testing.T, name string) (certificate tls.Certificate, ca []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
