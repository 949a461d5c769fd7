package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// A person restarts by kubectl: looks at the plan, restarts one pod and then
// all that is there, is refused, and reads what happened.
func TestKubectlRestart(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	folder := t.TempDir()
	s.must(os.Symlink(s.Path("bin/nodeagent"), filepath.Join(folder, "kubectl-restart")))
	kubectl := func(code int, says string, args ...string) string {
		t.Helper()
		cmd := s.KubectlCommand(s.ctx, append([]string{"restart", "-n", s.namespace}, args...)...)
		cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		got := 0
		if ended, ok := errors.AsType[*exec.ExitError](err); ok {
			got = ended.ExitCode()
		} else {
			s.must(err)
		}
		if got != code || !strings.Contains(string(out), says) {
			t.Errorf("kubectl restart %s ends with %d, want %d, and says, want %q:\n%s", strings.Join(args, " "), got, code, says, out)
		}
		return string(out)
	}
	gap := cluster.Deployment(s.namespace, "gap", 1)
	gap.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
	s.create(cluster.Deployment(s.namespace, "web", 2), gap)
	s.untilReady("gap", 1)
	old := s.untilReady("web", 2)

	kubectl(0, "deployment/web would be restarted: its 2 pods are replaced by their own controller", "deploy/web", "--dry-run")
	kubectl(2, "would be refused: The Deployment's strategy is Recreate", "deploy/gap", "--dry-run")
	if all, err := s.Restarts(s.ctx, s.namespace); err != nil || len(all) > 0 {
		t.Errorf("--dry-run made %+v, %v", all, err)
	}
	kubectl(0, "Succeeded: 1 pod replaced", "pod/"+old[0].Name, "-m", "it leaks")
	now := s.untilReady("web", 2)
	s.replaced(old, now, old[0].Name)
	kubectl(2, "1 of 2 restarts refused", "deploy", "--all", "--timeout=2m")
	s.replaced(now, s.untilReady("web", 2), names(now)...)

	table, err := s.Kubectl(s.ctx, "-n", s.namespace, "get", "restarts")
	s.must(err)
	for _, words := range []string{"deployment-web", "Manual", "Succeeded", "2 pods replaced", "deployment-gap", "Refused"} {
		if !strings.Contains(table, words) {
			t.Errorf("kubectl get restarts does not say %q:\n%s", words, table)
		}
	}
	s.toldOn("Deployment", "web", "RestartSucceeded")
	described, err := s.Kubectl(s.ctx, "-n", s.namespace, "describe", "deployment", "web")
	s.must(err)
	for _, words := range []string{"RestartStarted", "it leaks", "RestartSucceeded", "1 pod replaced"} {
		if !strings.Contains(described, words) {
			t.Errorf("kubectl describe does not say %q:\n%s", words, described)
		}
	}
}
