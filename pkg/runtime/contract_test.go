package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"
)

// patience bounds every wait for a condition; shared machines can be slow.
const patience = time.Minute

// TestContract is what this package promises, held against real daemons: the
// newest containerd and the oldest one that is supported.
func TestContract(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: unit tests alone, no daemons")
	}
	image := buildImage(t)
	for _, version := range []struct{ name, variable, prefix string }{
		{"containerd-2", "NODEAGENT_TEST_CONTAINERD_2", "v2."},
		{"containerd-1.6", "NODEAGENT_TEST_CONTAINERD_1_6", "1.6."},
	} {
		t.Run(version.name, func(t *testing.T) {
			bin := binaries(t, version.variable)
			for _, promise := range []struct {
				name string
				test func(t *testing.T, l *lab)
			}{
				{"lists what is there", testListsWhatIsThere},
				{"follows a container's life", testFollowsLife},
				{"upper is where the writes are", testUpperHoldsTheWrites},
				{"tells the host's folders that are bound in", testBindMounts},
				{"keeps the set while containerd is dead", testKeepsTheSetWhileDead},
				{"keeps the set while containerd hangs", testKeepsTheSetWhileHung},
				{"waits for a containerd that is not there yet", testWaitsForContainerd},
				{"ends with the truth after a churn", testChurn},
				{"tells what else the snapshotter keeps", testStorage},
				{"tells that a layer was removed under its container", testLayerRemoved},
				{"checks once", func(t *testing.T, l *lab) { testCheck(t, l, version.prefix) }},
			} {
				t.Run(promise.name, func(t *testing.T) {
					promise.test(t, &lab{daemon: newContainerd(t, bin), image: image})
				})
			}
		})
	}
}

// lab is one daemon with what a test does to it.
type lab struct {
	daemon *containerd
	image  []byte
	client *client.Client
}

// up starts the daemon on its ordinary socket.
func (l *lab) up(t *testing.T) { l.upAt(t, l.daemon.socket) }

func (l *lab) upAt(t *testing.T, socket string) {
	t.Helper()
	l.daemon.start(t, socket)
	c, err := client.New(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	l.client = c
}

// watch runs a Watcher until the test ends.
func (l *lab) watch(t *testing.T, change func(*Config)) *Watcher {
	t.Helper()
	config := Config{Socket: l.daemon.socket, Namespaces: []string{"k8s.io", "default", "absent"}}
	change(&config)
	w, err := NewWatcher(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil after its context ended", err)
		}
		if w.Containers().Connected {
			t.Error("still Connected after Run ended")
		}
	})
	return w
}

func defaults(*Config) {}

// await returns the first Snapshot for which the condition holds.
func await(t *testing.T, w *Watcher, what string, holds func(Snapshot) bool) Snapshot {
	t.Helper()
	deadline := time.After(patience)
	for {
		changed := w.Changed()
		s := w.Containers()
		if holds(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited %s for: %s; have %+v", patience, what, s)
		}
	}
}

func find(s Snapshot, id string) (Container, bool) {
	i := slices.IndexFunc(s.Containers, func(c Container) bool { return c.ID == id })
	if i < 0 {
		return Container{}, false
	}
	return s.Containers[i], true
}

func has(ids ...string) func(Snapshot) bool {
	return func(s Snapshot) bool { return s.Connected && slices.Equal(idsOf(s), ids) }
}

func idsOf(s Snapshot) []string {
	ids := []string{}
	for _, c := range s.Containers {
		ids = append(ids, c.ID)
	}
	slices.Sort(ids)
	return ids
}

// create makes a container of the test image that runs the given arguments.
func (l *lab) create(t *testing.T, namespace, id, snapshotter string, args []string, options ...oci.SpecOpts) client.Container {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), namespace)
	image := load(ctx, t, l.client, l.image, snapshotter)
	options = append([]oci.SpecOpts{oci.WithImageConfig(image), oci.WithProcessArgs(append([]string{"/writer"}, args...)...)}, options...)
	c, err := l.client.NewContainer(ctx, id,
		client.WithImage(image),
		client.WithSnapshotter(snapshotter),
		client.WithNewSnapshot(id+"-layer", image),
		client.WithContainerLabels(podLabels(id)),
		client.WithNewSpec(options...))
	if err != nil {
		t.Fatalf("cannot create container %s: %v", id, err)
	}
	return c
}

func podLabels(id string) map[string]string {
	return map[string]string{
		labelKind: "container", labelPodNamespace: "shop", labelPodName: "web-" + id,
		labelPodUID: "uid-" + id, labelContainerName: "app",
	}
}

func startTask(t *testing.T, namespace string, c client.Container) (client.Task, <-chan client.ExitStatus) {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), namespace)
	task, err := c.NewTask(ctx, cio.NullIO)
	if err != nil {
		t.Fatalf("cannot make a task of %s: %v", c.ID(), err)
	}
	ended, err := task.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(ctx); err != nil {
		t.Fatalf("cannot start the task of %s: %v", c.ID(), err)
	}
	return task, ended
}

func ended(t *testing.T, status <-chan client.ExitStatus) client.ExitStatus {
	t.Helper()
	select {
	case s := <-status:
		return s
	case <-time.After(patience):
		t.Fatal("the task does not end")
		return client.ExitStatus{}
	}
}

func remove(t *testing.T, namespace string, c client.Container) {
	t.Helper()
	if err := c.Delete(namespaces.WithNamespace(t.Context(), namespace), client.WithSnapshotCleanup); err != nil {
		t.Fatalf("cannot delete container %s: %v", c.ID(), err)
	}
}

func testListsWhatIsThere(t *testing.T, l *lab) {
	l.up(t)
	l.create(t, "k8s.io", "b", "overlayfs", []string{"x"})
	l.create(t, "k8s.io", "a", "overlayfs", []string{"x"})
	l.create(t, "default", "c", "native", []string{"x"})
	l.create(t, "elsewhere", "d", "overlayfs", []string{"x"})

	w := l.watch(t, defaults)
	s := await(t, w, "a, b and c, and not d", has("a", "b", "c"))
	if s.Confirmed.IsZero() || time.Since(s.Confirmed) > patience {
		t.Errorf("Confirmed = %v, want a moment ago", s.Confirmed)
	}
	var order []string
	for _, c := range s.Containers {
		order = append(order, c.Namespace+"/"+c.ID)
	}
	if want := []string{"default/c", "k8s.io/a", "k8s.io/b"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	a, c := s.Containers[1], s.Containers[0]
	if want := (Pod{"shop", "web-a", "uid-a"}); a.Pod != want || a.Name != "app" || a.Sandbox {
		t.Errorf("pod %+v, name %q, sandbox %t; want %+v, app, false", a.Pod, a.Name, a.Sandbox, want)
	}
	if c.Pod != (Pod{}) || c.Name != "" {
		t.Errorf("a container outside k8s.io was taken for one of pod %+v because its labels say so", c.Pod)
	}
	if a.Image != imageName || a.PID != 0 || time.Since(a.Created) > patience {
		t.Errorf("image %q, pid %d, created %v", a.Image, a.PID, a.Created)
	}
	if a.Layer.Snapshotter != "overlayfs" || a.Layer.Key != "a-layer" || a.Layer.Upper == "" {
		t.Errorf("layer %+v", a.Layer)
	}
	if c.Layer.Upper != "" || !filepath.IsAbs(c.Layer.Source) || c.Layer.Key != "c-layer" {
		t.Errorf("native layer %+v: its folder holds the image, so it has no Upper", c.Layer)
	}
	if got := testutil.ToFloat64(w.metrics.containers.WithLabelValues("k8s.io")); got != 2 {
		t.Errorf("nodeagent_runtime_containers{k8s.io} = %v, want 2", got)
	}
	for _, call := range calls() {
		if got := testutil.ToFloat64(w.metrics.failures.WithLabelValues(call)); got != 0 {
			t.Errorf("nodeagent_runtime_failures_total{%s} = %v, want 0", call, got)
		}
	}
}

func testFollowsLife(t *testing.T, l *lab) {
	l.up(t)
	w := l.watch(t, func(c *Config) { c.Relist = time.Hour }) // by events alone
	await(t, w, "an empty list", has())

	c := l.create(t, "k8s.io", "a", "overlayfs", []string{"x", "stay"})
	await(t, w, "the container", has("a"))

	task, exit := startTask(t, "k8s.io", c)
	s := await(t, w, "its pid", func(s Snapshot) bool {
		c, _ := find(s, "a")
		return c.PID == int(task.Pid())
	})
	seen, _ := find(s, "a")
	cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", seen.PID))
	if err != nil {
		t.Fatal(err)
	}
	if seen.Cgroup == "" || !strings.Contains(string(cgroups), ":"+seen.Cgroup+"\n") {
		t.Errorf("cgroup %q; the kernel says\n%s", seen.Cgroup, cgroups)
	}

	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	// Not SIGTERM: the first process of a pid namespace ignores what it has
	// not asked for yet.
	if err := task.Kill(ctx, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended(t, exit)
	// Ended, but not deleted: containerd still shows its number.
	await(t, w, "no pid any more", func(s Snapshot) bool {
		c, ok := find(s, "a")
		return ok && c.PID == 0
	})
	if _, err := task.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	remove(t, "k8s.io", c)
	await(t, w, "the container's end", has())
}

func testUpperHoldsTheWrites(t *testing.T, l *lab) {
	l.up(t)
	w := l.watch(t, defaults)
	c := l.create(t, "k8s.io", "a", "overlayfs", []string{"mark"})
	task, exit := startTask(t, "k8s.io", c)
	if status := ended(t, exit); status.ExitCode() != 0 {
		t.Fatalf("the writer ended with %d", status.ExitCode())
	}
	s := await(t, w, "the container", has("a"))
	upper := s.Containers[0].Layer.Upper
	if got, err := os.ReadFile(filepath.Join(upper, "written")); err != nil || string(got) != "mark" {
		t.Errorf("in the upper folder %q: %q, %v; want what the container wrote", upper, got, err)
	}
	if _, err := os.Lstat(filepath.Join(upper, "writer")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the upper folder %q holds a file of the image (%v)", upper, err)
	}
	if _, err := task.Delete(namespaces.WithNamespace(t.Context(), "k8s.io")); err != nil {
		t.Fatal(err)
	}
}

func testBindMounts(t *testing.T, l *lab) {
	l.up(t)
	folder := t.TempDir()
	l.create(t, "k8s.io", "a", "overlayfs", []string{"x"}, oci.WithMounts([]specs.Mount{
		{Destination: "/data", Type: "bind", Source: folder, Options: []string{"rbind", "rw"}},
	}))
	s := await(t, l.watch(t, defaults), "the container", has("a"))
	if got, want := s.Containers[0].Mounts, []Mount{{"/data", folder}}; !slices.Equal(got, want) {
		t.Errorf("mounts %+v, want %+v", got, want)
	}
}

func testKeepsTheSetWhileDead(t *testing.T, l *lab) {
	l.up(t)
	kept := l.create(t, "k8s.io", "kept", "overlayfs", []string{"x", "stay"})
	task, _ := startTask(t, "k8s.io", kept)
	l.create(t, "k8s.io", "lost", "overlayfs", []string{"x"})
	w := l.watch(t, func(c *Config) { c.Relist = time.Hour })
	before := await(t, w, "both", func(s Snapshot) bool {
		c, _ := find(s, "kept")
		return has("kept", "lost")(s) && c.PID != 0
	})

	l.daemon.stop(syscall.SIGKILL)
	after := await(t, w, "that containerd is away", func(s Snapshot) bool { return !s.Connected })
	if !slices.EqualFunc(after.Containers, before.Containers, Container.Equal) {
		t.Errorf("with containerd dead the set is\n%+v, want as before\n%+v", after.Containers, before.Containers)
	}
	if after.Confirmed.Before(before.Confirmed) || time.Since(after.Confirmed) < 0 {
		t.Errorf("Confirmed went from %v to %v", before.Confirmed, after.Confirmed)
	}
	if got := testutil.ToFloat64(w.metrics.connected); got != 0 {
		t.Errorf("nodeagent_runtime_connected = %v, want 0", got)
	}
	if got := testutil.ToFloat64(w.metrics.containers.WithLabelValues("k8s.io")); got != 2 {
		t.Errorf("nodeagent_runtime_containers = %v, want 2: never a zero that is none", got)
	}

	// Behind the watcher's back: the same daemon, for a while on another socket.
	l.upAt(t, l.daemon.socket+".hidden")
	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	lost, err := l.client.LoadContainer(ctx, "lost")
	if err != nil {
		t.Fatal(err)
	}
	remove(t, "k8s.io", lost)
	l.create(t, "k8s.io", "new", "overlayfs", []string{"x"})
	l.daemon.stop(syscall.SIGTERM)
	if got := idsOf(w.Containers()); !slices.Equal(got, []string{"kept", "lost"}) {
		t.Errorf("the watcher sees %v through a socket that is not there", got)
	}

	l.up(t)
	s := await(t, w, "what happened meanwhile", has("kept", "new"))
	if c, _ := find(s, "kept"); c.PID != int(task.Pid()) {
		t.Errorf("pid %d after the restart, want %d: the task lived on", c.PID, task.Pid())
	}
	if !s.Confirmed.After(before.Confirmed) {
		t.Errorf("Confirmed is still %v", s.Confirmed)
	}
}

func testKeepsTheSetWhileHung(t *testing.T, l *lab) {
	l.up(t)
	l.create(t, "k8s.io", "a", "overlayfs", []string{"x"})
	w := l.watch(t, func(c *Config) { c.Relist, c.Timeout = 100*time.Millisecond, time.Second })
	await(t, w, "the container", has("a"))
	if err := l.daemon.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s := await(t, w, "that containerd hangs", func(s Snapshot) bool { return !s.Connected })
	if got := idsOf(s); !slices.Equal(got, []string{"a"}) {
		t.Errorf("with containerd hung the set is %v", got)
	}
	if err := l.daemon.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, w, "containerd back", has("a"))
}

// messages hands on what is logged, so that a test can wait for it.
type messages struct {
	slog.Handler
	texts chan string
}

func (m messages) Handle(_ context.Context, r slog.Record) error {
	select {
	case m.texts <- r.Message:
	default:
	}
	return nil
}

func (m messages) Enabled(context.Context, slog.Level) bool { return true }

func testWaitsForContainerd(t *testing.T, l *lab) {
	log := messages{slog.DiscardHandler, make(chan string, 64)}
	w := l.watch(t, func(c *Config) { c.Logger = slog.New(log) })
	for range 2 { // it says so, and it tries again
		select {
		case text := <-log.texts:
			if !strings.Contains(text, "containerd is away") {
				t.Errorf("logged %q", text)
			}
		case <-time.After(patience):
			t.Fatal("nothing was logged")
		}
	}
	if s := w.Containers(); s.Connected || !s.Confirmed.IsZero() {
		t.Errorf("without a containerd: %+v", s)
	}
	if got := testutil.ToFloat64(w.metrics.failures.WithLabelValues(callConnect)); got < 2 {
		t.Errorf("nodeagent_runtime_failures_total{connect} = %v, want 2 or more", got)
	}
	if got := testutil.CollectAndCount(w.metrics.containers); got != 0 {
		t.Errorf("%d series of nodeagent_runtime_containers before anything was listed", got)
	}
	l.up(t)
	await(t, w, "containerd", has())
	l.create(t, "k8s.io", "a", "overlayfs", []string{"x"})
	await(t, w, "the container", has("a"))
}

func testChurn(t *testing.T, l *lab) {
	const containers, hands = 200, 4
	l.up(t)
	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	image := load(ctx, t, l.client, l.image, "overlayfs")
	w := l.watch(t, func(c *Config) { c.Relist = time.Hour })
	await(t, w, "an empty list", has())

	var group errgroup.Group
	group.SetLimit(hands)
	for i := range containers {
		group.Go(func() error {
			id := fmt.Sprintf("c%03d", i)
			c, err := l.client.NewContainer(ctx, id, client.WithImage(image), client.WithSnapshotter("overlayfs"),
				client.WithNewSnapshot(id, image), client.WithNewSpec())
			if err != nil || i%10 == 0 {
				return err // one in ten stays
			}
			return c.Delete(ctx, client.WithSnapshotCleanup)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	// containerd's own list is the truth.
	left, err := l.client.Containers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var truth []string
	for _, c := range left {
		truth = append(truth, c.ID())
	}
	slices.Sort(truth)
	if len(truth) != containers/10 {
		t.Fatalf("%d containers are left, want %d", len(truth), containers/10)
	}
	s := await(t, w, "the truth", has(truth...))
	for _, c := range s.Containers {
		if c.Layer.Upper == "" {
			t.Errorf("container %s has no upper folder", c.ID)
		}
	}
	for _, call := range calls() {
		if got := testutil.ToFloat64(w.metrics.failures.WithLabelValues(call)); got != 0 {
			t.Errorf("nodeagent_runtime_failures_total{%s} = %v: a container that went is no failure", call, got)
		}
	}
}

func testCheck(t *testing.T, l *lab, prefix string) {
	config := Config{Socket: l.daemon.socket, Namespaces: []string{"k8s.io", "default", "absent"}}
	if _, err := Check(t.Context(), config); err == nil || !strings.Contains(err.Error(), l.daemon.socket) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without a containerd: %v; want an error that names the socket and what is wrong with it", err)
	}
	l.up(t)
	l.create(t, "k8s.io", "a", "overlayfs", []string{"x"})
	l.create(t, "default", "b", "native", []string{"x"})
	got, err := Check(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.Version, prefix) || got.Containers != 2 || !slices.Equal(got.Snapshotters, []string{"native", "overlayfs"}) {
		t.Errorf("Check = %+v, want version %s, 2 containers, native and overlayfs", got, prefix)
	}
	if root := got.Roots["overlayfs"]; !strings.HasSuffix(root, "/io.containerd.snapshotter.v1.overlayfs") {
		t.Errorf("overlayfs keeps its layers in %q", root)
	}
}
