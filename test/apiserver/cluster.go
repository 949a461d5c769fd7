package apiserver

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/freeport"
)

// Cluster is one control plane.
type Cluster struct {
	// Admin may do everything.
	Admin client.WithWatch
	// Config is the admin's.
	Config *rest.Config

	t            *testing.T
	folder       string
	binary       string
	port, etcdAt int
	api          *process
	discovery    *discovery.DiscoveryClient
}

const adminToken = "nodeagent-test-admin"

// Controllers are those of kube-controller-manager that move pods.
func Controllers() []string {
	return []string{
		"deployment-controller", "replicaset-controller", "statefulset-controller", "daemonset-controller",
		"garbage-collector-controller", "disruption-controller", "endpointslice-controller",
		"replicationcontroller-controller", "job-controller", "clusterrole-aggregation-controller",
	}
}

// Start starts one with these controllers and ends it with the test. It never
// skips: a test that needs the parts and has none fails. The users are known by
// a token that is their name.
func Start(t *testing.T, controllers []string, users ...string) *Cluster {
	t.Helper()
	binary, etcd := os.Getenv("NODEAGENT_TEST_KUBERNETES"), os.Getenv("NODEAGENT_TEST_ETCD")
	if binary == "" || etcd == "" {
		t.Fatal("NODEAGENT_TEST_KUBERNETES and NODEAGENT_TEST_ETCD name no folders with kube-apiserver and etcd: run this test by `make test`, or only the pure ones by `go test -short`")
	}
	c := &Cluster{t: t, folder: t.TempDir(), binary: binary, port: freeport.From(t, 10000), etcdAt: freeport.From(t, 10000)}
	c.startEtcd(etcd)
	c.writeFiles(users)
	c.StartAPI()
	c.connect()
	if len(controllers) > 0 {
		start(t, c.folder, filepath.Join(binary, "kube-controller-manager"),
			"--kubeconfig="+c.Kubeconfig("admin"), "--leader-elect=false", "--secure-port=0",
			"--controllers="+strings.Join(controllers, ","), "--kube-api-qps=200", "--kube-api-burst=400")
	}
	c.Kubectl("apply", "-f", filepath.Join(Root(t), "manifests/base/crds"))
	c.Established(t, "restarts.nodeagent.dev", "binaries.nodeagent.dev", "binaryinstances.nodeagent.dev")
	return c
}

// Established waits until the API server serves what these definitions define.
// kubectl's own wait fails where one has no condition yet.
func (c *Cluster) Established(t *testing.T, definitions ...string) {
	t.Helper()
	for _, name := range definitions {
		Eventually(t, time.Minute, name+" is established", func() bool {
			out, err := c.TryKubectl("get", "crd", name, "-o", `jsonpath={.status.conditions[?(@.type=="Established")].status}`)
			return err == nil && out == "True"
		})
	}
}

// Root is the repository's folder.
func Root(t *testing.T) string {
	t.Helper()
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; folder != "/"; folder = filepath.Dir(folder) {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder
		}
	}
	t.Fatal("the test does not run inside the repository")
	return ""
}

func (c *Cluster) file(name string) string { return filepath.Join(c.folder, name) }

// Etcd is where etcd answers.
func (c *Cluster) Etcd() string { return "http://127.0.0.1:" + strconv.Itoa(c.etcdAt) }

func (c *Cluster) startEtcd(folder string) {
	at, peer := c.Etcd(), "http://127.0.0.1:"+strconv.Itoa(freeport.From(c.t, 10000))
	start(c.t, c.folder, filepath.Join(folder, "etcd"), "--data-dir="+c.file("etcd"),
		"--listen-client-urls="+at, "--advertise-client-urls="+at,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
}

func (c *Cluster) writeFiles(users []string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		c.t.Fatal(err)
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	c.Write("service-account.key", pem.EncodeToMemory(block))
	tokens := adminToken + ",admin,admin,system:masters\n"
	c.writeKubeconfig("admin", adminToken)
	for _, user := range users {
		tokens += user + "," + user + "," + user + "\n"
		c.writeKubeconfig(user, user)
	}
	c.Write("tokens.csv", []byte(tokens))
}

func (c *Cluster) writeKubeconfig(user, token string) {
	c.Write("kubeconfig-"+user, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:%d", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, c.port, token))
}

// Write makes a file beside the cluster's own, and returns its path.
func (c *Cluster) Write(name string, content []byte) string {
	c.t.Helper()
	if err := os.WriteFile(c.file(name), content, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return c.file(name)
}

// Kubeconfig is the file of a user, or of admin.
func (c *Cluster) Kubeconfig(user string) string { return c.file("kubeconfig-" + user) }

// StartAPI starts the API server, which need not answer yet.
func (c *Cluster) StartAPI() {
	c.api = start(c.t, c.folder, filepath.Join(c.binary, "kube-apiserver"),
		"--etcd-servers="+c.Etcd(),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+strconv.Itoa(c.port),
		"--cert-dir="+c.file("certs"), "--service-cluster-ip-range=10.96.0.0/24",
		"--token-auth-file="+c.file("tokens.csv"), "--authorization-mode=RBAC", "--allow-privileged=true",
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
		"--service-account-issuer=https://kubernetes.default", "--service-account-key-file="+c.file("service-account.key"),
		"--service-account-signing-key-file="+c.file("service-account.key"))
}

// KillAPI kills the API server.
func (c *Cluster) KillAPI() { c.api.kill() }

// RestartAPI kills the API server, starts it again and waits until it answers.
func (c *Cluster) RestartAPI() {
	c.KillAPI()
	c.StartAPI()
	c.untilHealthy()
}

// ConfigOf is a user's.
func (c *Cluster) ConfigOf(user string) *rest.Config {
	return &rest.Config{
		Host: "https://127.0.0.1:" + strconv.Itoa(c.port), BearerToken: user,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: 500, Burst: 1000,
	}
}

func (c *Cluster) connect() {
	c.Config = c.ConfigOf(adminToken)
	if err := v1alpha1.AddToScheme(scheme.Scheme); err != nil {
		c.t.Fatal(err)
	}
	d, err := discovery.NewDiscoveryClientForConfig(c.Config)
	if err != nil {
		c.t.Fatal(err)
	}
	c.discovery = d
	c.untilHealthy()
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d))
	if c.Admin, err = client.NewWithWatch(c.Config, client.Options{Scheme: scheme.Scheme, Mapper: mapper}); err != nil {
		c.t.Fatal(err)
	}
}

// untilHealthy waits for all that the API server does when it starts, its own
// roles among it: kube-controller-manager ends where that takes too long.
func (c *Cluster) untilHealthy() {
	Eventually(c.t, 2*time.Minute, "the API server is healthy", func() bool {
		return c.discovery.RESTClient().Get().AbsPath("/healthz").Do(c.t.Context()).Error() == nil
	})
}

// Kubectl is the independent oracle, and how manifests get in.
func (c *Cluster) Kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.TryKubectl(args...)
	if err != nil {
		c.t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
	return out
}

// TryKubectl returns what it said when it fails, too.
func (c *Cluster) TryKubectl(args ...string) (string, error) {
	cmd := exec.CommandContext(context.WithoutCancel(c.t.Context()), c.KubectlBinary(), append([]string{"--kubeconfig=" + c.Kubeconfig("admin")}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// KubectlBinary is the program.
func (c *Cluster) KubectlBinary() string { return filepath.Join(c.binary, "kubectl") }

// Namespace makes one.
func (c *Cluster) Namespace(t *testing.T, name string) {
	t.Helper()
	c.Create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

// Create makes objects as admin.
func (c *Cluster) Create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := c.Admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// Log writes into the test's.
func Log(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }
