package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/cgroup"
	"github.com/nodeagent/nodeagent/test/blockdev"
)

// unitAgent is an agent that is a systemd service: it attaches to what runs,
// starts what is missing, and tells its pid and where the tasks are.
func unitAgent(state, folder, device string) {
	self, _ := os.Executable()
	l, err := New(Options{State: state, Keeper: self})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	tasks, err := l.Attach(context.Background())
	if err != nil {
		fmt.Println("error", err)
	}
	for i := len(tasks); i < 2; i++ {
		t, _, err := l.Start(context.Background(), unitTask(folder, i, device))
		if err != nil {
			fmt.Println("error", err)
			continue
		}
		tasks = append(tasks, t)
	}
	line := fmt.Sprint("agent ", os.Getpid())
	for _, t := range tasks {
		line += fmt.Sprint(" ", t.ID(), "=", t.Pid(), ",", t.start)
	}
	fmt.Println(line)
	time.Sleep(time.Hour)
}

func unitTask(folder string, i int, device string) Spec {
	return Spec{
		ID: fmt.Sprintf("unit.%d", i), Dir: filepath.Join(folder, strconv.Itoa(i)), Command: []string{"sleep", "3600"},
		Resources: Resources{CPU: 500, Memory: 64 << 20, Pids: 16, CPUs: "0", IO: []cgroup.IO{{Device: device, WriteIOPS: 100}}},
	}
}

// node is a machine that a systemd rules, with an agent as its service.
type node struct {
	t       *testing.T
	l       *Launcher
	said    string // the file that the agents write to
	program []string
	device  string
}

const (
	agentUnit = "nodeagent-test.service"
	podSlice  = "kubepods-burstable-podb1f0.slice"
)

// TestUnderSystemd does to systemd what happens on nodes, and after each looks
// whether the tasks are the same processes, where they were, within the limits
// that they were given: by what the kernel says.
func TestUnderSystemd(t *testing.T) {
	onlyUnderSystemd(t)
	l := newLauncher(t, func(o *Options) { o.CgroupParent = "" })
	n := &node{t: t, l: l, said: filepath.Join(t.TempDir(), "said"), device: blockdev.Number(t)}
	n.program = []string{l.o.Keeper, "act", "unit-agent", l.o.State, t.TempDir(), n.device}
	if err := os.Chmod(n.program[4], 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.clear)
	n.write("control-group")
	n.run("systemctl", "start", agentUnit)
	tasks := n.tells(n.mainPID())
	n.check(tasks)
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"systemd reads its units again", func() { n.run("systemctl", "daemon-reload") }},
		{"systemd executes itself anew", func() { n.run("systemctl", "daemon-reexec") }},
		{"the agent's unit is restarted", func() { n.restart("control-group", tasks) }},
		{"the agent's unit is restarted with KillMode=process", func() { n.restart("process", tasks) }},
		{"the agent's unit is restarted with KillMode=mixed", func() { n.restart("mixed", tasks) }},
		{"all of the agent's unit is killed", func() {
			before := n.mainPID()
			n.run("systemctl", "kill", "--signal=KILL", agentUnit)
			n.await("another agent", func() bool { pid := n.mainPID(); return pid != 0 && pid != before })
			n.same(tasks, n.tells(n.mainPID()))
		}},
		{"the kubelet's pods come and go", n.pods},
		{"the agent is a pod's container, and the pod ends", func() { n.agentInPod(tasks) }},
		{"no unit wants cores or bandwidth any more", func() {
			n.run("systemctl", "set-property", "--runtime", "system.slice", "AllowedCPUs=0-1", "IOWeight=200", "CPUWeight=50")
			n.run("systemctl", "set-property", "--runtime", "system.slice", "AllowedCPUs=", "IOWeight=", "CPUWeight=")
		}},
		{"a unit of our name comes and goes", n.unitOfOurName},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.t = t
			begun := time.Now()
			c.do()
			n.check(tasks)
			t.Logf("%.1f s", time.Since(begun).Seconds())
		})
	}
	n.t = t
	n.run("systemctl", "stop", agentUnit)
	n.check(tasks)
	found, err := l.Attach(soon(t))
	if err != nil || len(found) != len(tasks) {
		t.Errorf("%d tasks are there after all, want %d: %v", len(found), len(tasks), err)
	}
	for _, task := range found {
		if err := errors.Join(task.Stop(soon(t), 0), task.Forget(soon(t))); err != nil {
			t.Error(err)
		}
	}
	t.Run("a memory bomb", TestAMemoryBombEndsAsAGroupAndIsTold)
}

// The positive control: below a folder that has the name of a unit the same
// does take the limits away, so the test above can fail.
func TestSystemdTakesWhatHasAUnitsName(t *testing.T) {
	onlyUnderSystemd(t)
	l := newLauncher(t, func(o *Options) { o.CgroupParent = "nodeagent.slice" })
	task := start(t, l, acting(t, "slice.1", "stubborn"))
	says(t, task, "ready")
	limit := filepath.Join("/sys/fs/cgroup/nodeagent.slice", task.ID(), "memory.max")
	if _, err := os.Stat(limit); err != nil {
		t.Fatal(err)
	}
	(&node{t: t}).unitOfOurName()
	if _, err := os.Stat(limit); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the limit is still there: %v", err)
	}
}

func onlyUnderSystemd(t *testing.T) {
	t.Helper()
	if os.Getenv("NODEAGENT_VM_SYSTEMD") == "" {
		t.Skip("only where process 1 is there for it: test/vm with --systemd")
	}
}

// unitOfOurName has systemd make a slice as if somebody had put a service into it.
func (n *node) unitOfOurName() {
	n.t.Helper()
	n.run("systemd-run", "--scope", "--collect", "--slice="+cgroup.Parent+".slice", "-p", "MemoryMax=64M", "true")
	n.run("systemctl", "stop", cgroup.Parent+".slice")
}

// write writes the agent's unit.
func (n *node) write(killMode string) {
	n.t.Helper()
	text := fmt.Sprintf("[Service]\nExecStart=%s\nDelegate=yes\nKillMode=%s\nRestart=always\nRestartSec=0\nStandardOutput=append:%s\n",
		strings.Join(n.program, " "), killMode, n.said)
	if err := os.WriteFile("/run/systemd/system/"+agentUnit, []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
	n.run("systemctl", "daemon-reload")
}

func (n *node) restart(killMode string, tasks map[string]string) {
	n.t.Helper()
	n.write(killMode)
	n.run("systemctl", "stop", agentUnit)
	n.check(tasks)
	n.run("systemctl", "start", agentUnit)
	n.same(tasks, n.tells(n.mainPID()))
}

// pods makes a pod's cgroups as a kubelet with the systemd driver has runc make
// them, and takes them away.
func (n *node) pods() {
	n.t.Helper()
	sleeper := n.scope("cri-containerd-1", podSlice, "sleep", "3600")
	pod := "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/" + podSlice
	n.await("the pod's cgroup", func() bool {
		raw, err := os.ReadFile(pod + "/cri-containerd-1.scope/cpuset.cpus")
		return err == nil && strings.TrimSpace(string(raw)) == "0" && strings.HasPrefix(n.cgroupOf(sleeper.Process.Pid), "/kubepods.slice/")
	})
	n.run("systemctl", "stop", "kubepods.slice")
	_ = sleeper.Wait()
	if _, err := os.Stat(pod); !errors.Is(err, os.ErrNotExist) {
		n.t.Errorf("the pod's cgroup is still there: %v", err)
	}
}

func (n *node) agentInPod(tasks map[string]string) {
	n.t.Helper()
	n.run("systemctl", "stop", agentUnit)
	agent := n.scope("cri-containerd-2", podSlice, n.program...)
	n.same(tasks, n.tells(agent.Process.Pid))
	if err := os.WriteFile("/sys/fs/cgroup"+n.cgroupOf(agent.Process.Pid)+"/cgroup.kill", []byte("1"), 0); err != nil {
		n.t.Error(err)
	}
	n.run("systemctl", "stop", podSlice)
	_ = agent.Wait()
	n.check(tasks)
	n.run("systemctl", "start", agentUnit)
	n.same(tasks, n.tells(n.mainPID()))
}

// scope runs a program as a container's first process.
func (n *node) scope(name, slice string, program ...string) *exec.Cmd {
	n.t.Helper()
	args := []string{"--scope", "--collect", "--unit=" + name, "--slice=" + slice, "-p", "Delegate=yes", "-p", "MemoryMax=256M", "-p", "TasksMax=100", "-p", "AllowedCPUs=0", "-p", "IOWeight=50", "--"}
	c := exec.Command("systemd-run", append(args, program...)...)
	said, err := os.OpenFile(n.said, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer said.Close()
	c.Stdout, c.Stderr = said, said
	if err := c.Start(); err != nil {
		n.t.Fatal(err)
	}
	return c
}

func (n *node) clear() {
	_ = exec.Command("systemctl", "stop", agentUnit, "kubepods.slice").Run()
	_ = os.Remove("/run/systemd/system/" + agentUnit)
	_ = exec.Command("systemctl", "daemon-reload").Run()
}

func (n *node) run(name string, args ...string) string {
	n.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		n.t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (n *node) mainPID() int {
	pid, _ := strconv.Atoi(n.run("systemctl", "show", "--property=MainPID", "--value", agentUnit))
	return pid
}

func (n *node) await(what string, so func() bool) {
	n.t.Helper()
	for end := time.Now().Add(60 * time.Second); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			said, _ := os.ReadFile(n.said)
			n.t.Fatalf("%s: not within a minute; the agents said:\n%s", what, said)
		}
	}
}

// tells waits until the agent with the pid has told of the tasks: their ids,
// and of each the pid and start time.
func (n *node) tells(pid int) map[string]string {
	n.t.Helper()
	tasks := map[string]string{}
	n.await(fmt.Sprintf("the agent %d tells of its tasks", pid), func() bool {
		said, _ := os.ReadFile(n.said)
		_, after, ok := strings.Cut(string(said), fmt.Sprintf("agent %d ", pid))
		line, _, whole := strings.Cut(after, "\n")
		for f := range strings.FieldsSeq(line) {
			id, who, _ := strings.Cut(f, "=")
			tasks[id] = who
		}
		return ok && whole
	})
	return tasks
}

func (n *node) same(want, got map[string]string) {
	n.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		n.t.Errorf("the agent has the tasks %v, want %v", got, want)
	}
}

func (n *node) cgroupOf(pid int) string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		n.t.Error(err)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(raw), "0::"))
}

// check asks the kernel.
func (n *node) check(tasks map[string]string) {
	n.t.Helper()
	if len(tasks) != 2 {
		n.t.Fatalf("the agent told of the tasks %v", tasks)
	}
	for id, who := range tasks {
		first, _, _ := strings.Cut(who, ",")
		pid, _ := strconv.Atoi(first)
		if got := fmt.Sprint(pid, ",", startTime(pid)); got != who {
			n.t.Errorf("%s is process %s, was %s", id, got, who)
			continue
		}
		at := "/" + cgroup.Parent + "/" + id
		if got := n.cgroupOf(pid); got != at {
			n.t.Errorf("%s is in the cgroup %s, was put into %s", id, got, at)
		}
		for file, want := range map[string]string{
			"cpu.max": "50000 100000", "memory.max": "67108864", "memory.oom.group": "1", "pids.max": "16", "cpuset.cpus": "0",
			"io.max": n.device + " rbps=max wbps=max riops=max wiops=100",
		} {
			if raw, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", at, file)); err != nil || strings.TrimSpace(string(raw)) != want {
				n.t.Errorf("%s: %s is %q %v, was %q", id, file, raw, err, want)
			}
		}
		var cores unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &cores); err != nil || cores.Count() != 1 {
			n.t.Errorf("%s may run on %d cores: %v", id, cores.Count(), err)
		}
	}
	keepers := filepath.Join("/sys/fs/cgroup", cgroup.Parent, keepersGroup)
	if _, err := os.Stat(keepers); err != nil {
		n.t.Error(err)
	}
}
