package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/rollout"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/source"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// api is a real API server with what an administrator installs.
type api struct {
	*apiserver.Cluster
	t *testing.T
}

func startAPIServer(t *testing.T, controllers ...string) *api {
	t.Helper()
	return &api{Cluster: apiserver.Start(t, controllers), t: t}
}

// try runs kubectl with text on its standard input.
func (a *api) try(text string, args ...string) (string, error) {
	cmd := exec.Command(a.KubectlBinary(), append([]string{"--kubeconfig=" + a.Kubeconfig("admin")}, args...)...)
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

// eventually waits longer than it takes until another agent leads, where the one
// that did could not say on a busy machine that it ends: a minute and a half.
func (a *api) eventually(what string, so func() bool) {
	a.t.Helper()
	const within = 3 * time.Minute
	for deadline := time.Now().Add(within); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			instances, _ := a.try("", "get", "binaries,binaryinstances", "-o", "wide")
			a.t.Fatalf("not within %s: %s\n%s", within, what, instances)
		}
	}
}

// table reads what kubectl get prints: its rows by the names of the columns.
func (a *api) table(args ...string) []map[string]string {
	a.t.Helper()
	lines := strings.Split(strings.TrimRight(a.do("", append([]string{"get"}, args...)...), "\n"), "\n")
	starts := regexp.MustCompile(`\S+\s*`).FindAllStringIndex(lines[0], -1)
	var rows []map[string]string
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, at := range starts {
			end := len(line)
			if i+1 < len(starts) {
				end = min(end, at[1])
			}
			row[strings.TrimSpace(lines[0][at[0]:at[1]])] = strings.TrimSpace(line[min(at[0], end):end])
		}
		rows = append(rows, row)
	}
	return rows
}

// wantRow compares a row of kubectl get with patterns, and the names of its
// columns, all of them.
func wantRow(t *testing.T, row map[string]string, want map[string]string) {
	t.Helper()
	for column, pattern := range want {
		if have, there := row[column]; !there || !regexp.MustCompile("^("+pattern+")$").MatchString(have) {
			t.Errorf("kubectl get prints %s %q, want %s", column, have, pattern)
		}
	}
	if len(row) != len(want) {
		t.Errorf("kubectl get prints the columns %v", row)
	}
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

// launchConfig is that of an agent whose folders are below root.
func launchConfig(t *testing.T, name, root string) *v1alpha1.Config {
	cfg := v1alpha1.DefaultConfig()
	cfg.Node = name
	cfg.Launch.Folder, cfg.Launch.Root, cfg.Launch.State = filepath.Join(root, "binaries.d"), root, filepath.Join(root, "state")
	cfg.Launch.TaintPublicNode = true // as the overlay has it
	cfg.Launch.Cgroup = fmt.Sprintf("nodeagent-test-%d-%s", os.Getpid(), name)
	t.Cleanup(func() { removeCgroups(t, cfg.Launch.Cgroup) }) // after kill, which is cleaned up first
	return cfg
}

// launchRoot is a folder that the users of all tasks may pass through.
func launchRoot(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "nodeagent-launch-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

// node runs a node's launching with an agent's rights, and with it the
// controller that elects the leader.
func (a *api) node(name, kubeconfig, program, root string) *launchNode {
	a.t.Helper()
	log := apiserver.Log(a.t).With("node", name)
	cfg, o := launchConfig(a.t, name, root), runOptions{kubeconfig: kubeconfig}
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
	options, events, metrics := restart.Options{Node: name, Namespace: "nodeagent"}, restart.NewEvents(c, name, time.Now, log), restart.NewMetrics(prometheus.NewRegistry())
	controller := restart.NewController(c, options, nil, events, metrics, log)
	controller.WhenLeading(l.lead)
	parts := &apiParts{client: c, options: options, events: events, metrics: metrics, log: log, role: l.role(cfg)}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = pods.run(ctx) })
	done.Go(func() { _ = controller.Run(ctx) })
	done.Go(func() { parts.role.run(ctx, parts.roleTaint()) })
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
			for deadline := time.Now().Add(30 * time.Second); os.Remove(path) != nil; time.Sleep(5 * time.Millisecond) {
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

// sleeper is a Binary of a shell script whose text an update changes.
func sleeper(url, digest string, text string, more ...string) string {
	return fmt.Sprintf(`apiVersion: nodeagent.dev/v1alpha1
kind: Binary
metadata: {name: sleeper}
spec:
  fetch: [{url: %q, sha256: {"*": %s}}]
  command: [/bin/sh, ./script, %q]
  ports: [{name: http, port: 0}]
  enforcement: BestEffort
  terminationGracePeriodSeconds: 0
  readiness: {exec: {command: [/bin/sh, -c, "test %s != bad"]}, interval: 200ms}
%s`, url, digest, text, text, strings.Join(more, "\n"))
}

// One apply on two nodes, with no more than an agent's rights: both run it; its
// label moves it; an update goes node by node; a bad one halts at the first node;
// a node that goes takes its instance with it; a delete leaves nothing.
func TestLaunchOnTwoNodes(t *testing.T) {
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("needs root and a real API server")
	}
	a, program := startAPIServer(t, "garbage-collector-controller"), buildProgram(t)
	a.InstallAgent(t, "overlays/launch/rbac.yaml", "overlays/public/taint.yaml")
	script := []byte("echo runs $1; exec sleep 1000\n")
	sum := sha256.Sum256(script)
	digest := hex.EncodeToString(sum[:])
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(script) }))
	defer srv.Close()
	url := srv.URL + "/script"
	kubeconfigs, roots, nodes := map[string]string{}, map[string]string{}, map[string]*launchNode{}
	begin := func(name string) { nodes[name] = a.node(name, kubeconfigs[name], program, roots[name]) }
	makeNode := func(name string) { a.Create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}) }
	for _, name := range []string{"node-a", "node-b"} {
		makeNode(name)
		kubeconfigs[name], roots[name] = a.AgentKubeconfig(t, name), launchRoot(t)
		begin(name)
	}
	update := "  update: {deadline: 60s}\n  roles: [\"*\"]"
	a.do(sleeper(url, digest, "one", update), "apply", "-f", "-")
	a.eventually("both nodes run it", func() bool {
		return a.get("binary/sleeper", "{.status.nodes} {.status.up} {.status.updated}") == "2 2 2"
	})
	a.wantTables(url)
	if owner := a.get("binaryinstance/sleeper.node-a", "{.metadata.ownerReferences[*].uid}"); owner == "" || owner != a.get("node/node-a", "{.metadata.uid}") {
		t.Errorf("the instance's owner is %q", owner)
	}

	// The agent of a node ends and another comes: the same process.
	pid := a.get("binaryinstance/sleeper.node-a", "{.status.pid}")
	nodes["node-a"].kill()

	// An update: the node without an agent holds it up, as one that is down.
	a.do(sleeper(url, digest, "two", update), "apply", "-f", "-")
	a.eventually("a leader has admitted one node", func() bool { return a.get("binary/sleeper", "{.status.admitted}") == `["node-a"]` })
	if running := a.get("binaryinstance/sleeper.node-b", "{.status.runningGeneration}"); running != "1" {
		t.Errorf("node-b runs generation %s before node-a has changed", running)
	}
	if now := a.get("binaryinstance/sleeper.node-a", "{.status.pid}"); now != pid {
		t.Errorf("pid %s, was %s", now, pid)
	}
	begin("node-a")
	a.eventually("both nodes run the second", func() bool {
		return a.get("binary/sleeper", "{.status.nodes} {.status.up} {.status.updated}") == "2 2 2"
	})

	// One that does not turn ready is taken back on the first node, and the
	// second never sees it.
	a.do(sleeper(url, digest, "bad", strings.Replace(update, "60s", "3s", 1)), "apply", "-f", "-")
	a.eventually("the update is halted", func() bool {
		return strings.HasPrefix(a.table("binaries", "-o", "wide")[0]["MESSAGE"], "halted at 0 of 2 nodes: on node-")
	})
	if up := a.get("binary/sleeper", "{.status.up}"); up != "2" {
		t.Errorf("%s are up", up)
	}
	rejected := strings.Fields(a.get("binaryinstances", "{.items[*].status.rejectedGeneration}"))
	if len(rejected) != 1 || rejected[0] != "3" {
		t.Errorf("rejected on %v; want one node", rejected)
	}

	// Only public nodes: it ends on both, and comes where the label does. The
	// taint that has to be there first keeps pods off, and no task.
	a.do(sleeper(url, digest, "three", "  roles: [public]"), "apply", "-f", "-")
	a.eventually("no node runs it", func() bool { return a.get("binaryinstances", "{.items[*].metadata.name}") == "" })
	if out, err := a.try("", "label", "node", "node-b", "nodeagent.dev/role=public"); err == nil || !strings.Contains(out, "needs its taint first") {
		t.Errorf("a node is public without its taint: %s", out)
	}
	a.do("", "taint", "node", "node-b", "nodeagent.dev/role=public:NoExecute")
	a.do("", "label", "node", "node-b", "nodeagent.dev/role=public")
	a.eventually("node-b runs it", func() bool {
		return a.get("binaryinstances", "{.items[*].metadata.name}{.items[*].status.state}") == "sleeper.node-bHealthy"
	})
	a.do("", "label", "node", "node-b", "nodeagent.dev/role-")
	a.eventually("node-b ends it", func() bool { return a.get("binaryinstances", "{.items[*].metadata.name}") == "" })
	if taints := a.get("node/node-b", "{.spec.taints[*].effect}"); taints != "NoExecute" {
		t.Errorf("taints of node-b: %q; a person's stays alone", taints)
	}
	// Where nobody asks for the taint first, the node's agent puts it on.
	a.do("", "delete", "validatingadmissionpolicybinding", "nodeagent-public-nodes")
	a.eventually("node-a may be public", func() bool {
		_, err := a.try("", "label", "node", "node-a", "nodeagent.dev/role=public")
		return err == nil
	})
	a.eventually("node-a runs it, and is tainted", func() bool {
		return a.get("binaryinstances", "{.items[*].metadata.name}{.items[*].status.state}") == "sleeper.node-aHealthy" &&
			a.get("node/node-a", "{.spec.taints[*].key}={.spec.taints[*].value}:{.spec.taints[*].effect}") == "nodeagent.dev/role=public:NoSchedule"
	})
	a.do("", "label", "node", "node-a", "nodeagent.dev/role-")
	a.eventually("node-a ends it, and has no taint", func() bool {
		return a.get("binaryinstances", "{.items[*].metadata.name}") == "" && a.get("node/node-a", "{.spec.taints}") == ""
	})

	// A Node object that is made anew: the same process, reported again.
	a.do(sleeper(url, digest, "four", update), "apply", "-f", "-")
	a.eventually("both nodes run the fourth", func() bool {
		return a.get("binary/sleeper", "{.status.nodes} {.status.up} {.status.updated}") == "2 2 2"
	})
	pid = a.get("binaryinstance/sleeper.node-b", "{.status.pid}")
	a.do("", "delete", "node", "node-b")
	a.eventually("its instance goes with it", func() bool { return a.get("binaryinstances", "{.items[*].metadata.name}") == "sleeper.node-a" })
	makeNode("node-b")
	a.eventually("its instance comes with it", func() bool { return a.get("binaryinstance/sleeper.node-b", "{.status.state}") == "Healthy" })
	if now := a.get("binaryinstance/sleeper.node-b", "{.status.pid}"); now != pid {
		t.Errorf("pid %s, was %s", now, pid)
	}

	// A node that is gone for good holds nothing up: nobody but the garbage
	// collector is there to take its instance away.
	nodes["node-b"].kill()
	a.do("", "delete", "node", "node-b")
	a.do(sleeper(url, digest, "five", update), "apply", "-f", "-")
	a.eventually("the node that is left runs the fifth, and nobody waits for the other", func() bool {
		return a.get("binary/sleeper", "{.status.nodes} {.status.up} {.status.updated} {.status.message}") == "1 1 1"
	})
	if left := a.get("binaryinstances", "{.items[*].metadata.name}"); left != "sleeper.node-a" {
		t.Errorf("instances %s", left)
	}
	makeNode("node-b")
	begin("node-b")
	a.eventually("it is back and counts", func() bool {
		return a.get("binary/sleeper", "{.status.nodes} {.status.up} {.status.updated}") == "2 2 2"
	})

	a.do("", "delete", "binary", "sleeper")
	a.eventually("no instance is left", func() bool { return a.get("binaryinstances", "{.items[*].metadata.name}") == "" })
	for name, n := range nodes {
		// An instance goes when nothing is left on its node, not before.
		if left := n.parts.supervisor.Instances(); len(left) > 0 {
			t.Errorf("%s still has %+v", name, left)
		}
		n.kill()
		for _, folder := range []string{"sandboxes", "units", "state/tasks", "store/leases"} {
			left, _ := os.ReadDir(filepath.Join(roots[name], folder))
			for _, f := range left {
				if f.Name() == "@etc" || f.Name() == "@view" { // all tasks' common folders, the launcher's own
					continue
				}
				t.Errorf("%s: left in %s: %s", name, folder, f.Name())
			}
		}
	}
	a.do(sleeper(url, digest, "six"), "apply", "-f", "-")
	a.wantDeposedRefused(kubeconfigs["node-a"])
}

// wantDeposedRefused: a leader that has read, and was deposed before it wrote,
// overwrites nothing.
func (a *api) wantDeposedRefused(kubeconfig string) {
	a.t.Helper()
	kube, err := kubeConfig(kubeconfig)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := source.NewClient(kube, apiserver.Log(a.t))
	if err != nil {
		a.t.Fatal(err)
	}
	late := interceptor.NewClient(c, interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			a.do("", "annotate", "--overwrite", "binary", "sleeper", "written=meanwhile")
			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	})
	leader := &rollout.Leader{Client: late, Node: "node-a", Log: apiserver.Log(a.t)}
	if err := leader.Round(a.t.Context()); !apierrors.IsConflict(err) {
		a.t.Errorf("a deposed leader's word: %v", err)
	}
	if seen := a.get("binary/sleeper", "{.status.observedGeneration}"); seen != "" {
		a.t.Errorf("a deposed leader wrote of generation %s", seen)
	}
}

// wantTables: what kubectl get prints of a Binary that is up on both nodes.
func (a *api) wantTables(url string) {
	a.t.Helper()
	const age = `\d+s|\d+m(\d+s)?` // of a busy machine
	short := map[string]string{"NAME": "sleeper", "NODES": "2", "UP": "2", "UPDATED": "2", "ROLES": `\["\*"\]`, "AGE": age}
	wantRow(a.t, a.table("binaries")[0], short)
	wide := map[string]string{"PROFILE": "isolated", "URL": regexp.QuoteMeta(url), "MESSAGE": ""}
	for column, pattern := range short {
		wide[column] = pattern
	}
	wantRow(a.t, a.table("binaries", "-o", "wide")[0], wide)
	rows, wideRows := a.table("binaryinstances"), a.table("binaryinstances", "-o", "wide")
	if len(rows) != 2 || len(wideRows) != 2 {
		a.t.Fatalf("%d instances", len(rows))
	}
	for i, node := range []string{"node-a", "node-b"} {
		short := map[string]string{
			"NAME": `sleeper\.` + node, "BINARY": "sleeper", "NODE": node, "STATE": "Healthy", "PORTS": `http=31\d{3}`, "RESTARTS": "0", "SINCE": age,
		}
		wantRow(a.t, rows[i], short)
		short["PID"], short["DIGEST"], short["MESSAGE"] = a.get("binaryinstance/sleeper."+node, "{.status.pid}"), "sha256:[0-9a-f]{64}", ""
		wantRow(a.t, wideRows[i], short)
	}
}
