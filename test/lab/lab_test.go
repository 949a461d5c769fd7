package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests here run the real lab through its command line. They need root and
// the machine's one lab for themselves.

// testLab is the lab's program, built for the test.
type testLab struct {
	t      *testing.T
	binary string
	image  string          // the web app's archive
	before map[string]bool // what is on the machine without a lab
}

func newTestLab(t *testing.T) *testLab {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a whole cluster")
	}
	if os.Geteuid() != 0 {
		t.Fatal("a cluster needs root")
	}
	p, err := pathsFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.dir); err == nil {
		t.Fatalf("a lab is in use (%s is there); end it with `lab down` and run again", p.dir)
	}
	l := &testLab{t: t, binary: filepath.Join(t.TempDir(), "lab")}
	l.goBuild(l.binary, ".")
	l.ok("build")
	l.before = machine(t)
	return l
}

func (l *testLab) goBuild(out, pkg string) {
	l.t.Helper()
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("go build %s: %v\n%s", pkg, err, said)
	}
}

func (l *testLab) command(args ...string) *exec.Cmd { return exec.Command(l.binary, args...) }

func (l *testLab) try(args ...string) (string, error) {
	var out, said bytes.Buffer
	cmd := l.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("lab %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), said.String())
	}
	return out.String(), nil
}

func (l *testLab) ok(args ...string) string {
	l.t.Helper()
	out, err := l.try(args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// eventually tries until check has no complaint.
func (l *testLab) eventually(what string, check func() error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 90*time.Second)
	defer cancel()
	var last error
	if !waitFor(ctx, 200*time.Millisecond, func() bool { last = check(); return last == nil }) {
		l.t.Fatalf("%s: %v", what, last)
	}
}

// machine lists all on the machine that a lab might leave, by other means than
// down's own. Others may be at work here meanwhile, so it asks for what a lab
// can be the only one to make; the firewall and the kernel's settings whole.
func machine(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, cmd := range []string{
		"ls /sys/class/net | grep -E 'nalab|cni0'",
		"ip route show table all | grep -E '172\\.30\\.|10\\.244\\.|10\\.96\\.|nalab'",
		"nft list ruleset",
		"iptables-save | grep -v '^#'",
		"grep nodeagent-lab /proc/[0-9]*/mountinfo | grep -v ' /root/.cache/' | cut -d: -f2-",
		"losetup -a | grep nodeagent-lab",
		"find /sys/fs/cgroup -type d -name '*nodeagent-lab*'",
		"sysctl -a 2>/dev/null | grep -E '^(vm\\.(overcommit|panic)|kernel\\.(panic|keys)|net\\.ipv4\\.ip_forward|net\\.netfilter\\.nf_conntrack_max)'",
		"ls -d /etc/cni /opt/cni /opt/lab /etc/kubernetes /var/lib/kubelet /var/lib/cni /var/lib/nodeagent-lab* 2>/dev/null",
		"ps -eo stat,args | grep -E '^[^Z].*(/opt/lab/|nodeagent-lab/|nodeagent-lab node-init| /web$| /pause$)' | grep -v grep | cut -c1-200",
	} {
		out, _ := exec.Command("sh", "-c", cmd).Output()
		for line := range strings.Lines(string(out)) {
			all[strings.Fields(cmd)[0]+": "+strings.TrimSpace(line)] = true
		}
	}
	return all
}

// downLeavesNothing ends the lab and compares the machine with what it was.
func (l *testLab) downLeavesNothing() {
	l.t.Helper()
	if said, err := l.command("down").CombinedOutput(); err != nil {
		l.t.Fatalf("lab down: %v\n%s", err, said)
	}
	for what := range machine(l.t) {
		if !l.before[what] {
			l.t.Errorf("down left %s", what)
		}
	}
}

// oracleSees makes sure that what downLeavesNothing goes by is not blind: with
// a lab running each of the commands must find something.
func (l *testLab) oracleSees(commands ...string) {
	l.t.Helper()
	now := machine(l.t)
	for _, c := range commands {
		seen := false
		for what := range now {
			seen = seen || !l.before[what] && strings.HasPrefix(what, c+":")
		}
		if !seen {
			l.t.Errorf("%s sees nothing of a running lab", c)
		}
	}
}

// TestLabUpKilled kills up with SIGKILL at moments all along its way.
func TestLabUpKilled(t *testing.T) {
	l := newTestLab(t)
	for _, after := range []time.Duration{
		30 * time.Millisecond, 100 * time.Millisecond, 180 * time.Millisecond, 260 * time.Millisecond, 340 * time.Millisecond,
		500 * time.Millisecond, 700 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second,
	} {
		t.Run(after.String(), func(t *testing.T) {
			l.t = t
			up := l.command("up", "--nodes", "2")
			up.Stderr = io.Discard
			if err := up.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after) // the moment of death is what varies here
			_ = up.Process.Signal(syscall.SIGKILL)
			_ = up.Wait()
			l.downLeavesNothing()
		})
	}
	t.Run("while building", func(t *testing.T) {
		l.t = t
		build := l.command("build")
		build.Env = append(os.Environ(), envCacheDir+"="+t.TempDir())
		if err := build.Start(); err != nil {
			t.Fatal(err)
		}
		l.eventually("the build is at work", func() error {
			_, err := os.Stat(filepath.Join(findV2(t), cgroupName, "build-"+strconv.Itoa(build.Process.Pid)+"-"+startOf(t, build.Process.Pid)))
			return err
		})
		// A down meanwhile leaves it alone.
		l.ok("down")
		if p, err := lookProcess(build.Process.Pid); err != nil {
			t.Errorf("down ended another's build: %+v, %v", p, err)
		}
		_ = build.Process.Kill()
		_ = build.Wait()
		l.downLeavesNothing()
	})
	t.Run("and up again", func(t *testing.T) {
		l.t = t
		up := l.command("up")
		if err := up.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		_ = up.Process.Signal(syscall.SIGKILL)
		_ = up.Wait()
		l.ok("up")
		l.downLeavesNothing()
	})
}

func findV2(t *testing.T) string {
	t.Helper()
	groups, err := findCgroups()
	if err != nil {
		t.Fatal(err)
	}
	return groups.v2
}

func startOf(t *testing.T, pid int) string {
	t.Helper()
	p, err := lookProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(p.start, 10)
}

const webManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: docker.io/nodeagent-lab/web:v1
        imagePullPolicy: Never
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {app: alone}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: web, image: docker.io/nodeagent-lab/web:v1, imagePullPolicy: Never}
---
apiVersion: v1
kind: Service
metadata: {name: alone}
spec: {selector: {app: alone}, ports: [{port: 80, targetPort: 8080}]}
`

func TestLabTwoNodes(t *testing.T) {
	l := newTestLab(t)
	t.Cleanup(l.downLeavesNothing)
	l.ok("up", "--nodes", "2")
	l.oracleSees("ls", "ip", "grep", "losetup", "find", "ps")
	l.deployWeb()
	for _, story := range []struct {
		name string
		run  func(*testLab)
	}{
		{"up again changes nothing", (*testLab).upAgain},
		{"pods are on both nodes", (*testLab).podsOnBoth},
		{"Services work from everywhere", (*testLab).services},
		{"kubectl logs, exec, proxy, port-forward", (*testLab).kubectlWays},
		{"a node is a machine of its own", (*testLab).ownMachine},
		{"a command on a node ends with its exec", (*testLab).execEnds},
		{"a cut node is unreachable until healed", (*testLab).cutAndHeal},
		{"a stopped node comes back with its disk", (*testLab).stopAndStart},
		{"programs restart", (*testLab).restartPrograms},
		{"a third node joins and works as the others", (*testLab).thirdNode},
	} {
		t.Run(story.name, func(t *testing.T) {
			l.t = t
			story.run(l)
		})
	}
	l.t = t
}

func (l *testLab) deployWeb() {
	l.t.Helper()
	web := filepath.Join(l.t.TempDir(), "web")
	l.goBuild(web, "./testdata/web")
	archive := web + ".tar"
	l.image = archive
	if err := writeImage(archive, "docker.io/nodeagent-lab/web:v1", web); err != nil {
		l.t.Fatal(err)
	}
	l.ok("load", archive)
	manifest := web + ".yaml"
	if err := os.WriteFile(manifest, []byte(webManifest), 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.eventually("the namespace's service account", func() error {
		_, err := l.try("kubectl", "get", "serviceaccount", "default")
		return err
	})
	l.ok("kubectl", "apply", "-f", manifest)
	l.ok("kubectl", "rollout", "status", "deployment/web", "--timeout=60s")
	l.ok("kubectl", "wait", "--for=condition=Ready", "pod/alone", "--timeout=60s")
}

func (l *testLab) upAgain() {
	before := l.processes()
	l.ok("up", "--nodes", "2")
	if after := l.processes(); !slices.Equal(after, before) {
		l.t.Errorf("up of a running lab started processes anew: %q, before %q", after, before)
	}
}

// processes are those of the lab, each with its place and pid.
func (l *testLab) processes() (all []string) {
	l.t.Helper()
	for line := range strings.Lines(l.ok("status")) {
		if f := strings.Fields(line); len(f) > 3 && (f[0] == "host" || strings.HasPrefix(f[0], "node-")) {
			all = append(all, strings.Join(f[:3], " "))
		}
	}
	if len(all) < 8 {
		l.t.Fatalf("the lab shows %d processes: %q", len(all), all)
	}
	return all
}

func (l *testLab) field(jsonpath string, args ...string) string {
	l.t.Helper()
	return l.ok(append([]string{"kubectl", "get", "-o", "jsonpath=" + jsonpath}, args...)...)
}

func (l *testLab) podsOnBoth() {
	on := map[string]int{}
	for _, node := range strings.Fields(l.field("{.items[*].spec.nodeName}", "pods", "-l", "app=web")) {
		on[node]++
	}
	if on["node-1"] != 2 || on["node-2"] != 2 {
		l.t.Errorf("pods per node: %v, want two on each", on)
	}
}

// get asks from the machine itself, over a new connection.
func get(address string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(address)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return strings.TrimSpace(string(body)), err
}

func (l *testLab) services() {
	service := "http://" + l.field("{.spec.clusterIP}", "service", "web") + "/"
	own := "http://" + l.field("{.spec.clusterIP}", "service", "alone") + "/"
	alone := "http://" + l.field("{.status.podIP}", "pod", "alone") + ":8080"
	for _, way := range []struct{ name, url string }{
		{"host to Service", service},
		{"pod to Service", alone + "/get?url=" + url.QueryEscape(service)},
	} {
		answered, err := ask(way.url)
		// Each kube-proxy writes its rules a moment after the endpoints changed,
		// and refuses until then.
		for end := time.Now().Add(20 * time.Second); (err != nil || len(answered) != 4) && time.Now().Before(end); {
			time.Sleep(100 * time.Millisecond)
			answered, err = ask(way.url)
		}
		if err != nil || len(answered) != 4 {
			l.t.Errorf("%s: answers by %v, want all four pods: %v", way.name, answered, err)
		}
	}
	var host string
	l.eventually("a pod reaches its own Service", func() (err error) { // whose rules are written as late
		host, err = get(alone + "/get?url=" + url.QueryEscape(own))
		return err
	})
	if host != "alone" {
		l.t.Errorf("pod to its own Service: %q", host)
	}
	for _, node := range []string{"node-1", "node-2"} {
		// A node's own processes, as those of a hostNetwork pod.
		out := l.ok("exec", node, "--", "bash", "-c",
			"exec 3<>/dev/tcp/"+kubernetesServiceIP+"/443 && echo connected")
		if strings.TrimSpace(out) != "connected" {
			l.t.Errorf("%s to the API's Service: %q", node, out)
		}
		// Refused by kube-proxy, and sent again until timeout ends it.
		out = l.ok("exec", node, "--", "bash", "-c",
			"timeout 2 bash -c 'exec 3<>/dev/tcp/"+kubernetesServiceIP+"/81'; echo $?")
		if strings.TrimSpace(out) != "124" {
			l.t.Errorf("%s to a port that the API's Service has not: %q", node, out)
		}
	}
}

// ask counts who answers eighty requests, none of which may fail.
func ask(address string) (map[string]int, error) {
	answered := map[string]int{}
	for range 80 {
		host, err := get(address)
		if err != nil {
			return answered, err
		}
		answered[host]++
	}
	return answered, nil
}

func (l *testLab) kubectlWays() {
	for _, pod := range strings.Fields(l.field("{.items[*].metadata.name}", "pods", "-l", "app=web")) {
		if log := l.ok("kubectl", "logs", pod); !strings.Contains(log, "serving as "+pod) {
			l.t.Errorf("logs of %s: %q", pod, log)
		}
	}
	// The image holds one program, and it runs on; that it starts is enough.
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, l.binary, "kubectl", "exec", "alone", "--", "/web").CombinedOutput()
	if !strings.Contains(string(out), "address already in use") {
		l.t.Errorf("exec: %q", out)
	}
	if out := l.ok("kubectl", "get", "--raw", "/api/v1/namespaces/default/pods/alone:8080/proxy/"); out != "alone\n" {
		l.t.Errorf("proxy to the pod: %q", out)
	}
	if out := l.ok("kubectl", "get", "--raw", "/api/v1/nodes/node-2/proxy/healthz"); out != "ok" {
		l.t.Errorf("proxy to the kubelet: %q", out)
	}
	l.portForward()
}

func (l *testLab) portForward() {
	forward := l.command("kubectl", "port-forward", "pod/alone", ":8080")
	out, err := forward.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = forward.Process.Kill(); _ = forward.Wait() }()
	var port int
	if _, err := fmt.Fscanf(out, "Forwarding from 127.0.0.1:%d", &port); err != nil {
		l.t.Fatalf("port-forward: %v", err)
	}
	if host, err := get(fmt.Sprintf("http://127.0.0.1:%d/", port)); err != nil || host != "alone" {
		l.t.Errorf("port-forward: %q, %v", host, err)
	}
}

func (l *testLab) ownMachine() {
	for _, node := range []string{"node-1", "node-2"} {
		if out := l.ok("exec", node, "--", "hostname"); strings.TrimSpace(out) != node {
			l.t.Errorf("host name of %s: %q", node, out)
		}
		if out := l.ok("exec", node, "--", "readlink", "/proc/1/ns/mnt", "/proc/self/ns/mnt"); strings.Fields(out)[0] != strings.Fields(out)[1] {
			l.t.Errorf("%s: process 1 is not of the node's namespace: %q", node, out)
		}
	}
	l.ok("exec", "1", "--", "touch", "/var/lib/nodeagent/mark")
	if _, err := l.try("exec", "2", "--", "test", "-e", "/var/lib/nodeagent/mark"); err == nil {
		l.t.Error("the nodes share /var/lib/nodeagent")
	}
	// An exit code is the command's own.
	if code, _ := exitCode(l.command("exec", "1", "--", "sh", "-c", "exit 7").Run()); code != 7 {
		l.t.Errorf("exit code %d, want 7", code)
	}
	// Nothing gets out of the machine.
	if out, err := l.try("exec", "1", "--", "timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/53"); err == nil {
		l.t.Errorf("a node reaches the outside: %q", out)
	}
}

func (l *testLab) execEnds() {
	const mark = "86399.25"
	running := func() bool { _, err := l.try("exec", "2", "--", "pgrep", "-f", "^sleep "+mark); return err == nil }
	cmd := l.command("exec", "2", "--", "sleep", mark)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.eventually("the command runs on the node", func() error {
		if !running() {
			return errors.New("it does not")
		}
		return nil
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	l.eventually("the command ends", func() error {
		if running() {
			return errors.New("it runs without its exec")
		}
		return nil
	})
}

func (l *testLab) cutAndHeal() {
	pod := l.field("{.items[?(@.spec.nodeName==\"node-2\")].status.podIP}", "pods", "-l", "app=web")
	address := "http://" + strings.Fields(pod)[0] + ":8080/"
	l.ok("node", "cut", "2")
	client := http.Client{Timeout: 500 * time.Millisecond}
	if resp, err := client.Get(address); err == nil {
		resp.Body.Close()
		l.t.Error("a pod of the cut node answers")
	}
	l.ok("node", "heal", "2")
	l.eventually("a pod of the healed node answers", func() error { _, err := get(address); return err })
}

func (l *testLab) stopAndStart() {
	l.ok("exec", "2", "--", "touch", "/var/lib/nodeagent/kept")
	l.ok("node", "stop", "2")
	if out := l.ok("status"); !strings.Contains(out, "stopped") {
		l.t.Errorf("status of a stopped node: %s", out)
	}
	l.ok("node", "start", "2")
	l.ok("exec", "2", "--", "test", "-e", "/var/lib/nodeagent/kept")
	l.eventually("the node's pods run again", func() error {
		ready := l.field("{.status.readyReplicas}", "deployment", "web")
		restarts := l.field("{.items[?(@.spec.nodeName==\"node-2\")].status.containerStatuses[0].restartCount}", "pods", "-l", "app=web")
		if ready != "4" || strings.Contains(restarts, "0") {
			return fmt.Errorf("ready %s, restarts on node-2: %q", ready, restarts)
		}
		return nil
	})
}

func (l *testLab) restartPrograms() {
	for _, args := range [][]string{{"apiserver"}, {"scheduler"}, {"containerd", "2"}, {"kubelet", "2"}, {"kube-proxy"}} {
		l.ok(append([]string{"restart"}, args...)...)
	}
	// Both the control plane and node-2 must do their part in this.
	l.ok("kubectl", "delete", "pods", "-l", "app=web", "--field-selector", "spec.nodeName=node-2", "--wait", "--timeout=60s")
	l.ok("kubectl", "rollout", "status", "deployment/web", "--timeout=60s")
	l.ok("stop", "kubelet", "1")
	if out := l.ok("status"); !strings.Contains(out, "not running") {
		l.t.Errorf("status with a stopped kubelet: %s", out)
	}
	l.ok("start", "kubelet", "1")
}

// thirdNode adds a node to a lab that runs: pods come onto it, and its Services
// and those of the others reach each other.
func (l *testLab) thirdNode() {
	l.ok("up", "--nodes", "3")
	l.ok("load", l.image, "--node", "3")
	l.ok("kubectl", "scale", "deployment/web", "--replicas=6")
	l.ok("kubectl", "rollout", "status", "deployment/web", "--timeout=60s")
	on := map[string]int{}
	for _, node := range strings.Fields(l.field("{.items[*].spec.nodeName}", "pods", "-l", "app=web")) {
		on[node]++
	}
	if on["node-3"] == 0 || len(on) != 3 {
		l.t.Errorf("pods per node: %v, want some on each of three", on)
	}
	address := l.field("{.spec.clusterIP}", "service", "web")
	for _, node := range []string{"1", "2", "3"} {
		answered := map[string]bool{}
		l.eventually("pods of all three nodes answer on node-"+node, func() error {
			host, err := l.try("exec", node, "--", "bash", "-c", "exec 3<>/dev/tcp/"+address+"/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3")
			if err == nil {
				answered[strings.TrimSpace(host)] = true
			}
			if len(answered) < 6 {
				return errors.Join(fmt.Errorf("answered so far: %v", answered), err)
			}
			return nil
		})
	}
	l.ok("kubectl", "logs", "-l", "app=web", "--tail=1")
}
