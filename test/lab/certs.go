package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is the lab's own certificate authority; every component of the
// cluster trusts it and none else.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// identity is a certificate and its key, PEM.
type identity struct{ cert, key []byte }

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the CA's key: %w", err)
	}
	template := certTemplate(pkix.Name{CommonName: "nodeagent-lab"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cannot make the CA's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cannot read the CA's certificate: %w", err)
	}
	return &authority{cert: cert, key: key, pem: pemBlock("CERTIFICATE", der)}, nil
}

func certTemplate(subject pkix.Name) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
	}
}

// issue makes a certificate for both ends of a connection. Kubernetes takes
// the common name for the user and the organization for its group.
func (a *authority) issue(user, group string, hosts ...string) (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, fmt.Errorf("cannot make the key of %s: %w", user, err)
	}
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	template := certTemplate(subject)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return identity{}, fmt.Errorf("cannot make the certificate of %s: %w", user, err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return identity{}, fmt.Errorf("cannot encode the key of %s: %w", user, err)
	}
	return identity{cert: pemBlock("CERTIFICATE", der), key: pemBlock("EC PRIVATE KEY", keyDER)}, nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// kubeconfig renders a kubeconfig (as JSON, which is YAML) for the identity.
func (a *authority) kubeconfig(user string, id identity) []byte {
	type named map[string]any
	return mustJSON(named{
		"apiVersion": "v1", "kind": "Config", "current-context": "nodeagent-lab",
		"clusters": []named{{"name": "nodeagent-lab", "cluster": named{
			"server": apiserverURL, "certificate-authority-data": a.pem}}},
		"users":    []named{{"name": user, "user": named{"client-certificate-data": id.cert, "client-key-data": id.key}}},
		"contexts": []named{{"name": "nodeagent-lab", "context": named{"cluster": "nodeagent-lab", "user": user}}},
	})
}

// mustJSON is for values that the lab itself puts together.
func mustJSON(v any) []byte {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(text, '\n')
}

// makePKI writes all certificates and kubeconfigs of the control plane and of
// every node there can be, in one step: a folder that exists is whole. The
// CA's key serves the controller-manager, which signs requests with it.
func makePKI(p paths) error {
	if _, err := os.Stat(p.pki("")); err == nil {
		return nil
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	if err := ca.controlPlaneFiles(files); err != nil {
		return err
	}
	if err := ca.userFiles(files); err != nil {
		return err
	}
	temp := filepath.Join(p.dir, ".new-pki")
	if err := os.RemoveAll(temp); err != nil {
		return fmt.Errorf("cannot write the certificates: %w", err)
	}
	for name, text := range files {
		if err := writeInto(temp, name, text); err != nil {
			return err
		}
	}
	// kubeconfigs first: makePKI takes an existing pki folder for whole.
	for _, name := range []string{"kubeconfig", "pki"} {
		to := filepath.Join(p.dir, name)
		if err := os.RemoveAll(to); err != nil {
			return fmt.Errorf("cannot write the certificates: %w", err)
		}
		if err := os.Rename(filepath.Join(temp, name), to); err != nil {
			return fmt.Errorf("cannot write the certificates: %w", err)
		}
	}
	return os.RemoveAll(temp)
}

func writeInto(dir, name string, text []byte) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of %s: %w", name, err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}

func (a *authority) controlPlaneFiles(files map[string][]byte) error {
	key, err := x509.MarshalECPrivateKey(a.key)
	if err != nil {
		return fmt.Errorf("cannot encode the CA's key: %w", err)
	}
	files["pki/ca.crt"], files["pki/ca.key"] = a.pem, pemBlock("EC PRIVATE KEY", key)
	for _, c := range []struct {
		file, user, group string
		hosts             []string
	}{
		{"etcd", "etcd", "", []string{hostIP, "localhost", "127.0.0.1"}},
		{"apiserver", "kube-apiserver", "", []string{hostIP, kubernetesServiceIP, "localhost", "kubernetes",
			"kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
		{"apiserver-client", "kube-apiserver", "system:masters", nil},
		{"front-proxy", "front-proxy", "", nil},
		{"service-account", "service-account", "", nil},
	} {
		id, err := a.issue(c.user, c.group, c.hosts...)
		if err != nil {
			return err
		}
		files["pki/"+c.file+".crt"], files["pki/"+c.file+".key"] = id.cert, id.key
	}
	return nil
}

func (a *authority) userFiles(files map[string][]byte) error {
	users := []struct{ file, user, group string }{
		{"admin", "admin", "system:masters"},
		{"controller-manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"kube-proxy", "system:kube-proxy", ""},
	}
	for _, u := range users {
		id, err := a.issue(u.user, u.group)
		if err != nil {
			return err
		}
		files["kubeconfig/"+u.file] = a.kubeconfig(u.user, id)
	}
	for n := 1; n <= maxNodes; n++ {
		user := "system:node:" + nodeName(n)
		id, err := a.issue(user, "system:nodes", nodeName(n), nodeIP(n))
		if err != nil {
			return err
		}
		files["kubeconfig/"+nodeName(n)] = a.kubeconfig(user, id)
		files["pki/"+nodeName(n)+".crt"], files["pki/"+nodeName(n)+".key"] = id.cert, id.key
	}
	return nil
}
