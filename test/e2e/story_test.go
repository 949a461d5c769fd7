// Package e2e plays stories on a real cluster of two nodes, with the agent on
// it as its DaemonSet. `make test-e2e` starts the cluster and runs them: first
// those that do something to the cluster or measure something, one after the
// other, then those that are t.Parallel, side by side.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// shared is the one cluster of all stories. TestMain sets it.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run())
	}
	if err := connect(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := checkRights(code == 0 && wholeSuite()); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: rights of the agents:", err)
		code = 1
	}
	os.Exit(code)
}

func connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	lab, err := cluster.LabFromEnv()
	if err != nil {
		return err
	}
	if shared, err = cluster.Connect(ctx, lab); err != nil {
		return err
	}
	if err := shared.InstallAgent(ctx); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	return applyAgents(ctx, shared, baseFolder, "", folder)
}

// wholeSuite tells whether no flag leaves a story out.
func wholeSuite() bool {
	return !slices.ContainsFunc([]string{"test.run", "test.skip", "test.list"}, func(name string) bool {
		f := flag.Lookup(name)
		return f != nil && f.Value.String() != ""
	})
}

// leakRate is the rate of the leaks in the stories.
const leakRate = "20Mi"

// story is one story in a namespace of its own.
type story struct {
	*cluster.Cluster
	t         *testing.T
	ctx       context.Context
	namespace string

	folder     string // of manifests, which the agents have
	configured bool
	gate       *gate // of meetsMany, where there is one
}

// storyLimit is how long a story may take on a busy machine, where a kubelet
// may remove the container of an old pod more than a minute after the pod.
const storyLimit = 10 * time.Minute

func newStory(t *testing.T) *story {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	ctx, cancel := context.WithTimeout(t.Context(), storyLimit)
	t.Cleanup(cancel)
	ns, err := shared.Namespaced(ctx, strings.ToLower(strings.NewReplacer("_", "-", "/", "-").Replace(t.Name())))
	if err != nil {
		t.Fatal(err)
	}
	s := &story{Cluster: shared, t: t, ctx: ctx, namespace: ns, folder: baseFolder}
	t.Cleanup(s.end)
	return s
}

// end tells what there was when the story failed, and removes its namespace.
func (s *story) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if s.t.Failed() {
		for _, args := range [][]string{
			{"-n", s.namespace, "get", "pods,rs,restarts", "-o", "wide"},
			{"-n", s.namespace, "get", "events", "--sort-by=.lastTimestamp"},
			{"-n", s.namespace, "get", "restarts", "-o", "yaml"},
			{"-n", cluster.Namespace, "logs", "-l", "app.kubernetes.io/name=nodeagent", "--tail=60", "--prefix"},
		} {
			out, err := s.Kubectl(ctx, args...)
			s.t.Logf("kubectl %s\n%s%v", strings.Join(args, " "), out, errText(err))
		}
	}
	if _, err := s.Kubectl(ctx, "delete", "namespace", s.namespace, "--wait=false"); err != nil {
		s.t.Errorf("cannot remove the story's namespace: %v", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) create(objects ...client.Object) {
	s.t.Helper()
	for _, o := range objects {
		s.must(s.Create(s.ctx, o))
	}
}

func (s *story) untilReady(name string, n int) []corev1.Pod {
	s.t.Helper()
	pods, err := s.UntilReady(s.ctx, s.namespace, name, n)
	s.must(err)
	return pods
}

// seenQuiet waits until the agent has looked at a pod that does not grow yet:
// one that grows from its first look on is taken to start up, for a while.
func (s *story) seenQuiet(pod *corev1.Pod) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, pod.Name+" has run for some seconds", func(ctx context.Context) (bool, error) {
		now := &corev1.Pod{}
		if err := s.Get(ctx, client.ObjectKeyFromObject(pod), now); err != nil {
			return false, err
		}
		return len(now.Status.ContainerStatuses) > 0 && !slices.ContainsFunc(now.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.State.Running == nil || time.Since(c.State.Running.StartedAt.Time) < 7*time.Second
		}), nil
	}))
}

// leak starts a leak in a pod, waits until the offence became a Restart, and
// tells how long that took: some five seconds, more on a busy machine.
func (s *story) leak(pod *corev1.Pod) <-chan cluster.Sighting {
	s.t.Helper()
	s.seenQuiet(pod)
	seen, err := s.Follow(s.ctx, s.namespace)
	s.must(err)
	s.must(s.Leak(s.ctx, pod, leakRate))
	started := time.Now()
	select {
	case first, ok := <-seen:
		if !ok {
			s.t.Fatal("the watch ended before a Restart was made")
		}
		took := first.At.Sub(started)
		s.t.Logf("the offence was seen %.1f s after the leak began: %s", took.Seconds(), first.Restart.Spec.Message)
		if !strings.Contains(first.Restart.Spec.Message, cluster.LeakFile) {
			s.t.Errorf("the Restart does not name the file: %q", first.Restart.Spec.Message)
		}
	case <-s.ctx.Done():
		s.t.Fatal("no Restart was made")
	}
	return seen
}

// succeeded waits for the end and checks what every good end has: the old pods
// gone, exactly one Restart, the bytes counted, and the owners told.
func (s *story) succeeded(seen <-chan cluster.Sighting, old []corev1.Pod) v1alpha1.Restart {
	s.t.Helper()
	last, err := cluster.UntilPhase(s.ctx, seen, v1alpha1.PhaseSucceeded)
	s.must(err)
	r := last.Restart
	s.t.Logf("%s: %s", r.Name, r.Status.Message)
	for _, p := range old {
		if !slices.Contains(r.Status.ReplacedPods, p.Name) {
			s.t.Errorf("%s is not told as replaced: %v", p.Name, r.Status.ReplacedPods)
		}
	}
	if r.Status.FreedBytes < 64<<20 {
		s.t.Errorf("freed %d bytes, want at least the 64 MiB that made it an offence", r.Status.FreedBytes)
	}
	all, err := s.Restarts(s.ctx, s.namespace)
	s.must(err)
	if len(all) != 1 || len(all[0].Status.History) != 1 {
		s.t.Errorf("want exactly one Restart with one run, got %+v", all)
	}
	s.toldOn(r.Spec.Target.Kind, r.Spec.Target.Name, "RestartSucceeded")
	return r
}

// toldOn waits for an Event on an object: owners read them.
func (s *story) toldOn(kind, name, reason string) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, fmt.Sprintf("an Event %s is on %s %s", reason, kind, name), func(ctx context.Context) (bool, error) {
		list := &corev1.EventList{}
		err := s.List(ctx, list, client.InNamespace(s.namespace))
		return slices.ContainsFunc(list.Items, func(e corev1.Event) bool {
			return e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name && e.Reason == reason
		}), err
	}))
}

func names(pods []corev1.Pod) []string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return out
}
