package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

const (
	exporter     = "node-exporter"
	exporterPort = 19100
	// asksLaunched is how many requests meet the updates.
	asksLaunched = 20_000
	updates      = 10
)

// A platform engineer applies one Binary, and Debian's own node_exporter runs on
// every node, out of no image. Prometheus finds it there. It is updated under
// load, its agents are killed and replaced, nodes change their role, one is
// rebooted, and at last it goes and leaves nothing.
func TestLaunch(t *testing.T) {
	s := newStory(t)
	s.overlay("launch")
	t.Cleanup(s.deleteBinaries) // before the agents no longer know them
	url, digest := s.serveExporter()

	s.apply(exporterSpec(url, digest, "first"))
	s.upOn(exporter, 2)
	out, err := s.Kubectl(s.ctx, "get", "binaries,binaryinstances", "-o", "wide")
	s.must(err)
	t.Log("\n" + out)
	s.prometheusScrapesLaunched()
	s.updatedUnderLoad(url, digest)
	s.haltsOnFailure(url, digest)
	s.twoNodesAtATime(url, digest)
	s.outlivesItsAgents()
	s.waitsForPort(url, digest)
	s.followsRole()
	s.comesAgainAfterReboot()
	s.leavesNothing()
}

// updatedUnderLoad changes the Binary again and again while both nodes' ports are
// asked over a new connection each time. The launcher holds the socket: nobody
// is refused. What the old process had taken in when it ended is its own matter.
func (s *story) updatedUnderLoad(url, digest string) {
	s.t.Helper()
	load := s.startAsking()
	rollouts := s.watchRollouts()
	for i := range updates {
		s.update(exporterSpec(url, digest, fmt.Sprintf("update-%d", i)))
	}
	if most := rollouts.stop(); most.admitted != 1 || most.exchanging != 1 {
		s.t.Errorf("%d nodes were admitted and %d exchanging at a time; maxUnavailable is 1", most.admitted, most.exchanging)
	}
	s.must(cluster.Until(s.ctx, fmt.Sprintf("%d requests were made", asksLaunched), func(context.Context) (bool, error) {
		return load.asked.Load() >= asksLaunched, nil
	}))
	load.stop()
	s.t.Logf("%d updates on two nodes: %d requests over new connections, %d refused, %d dropped by the process that ended",
		updates, load.asked.Load(), load.refused.Load(), load.dropped.Load())
	if n := load.refused.Load(); n > 0 {
		s.t.Errorf("%d connections were refused", n)
	}
	if n := load.dropped.Load(); n > load.asked.Load()/200 {
		s.t.Errorf("%d of %d requests were dropped", n, load.asked.Load())
	}
}

// update applies a changed spec and waits until both nodes run it.
func (s *story) update(b *v1alpha1.Binary) {
	s.t.Helper()
	s.apply(b)
	s.must(cluster.Until(s.ctx, "both nodes run the changed spec", func(ctx context.Context) (bool, error) {
		b := &v1alpha1.Binary{}
		if err := s.Get(ctx, client.ObjectKey{Name: exporter}, b); err != nil {
			return false, err
		}
		if b.Status.ObservedGeneration != b.Generation || b.Status.Updated != 2 || b.Status.Up != 2 {
			return false, fmt.Errorf("%d of %d nodes updated, %d up: %s", b.Status.Updated, b.Status.Nodes, b.Status.Up, b.Status.Message)
		}
		return true, nil
	}))
}

// haltsOnFailure: a change that ends at once is taken back on the first node and
// never reaches the second; what ran runs on and answers, until a better change.
func (s *story) haltsOnFailure(url, digest string) {
	s.t.Helper()
	before := s.processes()
	bad := exporterSpec(url, digest, "bad")
	bad.Spec.Command = append(bad.Spec.Command, "--no-such-flag")
	rollouts := s.watchRollouts()
	s.apply(bad)
	s.must(cluster.Until(s.ctx, "the update is halted", func(ctx context.Context) (bool, error) {
		b := &v1alpha1.Binary{}
		err := s.Get(ctx, client.ObjectKey{Name: exporter}, b)
		if err == nil && !strings.HasPrefix(b.Status.Message, "halted at 0 of 2 nodes: on ") {
			err = fmt.Errorf("%s", b.Status.Message)
		}
		return err == nil, err
	}))
	if most := rollouts.stop(); most.admitted != 1 || most.exchanging != 1 {
		s.t.Errorf("%d nodes were admitted and %d exchanging at a time of a change that fails", most.admitted, most.exchanging)
	}
	s.must(cluster.Until(s.ctx, "both processes are told as they were", func(context.Context) (bool, error) {
		all := s.instances(exporter)
		return !slices.ContainsFunc(all, func(i v1alpha1.BinaryInstance) bool { return i.Status.State != v1alpha1.StateHealthy }), nil
	}))
	rejected := 0
	for _, i := range s.instances(exporter) {
		if i.Status.RejectedGeneration == i.Status.ObservedGeneration {
			rejected++
		}
		if fmt.Sprint(i.Status.Pid) != before[i.Spec.Node] {
			s.t.Errorf("on %s process %s ran, now %d, %s", i.Spec.Node, before[i.Spec.Node], i.Status.Pid, i.Status.State)
		}
	}
	if rejected != 1 {
		s.t.Errorf("rejected on %d nodes", rejected)
	}
	for _, address := range s.nodeAddresses() {
		s.must(askOnce(s.ctx, http.DefaultClient, fmt.Sprintf("http://%s:%d/", address, exporterPort)))
	}
	s.update(exporterSpec(url, digest, "better"))
}

// twoNodesAtATime: with a larger maxUnavailable both nodes change at once.
func (s *story) twoNodesAtATime(url, digest string) {
	s.t.Helper()
	both := exporterSpec(url, digest, "both")
	most := intstr.FromString("100%")
	both.Spec.Update.MaxUnavailable = &most
	rollouts := s.watchRollouts()
	s.update(both)
	if most := rollouts.stop(); most.admitted != 2 {
		s.t.Errorf("%d nodes were admitted at a time; maxUnavailable is 100%% of 2", most.admitted)
	}
}

// outlivesItsAgents kills the agents, then replaces their pods: the same
// processes go on, each once.
func (s *story) outlivesItsAgents() {
	s.t.Helper()
	before := s.processes()
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	for _, node := range nodes {
		s.killAgent(node)
	}
	s.sameProcesses(before, "SIGKILL of the agents")
	_, err = s.Kubectl(s.ctx, "-n", cluster.Namespace, "rollout", "restart", "daemonset/nodeagent")
	s.must(err)
	s.agentsReady()
	s.sameProcesses(before, "a rollout of the DaemonSet")
}

func (s *story) sameProcesses(before map[string]string, after string) {
	s.t.Helper()
	s.agentsReady()
	s.upOn(exporter, 2)
	for node, pids := range s.processes() {
		if pids != before[node] {
			s.t.Errorf("after %s process %s runs on %s, before it was %s", after, pids, node, before[node])
		}
	}
	for _, i := range s.instances(exporter) {
		if i.Status.Restarts != 0 || fmt.Sprint(i.Status.Pid) != before[i.Spec.Node] {
			s.t.Errorf("after %s %s tells of process %d and %d restarts", after, i.Name, i.Status.Pid, i.Status.Restarts)
		}
	}
}

// processes are the exporter's process ids by node, as the node numbers them.
// The one before an update is given a moment to end.
func (s *story) processes() map[string]string {
	s.t.Helper()
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	found := map[string]string{}
	for _, node := range nodes {
		ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
		_ = cluster.Until(ctx, "one runs", func(context.Context) (bool, error) { // if not, the caller tells
			out, err := s.Lab(s.ctx, "exec", node, "--", "sh", "-c", "pgrep -x node_exporter || true")
			s.must(err)
			found[node] = strings.Join(strings.Fields(out), " ")
			return !strings.Contains(found[node], " "), nil
		})
		cancel()
	}
	return found
}

// waitsForPort: a pod has the host port that a second Binary wants; it waits and
// says who. When the pod goes it starts.
func (s *story) waitsForPort(url, digest string) {
	s.t.Helper()
	const port, name = 19200, "second"
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	pod := cluster.Pod(s.namespace, "holder")
	pod.Spec.NodeName = nodes[0]
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: port}}
	s.create(pod)
	s.must(cluster.Until(s.ctx, "the pod with the host port runs", func(ctx context.Context) (bool, error) {
		err := s.Get(ctx, client.ObjectKeyFromObject(pod), pod)
		return pod.Status.Phase == corev1.PodRunning, err
	}))
	second := exporterSpec(url, digest, "second")
	second.Name = name
	second.Spec.Ports[0].Port = port
	second.Spec.Ports[0].Held = false
	second.Spec.Command = []string{"./node_exporter", "--web.listen-address=:$(PORT0)"}
	s.apply(second)
	holder := fmt.Sprintf("pod %s/%s", s.namespace, pod.Name)
	s.must(cluster.Until(s.ctx, "it waits on the one node and says for whom", func(context.Context) (bool, error) {
		for _, i := range s.instances(name) {
			if i.Spec.Node == nodes[0] && i.Status.State == v1alpha1.StateWaiting && strings.Contains(i.Status.Message, holder) {
				return true, nil
			}
		}
		return false, fmt.Errorf("%+v", s.instances(name))
	}))
	s.must(s.Delete(s.ctx, pod, client.GracePeriodSeconds(0)))
	s.upOn(name, 2)
	s.must(s.Delete(s.ctx, second))
}

// followsRole: what asks for private nodes ends on one that becomes public, and
// comes again. The agent there keeps ordinary pods off it for as long.
func (s *story) followsRole() {
	s.t.Helper()
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	last := nodes[len(nodes)-1]
	b := &v1alpha1.Binary{}
	s.must(s.Get(s.ctx, client.ObjectKey{Name: exporter}, b))
	patch := client.MergeFrom(b.DeepCopy())
	b.Spec.Roles = []string{"private"}
	s.must(s.Patch(s.ctx, b, patch))
	s.upOn(exporter, 2)
	s.label(last, v1alpha1.RolePublic)
	s.t.Cleanup(func() { s.unlabel(last) })
	s.upOn(exporter, 1)
	s.taintFollows(last, true)
	if on := s.processes(); on[last] != "" {
		s.t.Errorf("process %s still runs on %s, which is public", on[last], last)
	}
	s.unlabel(last)
	s.upOn(exporter, 2)
	s.taintFollows(last, false)
}

// taintFollows waits until the node's taint is there, or gone.
func (s *story) taintFollows(node string, want bool) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, fmt.Sprintf("the taint of a public node on %s: %t", node, want), func(ctx context.Context) (bool, error) {
		n := &corev1.Node{}
		if err := s.Get(ctx, client.ObjectKey{Name: node}, n); err != nil {
			return false, err
		}
		is := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
			return t.Key == v1alpha1.LabelRole && t.Value == v1alpha1.RolePublic && t.Effect == corev1.TaintEffectNoSchedule
		})
		return is == want, nil
	}))
}

// comesAgainAfterReboot pulls a node's plug and starts it: what should run does.
func (s *story) comesAgainAfterReboot() {
	s.t.Helper()
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	last := nodes[len(nodes)-1]
	before := s.instanceOn(last).Status.Started
	_, err = s.Lab(s.ctx, "node", "stop", last)
	s.must(err)
	_, err = s.Lab(s.ctx, "node", "start", last)
	s.must(err)
	s.must(cluster.Until(s.ctx, "it runs again on the node that was rebooted", func(context.Context) (bool, error) {
		now := s.instanceOn(last).Status
		if now.State != v1alpha1.StateHealthy || now.Started.Equal(before) {
			return false, fmt.Errorf("%s: %s", now.State, now.Message)
		}
		return true, nil
	}))
	s.agentsReady()
	if on := s.processes(); on[last] == "" || strings.Contains(on[last], " ") {
		s.t.Errorf("on %s, which was rebooted, the processes %q run", last, on[last])
	}
}

// traces are what of an exporter can be found on a node. The store's copy of
// what was fetched is a cache, and none.
const traces = `pgrep -x node_exporter
cat /proc/[0-9]*/mounts | grep -E '/var/lib/nodeagent/(sandboxes|store)'
find /var/lib/nodeagent/sandboxes /var/lib/nodeagent/units /run/nodeagent/tasks -mindepth 1 -name '*node-exporter*'
find /sys/fs/cgroup -type d -name 'node-exporter*' -path "*/$(hostname)/*"
true`

// leavesNothing deletes the Binary and looks on each node for what is left. The
// same look finds of each kind something before.
func (s *story) leavesNothing() {
	s.t.Helper()
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	for _, node := range nodes {
		out, err := s.Lab(s.ctx, "exec", node, "--", "sh", "-c", traces)
		s.must(err)
		for _, kind := range []string{"overlay /", "/var/lib/nodeagent/sandboxes/", "/var/lib/nodeagent/units/", "/run/nodeagent/tasks/", "/sys/fs/cgroup/"} {
			if !strings.Contains(out, kind) {
				s.t.Errorf("while it runs on %s nothing with %q is found:\n%s", node, kind, out)
			}
		}
	}
	s.deleteBinaries()
	for _, node := range nodes {
		s.must(cluster.Until(s.ctx, "nothing is left on "+node, func(ctx context.Context) (bool, error) {
			out, err := s.Lab(ctx, "exec", node, "--", "sh", "-c", traces)
			if left := strings.TrimSpace(out); left != "" {
				return false, fmt.Errorf("left on %s:\n%s", node, left)
			}
			return err == nil, err
		}))
	}
}

func (s *story) deleteBinaries() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Minute)
	defer cancel()
	if _, err := s.Kubectl(ctx, "delete", "binaries", "--all"); err != nil {
		s.t.Error(err)
	}
	if err := cluster.Until(ctx, "no instance is left", func(ctx context.Context) (bool, error) {
		list := &v1alpha1.BinaryInstanceList{}
		err := s.List(ctx, list)
		return len(list.Items) == 0, err
	}); err != nil {
		s.t.Error(err)
	}
}
