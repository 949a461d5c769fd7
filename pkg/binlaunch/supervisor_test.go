package binlaunch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/ports"
	"github.com/nodeagent/nodeagent/test/freeport"
)

// node is what outlives the agent: processes, programs, the state folder.
type node struct {
	t         *testing.T
	processes *processes
	programs  *local
	folder    string
	options   func(*Options)
}

func newNode(t *testing.T) *node {
	return &node{t: t, processes: newProcesses(t), programs: &local{held: map[string]bool{}}, folder: t.TempDir(), options: func(*Options) {}}
}

// agent is one supervisor's life on it.
type agent struct {
	*Supervisor
	t    *testing.T
	kill func()
}

// portsOfTests are those of no other package's agents: their tests run at the
// same time, and tasks of one name begin to look at the same place of a range.
var portsOfTests = ports.Range{First: 30000, Last: 30499}

func (n *node) agent(wanted ...*v1alpha1.Binary) *agent {
	n.t.Helper()
	o := Options{
		Node: "node-1", Folder: n.folder, Fetcher: n.programs, Launcher: n.processes, Range: portsOfTests,
		Proc: "/proc", Logger: slog.New(slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	n.options(&o)
	a := &agent{Supervisor: New(o), t: n.t}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	if wanted != nil {
		a.want(wanted...)
	}
	done.Go(func() { _ = a.Run(ctx) })
	a.kill = func() { cancel(); done.Wait() }
	n.t.Cleanup(a.kill)
	return a
}

func (a *agent) want(all ...*v1alpha1.Binary) {
	var wanted []Wanted
	for _, b := range all {
		if b != nil {
			wanted = append(wanted, Wanted{Binary: b, Admitted: true})
		}
	}
	a.Want("test", wanted)
}

// await waits until an instance is as it should be. It looks now and then
// without a change as well: of the processes beside it none is told.
func (a *agent) await(name, what string, ok func(i Instance) bool) Instance {
	a.t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		changed := a.Changed()
		i, there := a.Instance(name)
		if there && ok(i) {
			return i
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			a.t.Fatalf("%s does not come to be %s; it is %+v", name, what, i.Status)
		}
	}
}

func (a *agent) awaitState(name string, s v1alpha1.State) Instance {
	a.t.Helper()
	return a.await(name, string(s), func(i Instance) bool { return i.Status.State == s })
}

func (a *agent) awaitGone(name string) {
	a.t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		changed := a.Changed()
		i, there := a.Instance(name)
		if !there {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			a.t.Fatalf("%s does not go: %+v", name, i.Status)
		}
	}
}

func script(name, text string) *v1alpha1.Binary {
	grace := int64(2)
	return &v1alpha1.Binary{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1}, Spec: v1alpha1.BinarySpec{
		Fetch:                         []v1alpha1.Artifact{{URL: "file:///bin/sh", Insecure: true}},
		Command:                       []string{"/bin/sh", "-c", text},
		TerminationGracePeriodSeconds: &grace,
	}}
}

func server(name, version string, port v1alpha1.Port) *v1alpha1.Binary {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	b := script(name, "")
	b.Spec.Command = []string{self}
	b.Spec.Env = []v1alpha1.EnvVar{{Name: asServer, Value: "1"}, {Name: "VERSION", Value: version}}
	b.Spec.Ports = []v1alpha1.Port{port}
	b.Spec.Health = &v1alpha1.HealthCheck{
		Probe:    v1alpha1.Probe{HTTP: &v1alpha1.HTTPProbe{Path: "/health"}},
		Interval: &metav1.Duration{Duration: 100 * time.Millisecond},
		// On a busy machine a program takes seconds until it listens.
		GracePeriod: &metav1.Duration{Duration: time.Minute},
	}
	return b
}

func generation(b *v1alpha1.Binary, n int64) *v1alpha1.Binary {
	b.Generation = n
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
	version, _, _ := strings.Cut(string(body), " ")
	return version, err
}

func TestServerFromStartToEnd(t *testing.T) {
	n := newNode(t)
	a := n.agent(server("web", "one", v1alpha1.Port{Name: "http"}))
	i := a.awaitState("web", v1alpha1.StateHealthy)
	port := i.Status.Ports[0].Port
	if port < portsOfTests.First || port > portsOfTests.Last || i.Status.Endpoints != fmt.Sprintf("http=%d", port) {
		t.Errorf("port %d, endpoints %s", port, i.Status.Endpoints)
	}
	if version, err := ask(port); version != "one" {
		t.Errorf("answered %q, %v", version, err)
	}
	if i.Status.RunningGeneration != 1 || i.Status.Digest == "" || len(i.Status.Verified) == 0 || i.Status.Pid == 0 || i.Status.Phases["healthy"].Duration <= 0 {
		t.Errorf("status %+v", i.Status)
	}
	a.await("web", "heard", func(i Instance) bool { // what it wrote comes by another way than its answers
		out, err := i.Output(false)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(out)
		return string(text) == "serves one\n"
	})
	a.want()
	a.awaitGone("web")
	if n.processes.running() != 0 || len(n.programs.held) != 0 {
		t.Errorf("%d processes and %d programs are left", n.processes.running(), len(n.programs.held))
	}
	if files, _ := filepath.Glob(filepath.Join(n.folder, "*")); len(files) > 0 {
		t.Errorf("left in the state folder: %v", files)
	}
}

func TestRestartPolicies(t *testing.T) {
	for _, tt := range []struct {
		policy v1alpha1.RestartPolicy
		text   string
		state  v1alpha1.State
		exit   string
	}{
		{v1alpha1.RestartAlways, "exit 0", v1alpha1.StateBackingOff, "it ended with exit code 0"},
		{v1alpha1.RestartOnFailure, "exit 0", v1alpha1.StateFinished, "it ended with exit code 0"},
		{v1alpha1.RestartOnFailure, "exit 7", v1alpha1.StateBackingOff, "it ended with exit code 7"},
		{v1alpha1.RestartNever, "exit 7", v1alpha1.StateFinished, "it ended with exit code 7"},
		{v1alpha1.RestartAlways, "kill -SEGV $$$$", v1alpha1.StateBackingOff, "it ended by segmentation fault"},
	} {
		t.Run(string(tt.policy)+" "+tt.text, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			b := script("job", "echo its output; "+tt.text)
			b.Spec.RestartPolicy = tt.policy
			a := n.agent(b)
			i := a.awaitState("job", tt.state)
			if i.Status.LastExit == nil || i.Status.LastExit.Message != tt.exit {
				t.Errorf("last exit %+v, want %s", i.Status.LastExit, tt.exit)
			}
			if out, err := i.Output(false); err != nil {
				t.Error(err)
			} else if text, _ := io.ReadAll(out); string(text) != "its output\n" {
				t.Errorf("what it wrote before it ended: %q", text)
			}
			if tt.state == v1alpha1.StateBackingOff {
				a.await("job", "started again", func(i Instance) bool { return i.Status.Restarts > 0 })
			}
			a.want()
			a.awaitGone("job")
			n.processes.awaitNone()
		})
	}
}

// Where it cannot run as it is written it is not tried again, until it changes.
func TestRefused(t *testing.T) {
	n := newNode(t)
	n.programs.fail = &RefusedError{errors.New("wrong digest")}
	a := n.agent(script("bad", "sleep 60"))
	if i := a.awaitState("bad", v1alpha1.StateFailed); i.Status.Message != "wrong digest" {
		t.Errorf("message %q", i.Status.Message)
	}
	n.programs.mu.Lock()
	n.programs.fail = nil
	n.programs.mu.Unlock()
	a.want(generation(script("bad", "sleep 61"), 2))
	a.awaitState("bad", v1alpha1.StateHealthy)

	b := script("root", "sleep 60")
	b.Spec.Profile = v1alpha1.ProfilePrivileged
	a.want(b)
	if i := a.awaitState("root", v1alpha1.StateFailed); !strings.Contains(i.Status.Message, "launch.allowPrivileged") {
		t.Errorf("message %q", i.Status.Message)
	}
	a.awaitGone("bad")
	if n.processes.running() != 0 {
		t.Error("a privileged task runs")
	}

	// The next agent is allowed to.
	a.kill()
	n.options = func(o *Options) { o.AllowPrivileged = true }
	a = n.agent(b)
	a.awaitState("root", v1alpha1.StateHealthy)
}

func TestUnhealthyIsStartedAgain(t *testing.T) {
	n := newNode(t)
	b := server("web", "one", v1alpha1.Port{Name: "http"})
	sick := filepath.Join(t.TempDir(), "sick")
	b.Spec.Env = append(b.Spec.Env, v1alpha1.EnvVar{Name: "SICK_WHEN", Value: sick})
	// It stays Unhealthy for long enough to be seen.
	b.Spec.Health.Interval = &metav1.Duration{Duration: time.Second}
	b.Spec.Health.MaxConsecutiveFailures = new(int32(6))
	a := n.agent(b)
	first := a.awaitState("web", v1alpha1.StateHealthy)
	if err := os.WriteFile(sick, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if i := a.awaitState("web", v1alpha1.StateUnhealthy); i.Status.Pid != first.Status.Pid || !strings.Contains(i.Status.Message, "500") {
		t.Errorf("status %+v", i.Status)
	}
	if i := a.awaitState("web", v1alpha1.StateBackingOff); !strings.Contains(i.Status.Message, "health check failed too often") {
		t.Errorf("message %q", i.Status.Message)
	}
	if err := os.Remove(sick); err != nil {
		t.Fatal(err)
	}
	again := a.awaitState("web", v1alpha1.StateHealthy)
	if again.Status.Restarts != 1 || again.Status.Pid == first.Status.Pid || again.Status.Endpoints != first.Status.Endpoints {
		t.Errorf("was %+v, is %+v; the port stays", first.Status, again.Status)
	}
}

// The agent ends, and another comes: the same process, no second one. What
// ended meanwhile is known with its exit code.
func TestAgentsComeAndGo(t *testing.T) {
	n := newNode(t)
	b := server("web", "one", v1alpha1.Port{Name: "http"})
	flag := filepath.Join(t.TempDir(), "go")
	short := script("short", "while [ ! -e "+flag+" ]; do sleep 0.01; done; exit 9")
	short.Spec.RestartPolicy = v1alpha1.RestartNever
	a := n.agent(b, short)
	first := a.awaitState("web", v1alpha1.StateHealthy)
	a.awaitState("short", v1alpha1.StateHealthy)
	for range 5 {
		a.kill()
		if version, err := ask(first.Status.Ports[0].Port); version != "one" {
			t.Fatalf("without an agent it answers %q, %v", version, err)
		}
		a = n.agent() // its sources have not told anything yet
		i := a.awaitState("web", v1alpha1.StateHealthy)
		if i.Status.Pid != first.Status.Pid {
			t.Fatalf("pid %d, was %d", i.Status.Pid, first.Status.Pid)
		}
	}
	a.kill()
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for n.processes.running() > 1 {
		time.Sleep(time.Millisecond)
	}
	a = n.agent(b, short)
	if i := a.awaitState("short", v1alpha1.StateFinished); i.Status.LastExit.Code != 9 {
		t.Errorf("last exit %+v", i.Status.LastExit)
	}
	if n.processes.starts != 2 {
		t.Errorf("%d processes were started", n.processes.starts)
	}
	// Deleted while no agent ran.
	a.kill()
	a = n.agent([]*v1alpha1.Binary{nil}...)
	for n.processes.running() > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	a.awaitGone("web")
}

// A process whose record is lost is nobody's, and is ended.
func TestStrangerIsEnded(t *testing.T) {
	n := newNode(t)
	a := n.agent(script("lost", "sleep 60"))
	a.awaitState("lost", v1alpha1.StateHealthy)
	a.kill()
	if err := os.Remove(filepath.Join(n.folder, "lost.json")); err != nil {
		t.Fatal(err)
	}
	n.agent([]*v1alpha1.Binary{nil}...)
	for n.processes.running() > 0 {
		time.Sleep(10 * time.Millisecond)
	}
}

// Another has the port: the task waits and names him, and starts when he goes.
func TestWaitsForPort(t *testing.T) {
	n := newNode(t)
	port := int32(freeport.From(t, 20000))
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	a := n.agent(server("web", "one", v1alpha1.Port{Name: "http", Port: port}))
	comm, _ := os.ReadFile("/proc/self/comm")
	want := fmt.Sprintf("port %d/TCP is taken by process %d (%s)", port, os.Getpid(), strings.TrimSpace(string(comm)))
	a.await("web", "waiting and naming the holder", func(i Instance) bool {
		return i.Status.State == v1alpha1.StateWaiting && i.Status.Message == want
	})
	_ = l.Close()
	a.awaitState("web", v1alpha1.StateHealthy)

	// A second task with the same port waits for the first.
	a.want(server("web", "one", v1alpha1.Port{Name: "http", Port: port}), server("web-2", "two", v1alpha1.Port{Name: "http", Port: port}))
	a.await("web-2", "waiting for web", func(i Instance) bool {
		return i.Status.Message == fmt.Sprintf("port %d/TCP belongs to task web", port)
	})
	a.want(server("web-2", "two", v1alpha1.Port{Name: "http", Port: port}))
	a.awaitState("web-2", v1alpha1.StateHealthy)
	if version, _ := ask(port); version != "two" {
		t.Errorf("answered by %q", version)
	}
}

func TestPodsPort(t *testing.T) {
	n := newNode(t)
	port := int32(freeport.From(t, 20000))
	var gone atomic.Bool
	n.options = func(o *Options) {
		o.PodPorts = func() []ports.Claim {
			if gone.Load() {
				return nil
			}
			return []ports.Claim{{Port: ports.Port{Number: port, Protocol: "TCP"}, By: "pod shop/web-1"}}
		}
	}
	a := n.agent(server("web", "one", v1alpha1.Port{Name: "http", Port: port}))
	a.await("web", "waiting for the pod", func(i Instance) bool {
		return i.Status.Message == fmt.Sprintf("port %d/TCP belongs to pod shop/web-1", port)
	})
	gone.Store(true)
	a.Poke()
	a.awaitState("web", v1alpha1.StateHealthy)
}

func TestRoles(t *testing.T) {
	n := newNode(t)
	var role atomic.Value
	role.Store("private")
	n.options = func(o *Options) { o.Role = func() (string, bool) { return role.Load().(string), true } }
	public, any := script("edge", "sleep 60"), script("all", "sleep 60")
	public.Spec.Roles, any.Spec.Roles = []string{"public"}, []string{"*"}
	a := n.agent(script("inner", "sleep 60"), public, any)
	a.awaitState("inner", v1alpha1.StateHealthy)
	first := a.awaitState("all", v1alpha1.StateHealthy)
	a.await("edge", "waiting for another role", func(i Instance) bool {
		return i.Status.State == v1alpha1.StateWaiting && i.Status.Message == "this node's role is private; it wants public"
	})
	role.Store("public")
	a.Poke()
	a.awaitState("edge", v1alpha1.StateHealthy)
	a.awaitState("inner", v1alpha1.StateWaiting)
	if i := a.awaitState("all", v1alpha1.StateHealthy); i.Status.Pid != first.Status.Pid {
		t.Error("a task for every role was started again")
	}
}

// Ten updates through a held socket under load: every request is answered, and
// in the end by the last version.
func TestUpdatesWithHeldSocket(t *testing.T) {
	n := newNode(t)
	port := v1alpha1.Port{Name: "http", Port: int32(freeport.From(t, 20000)), Held: true}
	a := n.agent(server("web", "v0", port))
	a.awaitState("web", v1alpha1.StateHealthy)
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var served, refused, other atomic.Int64
	for range 4 {
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
	for v := 1; v <= 10; v++ {
		a.want(generation(server("web", fmt.Sprintf("v%d", v), port), int64(v+1)))
		a.await("web", "updated", func(i Instance) bool {
			return i.Status.State == v1alpha1.StateHealthy && i.Status.RunningGeneration == int64(v+1) && n.processes.running() == 1
		})
	}
	cancel()
	load.Wait()
	// What the old process had taken in when it ended is its own matter: Go's
	// server drops a connection that it accepts while it shuts down.
	// Of each client that can be one connection in each update.
	if served.Load() < 100 || refused.Load() > 0 || other.Load() > max(served.Load()/100, 4*10) {
		t.Errorf("%d served, %d refused, %d failed otherwise", served.Load(), refused.Load(), other.Load())
	}
	if version, err := ask(port.Port); version != "v10" {
		t.Errorf("answered by %q, %v", version, err)
	}
	t.Logf("%d served in ten updates, %d dropped by a server that ended", served.Load(), other.Load())

	// The socket is not lost with the agent: taken back from the task.
	a.kill()
	a = n.agent(generation(server("web", "v10", port), 11))
	a.awaitState("web", v1alpha1.StateHealthy)
	a.want(generation(server("web", "v11", port), 12))
	a.await("web", "updated after a restart of the agent", func(i Instance) bool {
		return i.Status.RunningGeneration == 12 && n.processes.running() == 1
	})
	if version, _ := ask(port.Port); version != "v11" {
		t.Errorf("answered by %q", version)
	}
}

// A new one that does not turn healthy is taken away, and the old one stays.
func TestUpdateThatFails(t *testing.T) {
	port := int32(freeport.From(t, 20000))
	for name, p := range map[string]v1alpha1.Port{
		"beside, another port":  {Name: "http"},
		"beside, held socket":   {Name: "http", Port: port, Held: true},
		"in place, a bare port": {Name: "http", Port: port},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			a := n.agent(server("web", "good", p))
			first := a.awaitState("web", v1alpha1.StateHealthy)
			sick := server("web", "sick", p)
			sick.Spec.Health.GracePeriod = &metav1.Duration{}
			sick.Spec.Env = append(sick.Spec.Env, v1alpha1.EnvVar{Name: "SICK_WHEN", Value: "/"})
			a.want(generation(sick, 2))
			i := a.await("web", "back", func(i Instance) bool {
				return i.Status.RejectedGeneration == 2 && i.Status.State == v1alpha1.StateHealthy && n.processes.running() == 1
			})
			if p.Held || p.Port == 0 {
				if i.Status.Pid != first.Status.Pid {
					t.Error("the old one was ended")
				}
			}
			if version, err := ask(i.Status.Ports[0].Port); version != "good" {
				t.Errorf("answered by %q, %v", version, err)
			}
			if !strings.Contains(i.Status.Message, "did not become healthy") {
				t.Errorf("message %q", i.Status.Message)
			}
			a.want(generation(server("web", "better", p), 3))
			// A held socket is answered by both until the old one has ended.
			i = a.await("web", "updated", func(i Instance) bool {
				return i.Status.RunningGeneration == 3 && n.processes.running() == 1
			})
			if version, err := ask(i.Status.Ports[0].Port); version != "better" {
				t.Errorf("answered by %q, %v", version, err)
			}
		})
	}
}

// A Binary that was deleted and made anew while the agent was away counts from 1
// again: what runs is no generation of it.
func TestMadeAnewWhileAway(t *testing.T) {
	n := newNode(t)
	old := generation(server("web", "old", v1alpha1.Port{Name: "http"}), 3)
	old.UID = "first"
	a := n.agent(old)
	a.awaitState("web", v1alpha1.StateHealthy)
	a.kill()
	sick := generation(server("web", "sick", v1alpha1.Port{Name: "http"}), 1)
	sick.UID = "second"
	sick.Spec.Health.GracePeriod = &metav1.Duration{}
	sick.Spec.Env = append(sick.Spec.Env, v1alpha1.EnvVar{Name: "SICK_WHEN", Value: "/"})
	a = n.agent(sick)
	i := a.await("web", "back", func(i Instance) bool {
		return i.Status.RejectedGeneration == 1 && i.Status.State == v1alpha1.StateHealthy && n.processes.running() == 1
	})
	if i.Status.RunningGeneration != 0 {
		t.Errorf("it is told to run generation %d of the new one", i.Status.RunningGeneration)
	}
}

func TestExecCheck(t *testing.T) {
	n := newNode(t)
	flag := filepath.Join(t.TempDir(), "ready")
	b := script("job", "sleep 60")
	b.Spec.Readiness = &v1alpha1.ReadinessCheck{Probe: v1alpha1.Probe{Exec: &v1alpha1.ExecProbe{Command: []string{"/bin/sh", "-c", "ls " + flag}}},
		Interval: &metav1.Duration{Duration: 100 * time.Millisecond}}
	a := n.agent(b)
	a.await("job", "not ready", func(i Instance) bool {
		return i.Status.State == v1alpha1.StateStarting && strings.Contains(i.Status.Message, "not ready: the check ended with 2") &&
			strings.Contains(i.Status.Message, "No such file")
	})
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.awaitState("job", v1alpha1.StateHealthy)
	n.processes.mu.Lock()
	defer n.processes.mu.Unlock()
	if len(n.processes.all) != 1 {
		t.Errorf("%d processes are kept; those of checks are to be forgotten", len(n.processes.all))
	}
}

// A name that two sources want belongs to the one that had it first. When that
// wants it no more, the other's spec follows as an update.
func TestOneNameOfTwoSources(t *testing.T) {
	n := newNode(t)
	a := n.agent()
	one := func(source, version string, g int64) {
		a.Want(source, []Wanted{{Binary: generation(server("web", version, v1alpha1.Port{Name: "http"}), g), Admitted: true}})
	}
	one("folder", "file", 1)
	a.awaitState("web", v1alpha1.StateHealthy)
	one("cluster", "object", 7) // by its name it would come first
	one("folder", "changed", 2)
	a.await("web", "the folder's still", func(i Instance) bool {
		return i.Source == "folder" && i.Status.RunningGeneration == 2 && i.Status.Next == nil && n.processes.running() == 1
	})
	a.Want("folder", nil)
	i := a.await("web", "the cluster's", func(i Instance) bool {
		return i.Source == "cluster" && i.Status.RunningGeneration == 7 && i.Status.Next == nil && n.processes.running() == 1
	})
	if version, _ := ask(i.Status.Ports[0].Port); version != "object" {
		t.Errorf("answered by %q", version)
	}
	a.Want("cluster", nil)
	a.awaitGone("web")
}

// Prometheus is told of every TCP port of what runs, be it healthy or not.
func TestTargets(t *testing.T) {
	n := newNode(t)
	sick := filepath.Join(t.TempDir(), "sick")
	web, waits := server("web", "one", v1alpha1.Port{Name: "http"}), server("waits", "one", v1alpha1.Port{Name: "http"})
	web.Spec.Ports = append(web.Spec.Ports, v1alpha1.Port{Name: "syslog", Protocol: v1alpha1.ProtocolUDP})
	web.Spec.Env = append(web.Spec.Env, v1alpha1.EnvVar{Name: "SICK_WHEN", Value: sick})
	web.Spec.Health.MaxConsecutiveFailures = new(int32) // it is never ended for it
	waits.Spec.Roles = []string{"public"}
	n.options = func(o *Options) {
		o.Host, o.Role = "2001:db8::1", func() (string, bool) { return v1alpha1.RolePrivate, true }
	}
	a := n.agent(web, waits)
	if got, err := json.Marshal(a.Targets()); string(got) != "[]" {
		t.Errorf("before anything runs: %s, %v", got, err)
	}
	i := a.awaitState("web", v1alpha1.StateHealthy)
	a.awaitState("waits", v1alpha1.StateWaiting)
	port := fmt.Sprint(i.Status.Ports[0].Port)
	want := func(state v1alpha1.State) {
		t.Helper()
		all := a.Targets()
		if len(all) != 1 || len(all[0].Targets) != 1 || all[0].Targets[0] != "[2001:db8::1]:"+port || !maps.Equal(all[0].Labels, map[string]string{
			"__meta_nodeagent_node": "node-1", "__meta_nodeagent_binary": "web", "__meta_nodeagent_source": "test",
			"__meta_nodeagent_port_name": "http", "__meta_nodeagent_port_number": port, "__meta_nodeagent_state": string(state),
		}) {
			t.Errorf("targets %+v", all)
		}
	}
	want(v1alpha1.StateHealthy)
	if err := os.WriteFile(sick, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.awaitState("web", v1alpha1.StateUnhealthy)
	want(v1alpha1.StateUnhealthy)
}
