package parts

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/ports"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/sandbox"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
	"github.com/nodeagent/nodeagent/test/blockdev"
	"github.com/nodeagent/nodeagent/test/freeport"
)

// program is built once: a static program, whatever the test binary is. Where
// there is no Go toolchain PARTS_PROGRAM names it.
var program string

func TestMain(m *testing.M) {
	if program = os.Getenv("PARTS_PROGRAM"); program != "" {
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "nodeagent-program-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(folder)
		if err := os.Chmod(folder, 0o755); err != nil {
			panic(err)
		}
		program = filepath.Join(folder, "program")
		build := exec.Command("go", "build", "-o", program, "./testdata/program")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("%v\n%s", err, out))
		}
		return m.Run()
	}())
}

// node is what outlives the agent.
type node struct {
	t          *testing.T
	root       string
	state      string
	cgroup     string
	url        string // of the program
	digest     string
	sent       *atomic.Int64 // how often the program was asked for
	missing    *atomic.Bool  // it is not there yet
	boot       string        // its id; empty: this machine's
	supervisor *binlaunch.Supervisor
	kill       func()
}

func newNode(t *testing.T) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a launcher is root")
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	sent, missing := &atomic.Int64{}, &atomic.Bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent.Add(1)
		if missing.Load() {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(content)
	}))
	t.Cleanup(srv.Close)
	sum := sha256.Sum256(content)
	state, err := os.MkdirTemp("/dev/shm", "nodeagent-parts-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	root, err := os.MkdirTemp("", "nodeagent-parts-") // all tasks' users pass through it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return &node{t: t, root: root, state: state, cgroup: fmt.Sprintf("nodeagent-test-parts-%d-%s", os.Getpid(), filepath.Base(state)), url: srv.URL + "/program", digest: hex.EncodeToString(sum[:]), sent: sent, missing: missing, kill: func() {}}
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

// portsOfTests are those of no other package's agents: their tests run at the
// same time, and tasks of one name begin to look at the same place of a range.
var portsOfTests = ports.Range{First: 30500, Last: 30999}

// agent begins an agent's life on the node. The one before has to be killed.
func (n *node) agent(wanted ...*v1alpha1.Binary) {
	n.t.Helper()
	log := slog.New(slog.NewTextHandler(n.t.Output(), nil))
	kept, err := store.Open(store.Options{Dir: filepath.Join(n.root, "store"), BootID: n.boot, Logger: log})
	if err != nil {
		n.t.Fatal(err)
	}
	fetcher, err := fetch.New(fetch.Options{Store: kept, Executable: program, Reserve: -1, Logger: log})
	if err != nil {
		n.t.Fatal(err)
	}
	launcher, err := sandbox.New(sandbox.Options{
		State: n.state, Keeper: program, CgroupParent: n.cgroup, Log: log,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.supervisor = binlaunch.New(binlaunch.Options{
		Node: "node-1", Host: "127.0.0.1", Folder: filepath.Join(n.root, "units"), Fetcher: &Fetcher{Fetch: fetcher, Store: kept},
		Launcher: &Launcher{Sandbox: launcher, Folder: filepath.Join(n.root, "sandboxes")},
		Range:    portsOfTests, Proc: "/proc", Logger: log,
	})
	if wanted != nil {
		n.want(wanted...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = n.supervisor.Run(ctx) })
	var once sync.Once
	n.kill = func() {
		once.Do(func() {
			cancel()
			done.Wait()
			_, _ = launcher.Close(), kept.Close()
		})
	}
	n.t.Cleanup(func() { n.end(); removeCgroups(n.t, n.cgroup) })
}

// end stops everything and looks whether something is left.
func (n *node) end() {
	if n.supervisor == nil {
		return
	}
	n.want()
	// What is left of a task is taken away beside the end of its instance, and not
	// by an agent that ends meanwhile.
	for deadline := time.Now().Add(60 * time.Second); len(n.supervisor.Instances()) > 0 || len(n.left()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Errorf("not all tasks end: %v", n.supervisor.Instances())
			break
		}
	}
	n.kill()
	n.supervisor = nil
	for _, f := range n.left() {
		n.t.Errorf("left: %s", f)
	}
}

// left are what tasks have on the disk.
func (n *node) left() (all []string) {
	for _, folder := range []string{"sandboxes", "units", "store/leases"} {
		files, _ := os.ReadDir(filepath.Join(n.root, folder))
		for _, f := range files {
			all = append(all, filepath.Join(folder, f.Name()))
		}
	}
	return all
}

func (n *node) want(all ...*v1alpha1.Binary) {
	var wanted []binlaunch.Wanted
	for _, b := range all {
		wanted = append(wanted, binlaunch.Wanted{Binary: b, Admitted: true})
	}
	n.supervisor.Want("test", wanted)
}

func (n *node) await(name, what string, ok func(binlaunch.Instance) bool) binlaunch.Instance {
	n.t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		changed := n.supervisor.Changed()
		i, there := n.supervisor.Instance(name)
		if there && ok(i) {
			return i
		}
		select {
		case <-changed:
		case <-deadline:
			n.t.Fatalf("%s does not come to be %s: %+v", name, what, i.Status)
		}
	}
}

func (n *node) up(name string, generation int64) binlaunch.Instance {
	n.t.Helper()
	return n.await(name, "up", func(i binlaunch.Instance) bool {
		return i.Status.State == v1alpha1.StateHealthy && i.Status.RunningGeneration == generation && i.Status.Next == nil
	})
}

func (n *node) binary(name string, generation int64, args ...string) *v1alpha1.Binary {
	memory := resource.MustParse("256Mi")
	return &v1alpha1.Binary{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: generation}, Spec: v1alpha1.BinarySpec{
		Fetch:     []v1alpha1.Artifact{{URL: n.url, SHA256: map[string]v1alpha1.Digest{"*": v1alpha1.Digest(n.digest)}}},
		Command:   append([]string{"./program"}, args...),
		Resources: v1alpha1.Resources{Memory: &memory},
		// What this machine's kernel lacks is the sandbox's own tests' matter.
		Enforcement: v1alpha1.EnforcementBestEffort,
	}}
}

func (n *node) server(version string, generation int64, port v1alpha1.Port) *v1alpha1.Binary {
	b := n.binary("web", generation, "serve", version)
	b.Spec.Ports = []v1alpha1.Port{port}
	b.Spec.Health = &v1alpha1.HealthCheck{
		Probe:    v1alpha1.Probe{HTTP: &v1alpha1.HTTPProbe{Path: "/health"}},
		Interval: &metav1.Duration{Duration: 200 * time.Millisecond},
		// On busy machines and emulated ones a start takes seconds.
		GracePeriod: &metav1.Duration{Duration: time.Minute},
	}
	return b
}

// sick is a server that never becomes healthy, and is not waited for for long.
func (n *node) sick(generation int64, port v1alpha1.Port) *v1alpha1.Binary {
	b := n.server("sick", generation, port)
	b.Spec.Health.GracePeriod = &metav1.Duration{Duration: time.Second}
	return b
}

func ask(port int32) (string, error) {
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

// answersAlone waits until a held socket is answered by that version and no
// other: until it has ended an old or a rejected one answers it too.
func (n *node) answersAlone(port int32, version string) {
	n.t.Helper()
	var answer string
	var err error
	alone := 0
	for deadline := time.Now().Add(30 * time.Second); alone < 50; {
		if answer, err = ask(port); answer == version && err == nil {
			alone++
			continue
		}
		if alone = 0; time.Now().After(deadline) {
			n.t.Errorf("answered %q, %v", answer, err)
			return
		}
	}
}

// From a URL to an isolated process that answers, over kills of the agent, to
// nothing.
func TestFromURLToNothing(t *testing.T) {
	n := newNode(t)
	n.agent(n.server("one", 1, v1alpha1.Port{Name: "http"}))
	first := n.up("web", 1)
	if answer, err := ask(first.Status.Ports[0].Port); answer != "one" {
		t.Errorf("answered %q, %v", answer, err)
	}
	if !strings.HasPrefix(first.Status.Digest, "sha256:") || first.Status.Verified[0] != "sha256" || len(first.Status.Enforced) == 0 {
		t.Errorf("status %+v", first.Status)
	}
	if s, ok := first.Stats(); !ok || s.Memory == nil || *s.Memory == 0 || s.CPU == nil {
		t.Errorf("figures %+v", s)
	}
	t.Logf("phases %v; enforced %v; not enforced %v", first.Status.Phases, first.Status.Enforced, first.Status.NotEnforced)
	for range 3 {
		n.kill()
		n.agent() // its source has not told yet
		if i := n.up("web", 1); i.Status.Pid != first.Status.Pid {
			t.Fatalf("pid %d, was %d", i.Status.Pid, first.Status.Pid)
		}
	}
	i, _ := n.supervisor.Instance("web")
	out, err := i.Output(false)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if text, _ := io.ReadAll(out); !strings.HasPrefix(string(text), "serves one as ") || strings.Contains(string(text), "as 0 ") {
		t.Errorf("output %q", text)
	}
	keeper := parentOf(t, first.Status.Pid)
	n.end()
	for _, pid := range []int64{first.Status.Pid, keeper} {
		if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			t.Errorf("left, a zombie (Z) or worse: %s", raw)
		}
	}
}

func parentOf(t *testing.T, pid int64) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "\nPPid:\t")
	line, _, _ := strings.Cut(after, "\n")
	parent, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return parent
}

// Its exit code and what it wrote are there though no agent saw its end.
func TestEndedWhileNoAgentRan(t *testing.T) {
	n := newNode(t)
	b := n.server("one", 1, v1alpha1.Port{Name: "http"})
	b.Spec.RestartPolicy = v1alpha1.RestartNever
	n.agent(b)
	i := n.up("web", 1)
	n.kill()
	if err := unix.Kill(int(i.Status.Pid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.agent()
	i = n.await("web", "finished", func(i binlaunch.Instance) bool { return i.Status.State == v1alpha1.StateFinished })
	if i.Status.LastExit.Signal != "SIGKILL" || i.Status.LastExit.Message != "it ended by SIGKILL" {
		t.Errorf("last exit %+v", i.Status.LastExit)
	}
	out, err := i.Output(false)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if text, _ := io.ReadAll(out); !strings.HasPrefix(string(text), "serves one") {
		t.Errorf("output %q", text)
	}
}

// What the spec says of user, rlimits, network, cores and disks is what the process finds.
func TestShutInAsTheSpecSays(t *testing.T) {
	n := newNode(t)
	b := n.binary("shut", 1, "shut")
	hard := int64(4 << 20)
	b.Spec.User, b.Spec.Network = "1234:2345", v1alpha1.NetworkNone
	b.Spec.Rlimits = []v1alpha1.Rlimit{{Name: "stack", Soft: 1 << 20, Hard: &hard}}
	b.Spec.Resources.CPUSet = "0"
	disk, rate := blockdev.Number(t), resource.MustParse("10Mi")
	b.Spec.Resources.IO = []v1alpha1.IOLimit{{Device: disk, ReadBytesPerSecond: &rate}}
	n.agent(b)
	i := n.up("shut", 1)
	for _, lock := range []string{"uid 1234", "rlimit stack", "network namespace", "cpuset cpus", "io " + disk, "cpu", "memory", "pids"} {
		if !slices.Contains(i.Status.Enforced, lock) {
			t.Errorf("%q is not among what was enforced: %q; not enforced: %q", lock, i.Status.Enforced, i.Status.NotEnforced)
		}
	}
	out, err := i.Output(true)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	line, err := bufio.NewReader(out).ReadString('\n')
	if want := "user 1234:2345, stack 1048576:4194304, interfaces 1, cores 0\n"; line != want || err != nil {
		t.Errorf("the process finds %q %v, want %q", line, err, want)
	}
}

func TestOutOfMemoryIsTold(t *testing.T) {
	n := newNode(t)
	b := n.binary("hog", 1, "hog")
	small := resource.MustParse("48Mi")
	b.Spec.Resources.Memory = &small
	n.agent(b)
	i := n.await("hog", "killed", func(i binlaunch.Instance) bool {
		return i.Status.State == v1alpha1.StateBackingOff && i.Status.LastExit != nil
	})
	// The state lasts a second: it may be that of a later one that is seen.
	if !i.Status.LastExit.OOMKilled || i.OOMKills != i.Status.Restarts+1 || !strings.Contains(i.Status.Message, "resources.memory") {
		t.Errorf("last exit %+v, message %q, kills %d", i.Status.LastExit, i.Status.Message, i.OOMKills)
	}
}

func TestWrongDigestNeverRuns(t *testing.T) {
	n := newNode(t)
	b := n.server("one", 1, v1alpha1.Port{Name: "http"})
	b.Spec.Fetch[0].SHA256["*"] = v1alpha1.Digest(strings.Repeat("0", 64))
	n.agent(b)
	i := n.await("web", "told of", func(i binlaunch.Instance) bool { return i.Status.State == v1alpha1.StateBackingOff })
	if !strings.Contains(i.Status.Message, strings.Repeat("0", 64)) || !strings.Contains(i.Status.Message, "sha256") || i.Status.Pid != 0 {
		t.Errorf("message %q", i.Status.Message)
	}
}

// What is uploaded after its Binary was applied starts by itself.
func TestUploadedLater(t *testing.T) {
	n := newNode(t)
	n.missing.Store(true)
	n.agent(n.server("one", 1, v1alpha1.Port{Name: "http"}))
	i := n.await("web", "told of", func(i binlaunch.Instance) bool { return i.Status.State == v1alpha1.StateBackingOff })
	if !strings.Contains(i.Status.Message, "the server answers 404 Not Found; fetched again in ") {
		t.Errorf("message %q", i.Status.Message)
	}
	n.missing.Store(false)
	if i := n.up("web", 1); i.Status.Restarts != 0 {
		t.Errorf("status %+v", i.Status)
	}
}

// Ten updates through a held socket, an agent killed in between, under load:
// no connection is refused, and one that does not turn healthy is taken away.
func TestUpdatesThroughAHeldSocket(t *testing.T) {
	last := int64(10)
	if testing.Short() { // and for emulated machines, where an update takes seconds
		last = 3
	}
	n := newNode(t)
	port := v1alpha1.Port{Name: "http", Port: int32(freeport.From(t, 20000)), Held: true}
	n.agent(n.server("v0", 1, port))
	n.up("web", 1)
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var served, refused, other atomic.Int64
	for range 2 {
		load.Go(func() {
			for ctx.Err() == nil {
				switch _, err := ask(port.Port); {
				case err == nil:
					served.Add(1)
				case errors.Is(err, syscall.ECONNREFUSED):
					refused.Add(1)
				default:
					other.Add(1)
				}
			}
		})
	}
	for v := int64(1); v <= last; v++ {
		b := n.server(fmt.Sprintf("v%d", v), v+1, port)
		if v == last/2+1 {
			n.kill()
			n.agent(b)
		} else {
			n.want(b)
		}
		n.up("web", v+1)
	}
	n.want(n.sick(last+2, port))
	n.await("web", "taken back", func(i binlaunch.Instance) bool {
		return i.Status.RejectedGeneration == last+2 && i.Status.State == v1alpha1.StateHealthy && i.Status.Next == nil
	})
	cancel()
	load.Wait()
	n.answersAlone(port.Port, fmt.Sprint("v", last))
	t.Logf("%d served, %d refused, %d dropped by a server that ended", served.Load(), refused.Load(), other.Load())
	// Of each client that can be one connection in each update.
	if served.Load() < 100 || refused.Load() > 0 || other.Load() > max(served.Load()/100, 2*11) {
		t.Errorf("%d served, %d refused, %d dropped", served.Load(), refused.Load(), other.Load())
	}
}

// A port below 1024 is not the task's to bind, who has no capability. Held, it
// is passed on, over an update and a restart of the agent.
func TestHeldPortBelow1024(t *testing.T) {
	n := newNode(t)
	number := privilegedPort(t)
	bare := n.server("bare", 1, v1alpha1.Port{Name: "http", Port: number})
	bare.Spec.Health = nil // it ends by itself
	n.agent(bare)
	i := n.await("web", "refused by the kernel", func(i binlaunch.Instance) bool {
		return i.Status.State == v1alpha1.StateBackingOff && i.Status.LastExit != nil
	})
	out, err := i.Output(false)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if text, _ := io.ReadAll(out); !strings.Contains(string(text), "bind: permission denied") {
		t.Errorf("output %q", text)
	}
	held := v1alpha1.Port{Name: "http", Port: number, Held: true}
	n.want(n.server("one", 2, held))
	n.up("web", 2)
	n.kill()
	n.agent(n.server("one", 2, held))
	n.up("web", 2)
	n.want(n.server("two", 3, held))
	n.up("web", 3)
	n.answersAlone(number, "two")
}

// privilegedPort is one that is free and takes CAP_NET_BIND_SERVICE.
func privilegedPort(t *testing.T) int32 {
	t.Helper()
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if first == 0 {
		t.Skip("here anybody binds any port (net.ipv4.ip_unprivileged_port_start is 0)")
	}
	for port := first - 1; port > 0; port-- {
		if l, err := net.Listen("tcp", fmt.Sprint(":", port)); err == nil {
			_ = l.Close()
			return int32(port)
		}
	}
	t.Fatalf("no port below %d is free", first)
	return 0
}
