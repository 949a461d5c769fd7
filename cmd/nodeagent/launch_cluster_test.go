package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/source"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// api is a real API server with etcd.
type api struct {
	t       *testing.T
	folder  string
	kubectl string
}

func startAPIServer(t *testing.T) *api {
	t.Helper()
	binary, etcd := os.Getenv("NODEAGENT_TEST_KUBERNETES"), os.Getenv("NODEAGENT_TEST_ETCD")
	if binary == "" || etcd == "" {
		t.Fatal("NODEAGENT_TEST_KUBERNETES and NODEAGENT_TEST_ETCD name no folders with kube-apiserver and etcd: run `make test`, or `go test -short` for the unit tests alone")
	}
	a := &api{t: t, folder: t.TempDir(), kubectl: filepath.Join(binary, "kubectl")}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	a.write("sa.key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	a.write("tokens.csv", []byte("launch-test,admin,admin,system:masters\n"))
	client, peer, port := "http://127.0.0.1:"+aPort(t), "http://127.0.0.1:"+aPort(t), aPort(t)
	a.start(filepath.Join(etcd, "etcd"), "--data-dir="+a.file("etcd"), "--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	a.start(filepath.Join(binary, "kube-apiserver"), "--etcd-servers="+client, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		"--secure-port="+port, "--cert-dir="+a.file("certs"), "--service-cluster-ip-range=10.96.0.0/24",
		"--token-auth-file="+a.file("tokens.csv"), "--authorization-mode=AlwaysAllow", "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
		"--service-account-issuer=https://kubernetes.default", "--service-account-key-file="+a.file("sa.key"), "--service-account-signing-key-file="+a.file("sa.key"))
	a.write("kubeconfig", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:%s", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: launch-test}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, port))
	a.eventually(90*time.Second, "the API server answers", func() bool { _, err := a.try("", "get", "namespace", "default"); return err == nil })
	a.do("", "create", "namespace", "nodeagent")
	a.do("", "apply", "-f", "../../manifests/base/crds")
	a.do("", "wait", "--for=condition=Established", "crd/binaries.nodeagent.dev", "crd/binaryinstances.nodeagent.dev", "--timeout=60s")
	return a
}

func (a *api) file(name string) string { return filepath.Join(a.folder, name) }

func (a *api) write(name string, text []byte) {
	if err := os.WriteFile(a.file(name), text, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *api) start(program string, args ...string) {
	a.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = a.folder, &out, &out
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// try runs kubectl with text on its standard input.
func (a *api) try(text string, args ...string) (string, error) {
	cmd := exec.Command(a.kubectl, append([]string{"--kubeconfig=" + a.file("kubeconfig")}, args...)...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (a *api) do(text string, args ...string) string {
	a.t.Helper()
	out, err := a.try(text, args...)
	if err != nil {
		a.t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
	return out
}

func (a *api) get(what, path string) string {
	a.t.Helper()
	out, _ := a.try("", "get", what, "-o", "jsonpath="+path)
	return strings.TrimSpace(out)
}

func (a *api) eventually(within time.Duration, what string, so func() bool) {
	a.t.Helper()
	for deadline := time.Now().Add(within); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			instances, _ := a.try("", "get", "binaries,binaryinstances", "-o", "wide")
			a.t.Fatalf("not within %s: %s\n%s", within, what, instances)
		}
	}
}

func aPort(t *testing.T) string {
	t.Helper()
	l, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	return port
}

// launchNode is one node's launching, wired as the agent wires it.
type launchNode struct {
	parts *launchParts
	kill  func()
}

// buildProgram builds nodeagent, which is what fetches, and returns where it is.
func buildProgram(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "nodeagent")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func (a *api) node(name, program, root string) *launchNode {
	a.t.Helper()
	log := slog.New(slog.NewTextHandler(a.t.Output(), nil)).With("node", name)
	cfg := v1alpha1.DefaultConfig()
	cfg.Node = name
	cfg.Launch.Folder, cfg.Launch.Root, cfg.Launch.State = filepath.Join(root, "binaries.d"), root, filepath.Join(root, "state")
	cfg.Launch.Cgroup = fmt.Sprintf("nodeagent-test-%d-%s", os.Getpid(), name)
	a.t.Cleanup(func() { removeCgroups(a.t, cfg.Launch.Cgroup) }) // after kill, which is cleaned up first
	o := runOptions{kubeconfig: a.file("kubeconfig")}
	kube, err := kubeConfig(o.kubeconfig)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := restart.NewClient(kube, log)
	if err != nil {
		a.t.Fatal(err)
	}
	pods, err := newNodePods(c, name, func(bool) {})
	if err != nil {
		a.t.Fatal(err)
	}
	l, err := newLaunchParts(cfg, o, program, pods, prometheus.NewRegistry(), log)
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = pods.run(ctx) })
	done.Go(func() {
		if err := l.run(ctx); err != nil {
			a.t.Error(err)
		}
	})
	n := &launchNode{parts: l}
	var once sync.Once
	n.kill = func() { once.Do(func() { cancel(); done.Wait() }) }
	a.t.Cleanup(n.kill)
	return n
}

// removeCgroups ends what a test has left in its cgroups, v1 or v2, and removes
// them.
func removeCgroups(t *testing.T, name string) {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	for _, root := range append(roots, "/sys/fs/cgroup/"+name) {
		var all []string
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for _, path := range slices.Backward(all) {
			for deadline := time.Now().Add(5 * time.Second); os.Remove(path) != nil; time.Sleep(5 * time.Millisecond) {
				pids, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
				if err != nil {
					break
				}
				for _, f := range strings.Fields(string(pids)) {
					if pid, err := strconv.Atoi(f); err == nil {
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
				}
				if time.Now().After(deadline) {
					t.Errorf("the cgroup %s is left", path)
					break
				}
			}
		}
	}
}

const nodeObject = `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": %q}}`

// sleeper is a Binary of a shell script whose text an update changes.
func sleeper(url, digest string, text string, more ...string) string {
	return fmt.Sprintf(`apiVersion: nodeagent.dev/v1alpha1
kind: Binary
metadata: {name: sleeper}
spec:
  fetch: [{url: %q, sha256: {"*": %s}}]
  command: [/bin/sh, ./script, %q]
  enforcement: BestEffort
  terminationGracePeriodSeconds: 0
  readiness: {exec: {command: [/bin/sh, -c, "test %s != bad"]}, interval: 200ms}
%s`, url, digest, text, text, strings.Join(more, "\n"))
}

// One apply on two nodes: both run it; its label moves it; an update goes node
// by node; a bad one halts at the first node; a delete leaves nothing.
func TestLaunchOnTwoNodes(t *testing.T) {
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("needs root and a real API server")
	}
	a, program := startAPIServer(t), buildProgram(t)
	script := []byte("echo runs $1; exec sleep 1000\n")
	sum := sha256.Sum256(script)
	digest := hex.EncodeToString(sum[:])
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(script) }))
	defer srv.Close()
	url := srv.URL + "/script"
	roots, nodes := map[string]string{}, map[string]*launchNode{}
	for _, name := range []string{"node-a", "node-b"} {
		root, err := os.MkdirTemp("", "nodeagent-launch-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(root) })
		if err := os.Chmod(root, 0o755); err != nil {
			t.Fatal(err)
		}
		a.do(fmt.Sprintf(nodeObject, name), "create", "-f", "-")
		roots[name] = root
		nodes[name] = a.node(name, program, root)
	}
	update := "  update: {deadline: 3s}\n  roles: [\"*\"]"
	a.do(sleeper(url, digest, "one", update), "apply", "-f", "-")
	a.eventually(30*time.Second, "both nodes run it", func() bool {
		return a.get("binary/sleeper", "{.status.nodes} {.status.up} {.status.updated}") == "2 2 2"
	})
	t.Log("\n" + a.do("", "get", "binaries", "-o", "wide") + a.do("", "get", "binaryinstances", "-o", "wide"))
	if owner := a.get("binaryinstance/sleeper.node-a", "{.metadata.ownerReferences[0].uid}"); owner == "" || owner != a.get("binary/sleeper", "{.metadata.uid}") {
		t.Errorf("the instance's owner is %q", owner)
	}

	// The agent of a node ends and another comes: the same process.
	pid := a.get("binaryinstance/sleeper.node-a", "{.status.pid}")
	nodes["node-a"].kill()
	nodes["node-a"].parts = nil

	// An update: the node without an agent holds it up, as one that is down.
	a.do(sleeper(url, digest, "two", update), "apply", "-f", "-")
	a.eventually(60*time.Second, "a leader has admitted one node", func() bool { return a.get("binary/sleeper", "{.status.admitted}") == `["node-a"]` })
	if running := a.get("binaryinstance/sleeper.node-b", "{.status.runningGeneration}"); running != "1" {
		t.Errorf("node-b runs generation %s before node-a has changed", running)
	}
	if now := a.get("binaryinstance/sleeper.node-a", "{.status.pid}"); now != pid {
		t.Errorf("pid %s, was %s", now, pid)
	}
	nodes["node-a"] = a.node("node-a", program, roots["node-a"])
	a.eventually(60*time.Second, "both nodes run the second", func() bool {
		return a.get("binary/sleeper", "{.status.nodes} {.status.up} {.status.updated}") == "2 2 2"
	})

	// One that does not turn ready is taken back on the first node, and the
	// second never sees it.
	a.do(sleeper(url, digest, "bad", update), "apply", "-f", "-")
	a.eventually(60*time.Second, "the update is halted", func() bool {
		return strings.HasPrefix(a.get("binary/sleeper", "{.status.message}"), "halted at 0 of 2 nodes: on node-")
	})
	if up := a.get("binary/sleeper", "{.status.up}"); up != "2" {
		t.Errorf("%s are up", up)
	}
	rejected := strings.Fields(a.get("binaryinstances", "{.items[*].status.rejectedGeneration}"))
	if len(rejected) != 1 || rejected[0] != "3" {
		t.Errorf("rejected on %v; want one node", rejected)
	}

	// Only public nodes: it ends on both, and comes when the label does.
	a.do(sleeper(url, digest, "three", "  roles: [public]"), "apply", "-f", "-")
	a.eventually(30*time.Second, "no node runs it", func() bool { return a.get("binaryinstances", "{.items[*].metadata.name}") == "" })
	a.do("", "label", "node", "node-b", "nodeagent.dev/role=public")
	a.eventually(30*time.Second, "node-b runs it", func() bool {
		return a.get("binaryinstances", "{.items[*].metadata.name}{.items[*].status.state}") == "sleeper.node-bHealthy"
	})
	a.do("", "label", "node", "node-b", "nodeagent.dev/role-")
	a.eventually(30*time.Second, "node-b ends it", func() bool { return a.get("binaryinstances", "{.items[*].metadata.name}") == "" })

	// A node that is gone for good holds nothing up: it counts no more.
	a.do(sleeper(url, digest, "four", update), "apply", "-f", "-")
	a.eventually(60*time.Second, "both nodes run the fourth", func() bool {
		return a.get("binary/sleeper", "{.status.nodes} {.status.up} {.status.updated}") == "2 2 2"
	})
	nodes["node-b"].kill()
	a.do("", "delete", "node", "node-b")
	a.do(sleeper(url, digest, "five", update), "apply", "-f", "-")
	a.eventually(60*time.Second, "the node that is left runs the fifth, and nobody waits for the other", func() bool {
		return a.get("binary/sleeper", "{.status.nodes} {.status.up} {.status.updated} {.status.message}") == "1 1 1"
	})
	a.do(fmt.Sprintf(nodeObject, "node-b"), "create", "-f", "-")
	nodes["node-b"] = a.node("node-b", program, roots["node-b"])
	a.eventually(60*time.Second, "it is back and counts", func() bool {
		return a.get("binary/sleeper", "{.status.nodes} {.status.up} {.status.updated}") == "2 2 2"
	})

	a.do("", "delete", "binary", "sleeper")
	for name, n := range nodes {
		a.eventually(30*time.Second, name+" has forgotten it", func() bool { return len(n.parts.supervisor.Instances()) == 0 })
		n.kill()
		for _, folder := range []string{"sandboxes", "units", "state/tasks", "store/leases"} {
			left, _ := os.ReadDir(filepath.Join(roots[name], folder))
			for _, f := range left {
				if f.Name() == "@etc" { // all tasks' common files, the launcher's own
					continue
				}
				t.Errorf("%s: left in %s: %s", name, folder, f.Name())
			}
		}
	}
}

// What the API server says of a Binary that cannot be used is what the command
// line and a file say.
func TestSameWordsAsTheAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real API server")
	}
	a := startAPIServer(t)
	const good = `apiVersion: nodeagent.dev/v1alpha1
kind: Binary
metadata: {name: web}
spec:
  fetch: [{url: "https://example.org/web", sha256: {amd64: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}}]
  command: [./web]
  env: [{name: LEVEL, value: x}]
  ports: [{name: http, port: 8080}, {name: admin, port: 0}]
  resources: {cpu: 1, memory: 64Mi, pids: 10, cpuset: "0-1,3", io: [{device: /dev/sda, readBytesPerSecond: 10Mi, writeOperationsPerSecond: 5}]}
  rlimits: [{name: nofile, soft: 1024, hard: 4096}, {name: core, soft: 0}]
  user: "1000:1000"
  health: {http: {port: http, path: /}, interval: 10s}
  readiness: {exec: {command: [./ready]}}
  roles: ["*", public]
  update: {maxUnavailable: 10%}
`
	if out, err := a.try(good, "create", "--dry-run=server", "-f", "-"); err != nil {
		t.Fatalf("a good one is refused: %s", out)
	}
	if _, err := source.Parse([]byte(good)); err != nil {
		t.Fatalf("a good one is refused: %v", err)
	}
	for i, tt := range [][2]string{
		{"name: web}\n", "name: web.site}\n"},
		{"name: web}\n", "name: " + strings.Repeat("x", 64) + "}\n"},
		{"https://example.org/web", "ftp://example.org/web"},
		{"sha256: {amd64", "mirrors: [gopher://x/], sha256: {amd64"},
		{"sha256: {amd64: \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}", "mode: '0755'"},
		{"0123456789abcdef0123", "X123456789abcdef0123"},
		{"sha256: {amd64", "sha512: {amd64: abc}, sha256: {amd64"},
		{"sha256: {amd64", "sha256: {AMD"},
		{"sha256: {amd64", "path: /etc/x, sha256: {amd64"},
		{"sha256: {amd64", "path: a/../b, sha256: {amd64"},
		{"sha256: {amd64", "mode: '4755', sha256: {amd64"},
		{"sha256: {amd64", "format: rar, sha256: {amd64"},
		{"sha256: {amd64", "stripComponents: 17, sha256: {amd64"},
		{"  command: [./web]\n", ""},
		{"name: LEVEL", "name: 1LEVEL"},
		{"name: LEVEL", "name: PORT0"},
		{"name: admin, port: 0", "name: http, port: 0"},
		{"name: admin, port: 0", "name: admin, port: 8080"},
		{"name: admin, port: 0", "name: Admin, port: 0"},
		{"name: admin, port: 0", "name: admin, port: 65536"},
		{"name: admin, port: 0", "name: admin, port: 0, protocol: SCTP"},
		{"name: admin, port: 0", "name: admin, port: 0, protocol: UDP, held: true"},
		{"cpu: 1", "cpu: 0"},
		{"memory: 64Mi", "memory: -1Gi"},
		{"pids: 10", "pids: 0"},
		{"0-1,3", "0-"},
		{"device: /dev/sda", "device: sda"},
		{"readBytesPerSecond: 10Mi", "readBytesPerSecond: 0"},
		{"writeOperationsPerSecond: 5", "writeOperationsPerSecond: 0"},
		{"name: nofile, soft: 1024", "name: nofile, soft: 5000"},
		{"name: nofile, soft: 1024", "name: nofile, soft: -1"},
		{"name: core", "name: nofile"},
		{"name: core", "name: cores"},
		{"1000:1000", "1000:wheel"},
		{"  user:", "  network: none\n  user:"},
		{"  user:", "  network: bridge\n  user:"},
		{"http: {port: http, path: /}", "http: {port: other}"},
		{"http: {port: http, path: /}", "http: {port: http}, tcp: {}"},
		{"interval: 10s", "interval: 1ms"},
		{"exec: {command: [./ready]}", "tcp: {port: nine}"},
		{"exec: {command: [./ready]}", "exec: {command: []}"},
		{"roles: [\"*\", public]", "roles: [\"a b\"]"},
		{"maxUnavailable: 10%", "maxUnavailable: 0"},
		{"maxUnavailable: 10%", "maxUnavailable: 110%"},
		{"  update:", "  restartPolicy: Sometimes\n  update:"},
		{"  update:", "  profile: open\n  update:"},
		{"  update:", "  enforcement: Maybe\n  update:"},
		{"  update:", "  terminationGracePeriodSeconds: 4000\n  update:"},
		{"  update:", "  colour: red\n  update:"},
	} {
		text := strings.Replace(good, tt[0], tt[1], 1)
		if i == 13 { // without a command there have to be two artifacts for a mistake
			text = strings.Replace(text, "fetch: [{", `fetch: [{url: "https://example.org/b", insecure: true}, {`, 1)
		}
		if text == good {
			t.Fatalf("%q is not in the text", tt[0])
		}
		_, err := source.Parse([]byte(text))
		if err == nil {
			t.Errorf("%q: a file with it is taken", tt[1])
			continue
		}
		out, refused := a.try(text, "create", "--dry-run=server", "-f", "-")
		if refused == nil {
			t.Errorf("%q: the API server takes it; a file says %v", tt[1], err)
			continue
		}
		if words := ourWords(err.Error()); !strings.Contains(out, words) {
			t.Errorf("%q\nthe API server: %s\na file:         %v", tt[1], out, words)
		}
	}
}

// ourWords is what is wrong without the line, the path and the value, which
// the API server writes in its own way.
func ourWords(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	for _, start := range []string{"want ", "should ", "supported values", "unknown field"} {
		if i := strings.Index(text, start); i >= 0 {
			return text[i:]
		}
	}
	return strconv.Quote(text)
}
