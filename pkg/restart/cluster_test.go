package restart

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/freeport"
)

// cluster is a real control plane: etcd, kube-apiserver and
// kube-controller-manager. Its nodes are objects; what a kubelet and a
// scheduler would do on them does a kubelet of kubelet_test.go.
type cluster struct {
	t      *testing.T
	folder string
	binary string // folder with kube-apiserver, kube-controller-manager, kubectl
	port   int
	etcd   int
	config *rest.Config
	admin  client.WithWatch
	api    *process
}

const adminToken = "nodeagent-test-admin"

// startCluster never skips: a test that needs the parts and has none fails.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	binary, etcd := os.Getenv("NODEAGENT_TEST_KUBERNETES"), os.Getenv("NODEAGENT_TEST_ETCD")
	if binary == "" || etcd == "" {
		t.Fatal("NODEAGENT_TEST_KUBERNETES and NODEAGENT_TEST_ETCD name no folders with kube-apiserver and etcd: run this test by `make test`, or only the pure ones by `go test -short`")
	}
	c := &cluster{t: t, folder: t.TempDir(), binary: binary, port: freeport.From(t, 10000), etcd: freeport.From(t, 10000)}
	c.startEtcd(etcd)
	c.writeFiles()
	c.startAPI()
	c.connect()
	start(t, c.folder, filepath.Join(binary, "kube-controller-manager"),
		"--kubeconfig="+c.file("kubeconfig"), "--leader-elect=false", "--secure-port=0",
		"--controllers=deployment-controller,replicaset-controller,statefulset-controller,daemonset-controller,garbage-collector-controller,disruption-controller,"+
			"endpointslice-controller,replicationcontroller-controller,job-controller",
		"--kube-api-qps=200", "--kube-api-burst=400")
	c.kubectl("apply", "-f", "../../manifests/base/crds", "-f", "../../manifests/base/namespace.yaml", "-f", "../../manifests/base/fences.yaml")
	c.kubectl("apply", "-n", "nodeagent", "-f", "../../manifests/base/rbac.yaml", "-f", "../../manifests/overlays/launch/rbac.yaml")
	c.kubectl("wait", "--for=condition=Established", "crd/restarts.nodeagent.dev", "--timeout=60s")
	c.fenced()
	return c
}

// fenced waits until the API server holds agents to the fences and knows their
// rights: it learns of what was written by watches, and the last of the fences
// refuses nothing before all do.
func (c *cluster) fenced() {
	c.write("probe.yaml", fmt.Appendf(nil, `apiVersion: nodeagent.dev/v1alpha1
kind: Restart
metadata: {name: deployment-probe, namespace: default, annotations: {%s: "1"}}
spec: {target: {apiVersion: apps/v1, kind: Deployment, name: probe}}
`, v1alpha1.AnnotationApproved))
	c.kubectl("create", "clusterrole", "probe", "--verb=create", "--resource=restarts.nodeagent.dev")
	c.kubectl("create", "clusterrolebinding", "probe", "--clusterrole=probe", "--user=probe")
	eventually(c.t, 90*time.Second, "the fences stand", func() bool {
		out, err := c.tryKubectl("create", "--as=probe", "--dry-run=server", "-f", c.file("probe.yaml"))
		return err != nil && strings.Contains(out, "verb approve")
	})
	c.kubectl("delete", "clusterrolebinding/probe", "clusterrole/probe")
}

func (c *cluster) file(name string) string { return filepath.Join(c.folder, name) }

func (c *cluster) startEtcd(folder string) {
	client, peer := "http://127.0.0.1:"+strconv.Itoa(c.etcd), "http://127.0.0.1:"+strconv.Itoa(freeport.From(c.t, 10000))
	start(c.t, c.folder, filepath.Join(folder, "etcd"), "--data-dir="+c.file("etcd"),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
}

func (c *cluster) writeFiles() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		c.t.Fatal(err)
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	c.write("service-account.key", pem.EncodeToMemory(block))
	c.write("tokens.csv", []byte(adminToken+",admin,admin,system:masters\n"))
	c.write("kubeconfig", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:%d", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, c.port, adminToken))
}

func (c *cluster) write(name string, content []byte) {
	if err := os.WriteFile(c.file(name), content, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) startAPI() {
	c.api = start(c.t, c.folder, filepath.Join(c.binary, "kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:"+strconv.Itoa(c.etcd),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+strconv.Itoa(c.port),
		"--cert-dir="+c.file("certs"), "--service-cluster-ip-range=10.96.0.0/24",
		"--token-auth-file="+c.file("tokens.csv"), "--authorization-mode=RBAC", "--allow-privileged=true",
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
		"--service-account-issuer=https://kubernetes.default", "--service-account-key-file="+c.file("service-account.key"),
		"--service-account-signing-key-file="+c.file("service-account.key"))
}

func (c *cluster) connect() {
	c.config = &rest.Config{
		Host: "https://127.0.0.1:" + strconv.Itoa(c.port), BearerToken: adminToken,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: 500, Burst: 1000,
	}
	scheme, err := newScheme()
	if err != nil {
		c.t.Fatal(err)
	}
	mapper := newMapper().(*meta.DefaultRESTMapper)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	if c.admin, err = client.NewWithWatch(c.config, client.Options{Scheme: scheme, Mapper: mapper, Log: logr.Discard()}); err != nil {
		c.t.Fatal(err)
	}
	// All that it does when it starts is done then, its own roles among it:
	// kube-controller-manager ends where that takes too long.
	eventually(c.t, 2*time.Minute, "the API server is healthy", func() bool {
		var namespace corev1.Namespace
		_, err := c.tryKubectl("get", "--raw=/healthz")
		return err == nil && c.admin.Get(c.t.Context(), client.ObjectKey{Name: "default"}, &namespace) == nil
	})
}

// kubectl is the independent oracle, and how the manifests get in.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.tryKubectl(args...)
	if err != nil {
		c.t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
	return out
}

func (c *cluster) tryKubectl(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(c.binary, "kubectl"), append([]string{"--kubeconfig=" + c.file("kubeconfig")}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// inTime is what kubectl may do once the API server knows of the rights that
// were written just before: it learns of them by a watch.
func (c *cluster) inTime(t *testing.T, args ...string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, err := c.tryKubectl(args...)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
	}
}

func (c *cluster) namespace(t *testing.T, name string) {
	t.Helper()
	create(t, c.admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

func create(t *testing.T, c client.Client, o client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// process is one that the test started, and the only kind it ends.
type process struct {
	cmd    *exec.Cmd
	output *bytes.Buffer
	done   chan struct{}
}

func start(t *testing.T, folder, binary string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, args...), output: &bytes.Buffer{}, done: make(chan struct{})}
	p.cmd.Dir = folder
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			out := p.output.Bytes()
			t.Logf("the last of %s:\n%s", filepath.Base(binary), out[max(0, len(out)-800):])
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// eventually asks again and again until it is so.
func eventually(t *testing.T, within time.Duration, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for !so() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", within, what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
