package e2e

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/test/cluster"
	"github.com/nodeagent/nodeagent/test/terminal"
)

// A person looks at a node through kubectl exec, in a terminal: which container
// grows, and which file. Without one the same is printed, as a table or as JSON.
func TestTop(t *testing.T) {
	s := newStory(t)
	s.create(cluster.Deployment(s.namespace, "web", 1))
	pod := s.untilReady("web", 1)[0]
	agent, err := s.AgentPod(s.ctx, pod.Spec.NodeName)
	s.must(err)
	s.seenQuiet(&pod)
	// Far too slow to be an offence, and fast enough to be seen.
	s.must(s.Leak(s.ctx, &pod, "200Ki"))

	s.printed(agent, &pod)
	s.checked(agent)
	s.live(agent, &pod)
}

// checked is what the agent finds out about its node from inside its pod, with
// the capabilities and the system calls that the DaemonSet leaves it.
func (s *story) checked(agent *corev1.Pod) {
	s.t.Helper()
	out, err := s.Kubectl(s.ctx, "-n", cluster.Namespace, "exec", agent.Name, "--", "/nodeagent", "check", "--config=/etc/nodeagent/config.yaml")
	if err != nil {
		s.t.Fatalf("check ended with %v, and says\n%s", err, out)
	}
	if !regexp.MustCompile(`(?m)^ok +method +events: .+`).MatchString(out) {
		s.t.Errorf("check does not say that file events work, and why:\n%s", out)
	}
	if n := len(regexp.MustCompile(`evictionHard of this node.s kubelet`).FindAllString(out, -1)); n != 1 {
		s.t.Errorf("check tells %d times of the thresholds of this node's kubelet, want once:\n%s", n, out)
	}
	s.t.Logf("check says\n%s", out)
}

// live is the table in a terminal: filter, the files of the one container, quit.
func (s *story) live(agent, pod *corev1.Pod) {
	s.t.Helper()
	cmd := s.KubectlCommand(s.ctx, "-n", cluster.Namespace, "exec", "-it", agent.Name, "--", "/nodeagent", "top")
	term, err := terminal.Start(cmd, 140, 40)
	s.must(err)
	step := func(keys, what string, so func(string) bool) {
		s.t.Helper()
		s.must(term.Type(keys))
		s.must(term.Until(s.ctx, what, so))
	}
	full := s.namespace + "/" + pod.Name
	step("", "the table", func(screen string) bool {
		return strings.Contains(screen, "nodeagent top  "+pod.Spec.NodeName) && strings.Contains(screen, agent.Name)
	})
	step("/"+full+"\r", "the one container", func(screen string) bool {
		return strings.Contains(screen, "filter "+full) && !strings.Contains(screen, agent.Name)
	})
	step("\r", "its growing file", func(screen string) bool {
		return strings.Contains(screen, full+"/app") && strings.Contains(screen, cluster.LeakFile) && strings.Contains(screen, "KiB/s")
	})
	s.must(term.Type("q"))
	if err := term.Wait(s.ctx); err != nil {
		s.t.Errorf("top in a terminal ended with %v; the screen shows\n%s", err, term.Screen())
	}
}

// printed is what is printed without a terminal.
func (s *story) printed(agent, pod *corev1.Pod) {
	s.t.Helper()
	var report struct {
		Node       string
		Containers []struct {
			Pod, Container, Method string
			Bytes                  int64
			BytesPerSecond         struct{ Expected float64 }
			Growing                []struct{ Path string }
		}
	}
	s.must(cluster.Until(s.ctx, "top tells of the file that grows", func(ctx context.Context) (bool, error) {
		out, err := s.Kubectl(ctx, "-n", cluster.Namespace, "exec", agent.Name, "--", "/nodeagent", "top", "-o", "json", "--filter", pod.Name)
		if err != nil {
			return false, err
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Containers) != 1 {
			return false, err
		}
		c := report.Containers[0]
		return len(c.Growing) > 0 && c.Growing[0].Path == cluster.LeakFile && c.BytesPerSecond.Expected > 100<<10, nil
	}))
	if report.Node != pod.Spec.NodeName || report.Containers[0].Pod != pod.Name || report.Containers[0].Container != "app" || report.Containers[0].Bytes <= 0 {
		s.t.Errorf("top -o json tells %+v", report)
	}
	if got := report.Containers[0].Method; got != "events" {
		s.t.Errorf("the container is measured by %q, want events", got)
	}
	out, err := s.Kubectl(s.ctx, "-n", cluster.Namespace, "exec", agent.Name, "--", "/nodeagent", "top", "--once", "--sort", "growth")
	s.must(err)
	if !strings.Contains(out, pod.Name) || strings.Contains(out, "\x1b") {
		s.t.Errorf("top --once prints\n%q", out)
	}
}
