//go:build bench

package restart

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	bench "github.com/nodeagent/nodeagent/bench/report"
	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// counter sees every request of every agent, and when a write was sent.
type counter struct {
	next     http.RoundTripper
	requests *atomic.Int64
	writes   *sync.Map // METHOD name → time of the first
}

func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	if r.Method != http.MethodGet {
		path := strings.Split(strings.TrimSuffix(r.URL.Path, "/status"), "/")
		c.writes.LoadOrStore(r.Method+" "+path[len(path)-1], time.Now())
	}
	return c.next.RoundTrip(r)
}

// TestScale is `make bench-restart`: the agents' real code, one process, the
// real API server.
func TestScale(t *testing.T) {
	c := startCluster(t)
	k := apiserver.StartKubelet(t, c.Cluster)
	out := os.Getenv("NODEAGENT_BENCH_OUT")
	if out == "" {
		t.Fatal("NODEAGENT_BENCH_OUT names no file for the results")
	}
	rest := 10*time.Minute + 30*time.Second // longer than it takes until all is listed again
	if text := os.Getenv("NODEAGENT_BENCH_REST"); text != "" {
		var err error
		if rest, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	sizes := []int{10, 100, 1000}
	if text := os.Getenv("NODEAGENT_BENCH_AGENTS"); text != "" { // a quick look: 10
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		sizes = []int{n}
	}
	var rows []bench.Row
	for _, n := range sizes {
		name := fmt.Sprintf("scale-%d", n)
		span := min(time.Minute, rest)
		if n == 1000 {
			span = rest
		}
		t.Run(name, func(t *testing.T) {
			rows = append(rows, scale(t, c, k, name, n, span)...)
		})
	}
	t.Log("\n" + bench.Table(rows))
	if err := bench.Write(out, rows); err != nil {
		t.Fatal(err)
	}
	if readme := os.Getenv("NODEAGENT_BENCH_README"); readme != "" {
		measured := fmt.Sprintf("Measured %s on %d cores.\n\n", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU())
		if err := bench.Insert(readme, "bench/restart", measured+bench.Table(rows)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range rows {
		if !r.Holds {
			t.Errorf("%s is %g %s, want %s", r.Name, r.Ours, r.Unit, r.Target)
		}
	}
}

// scale runs n agents: at rest first, then with offending workloads at once.
func scale(t *testing.T, c *cluster, k *apiserver.Kubelet, name string, n int, span time.Duration) []bench.Row {
	s := &stage{cluster: c, kubelet: k, name: name}
	c.Namespace(t, name)
	nodes := make([]string, n)
	for i := range nodes {
		nodes[i] = fmt.Sprintf("%s-n%d", name, i)
	}
	k.Register(t, name, nodes...)
	const slots = 10
	workloads := min(n, 100)
	s.deployment(t, name, name+"-alone")
	var made sync.WaitGroup
	for hand := range 10 {
		made.Go(func() {
			for i := hand; i < workloads; i += 10 {
				s.deployment(t, name, fmt.Sprintf("%s-web%d", name, i))
			}
		})
	}
	made.Wait()

	var requests atomic.Int64
	var writes sync.Map
	config := rest.CopyConfig(c.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counter{next, &requests, &writes} })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	agents := map[string]*Requester{}
	log := slog.New(slog.DiscardHandler)
	for _, node := range nodes {
		cl, err := NewClient(config, log)
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Node: node, Namespace: name, Limits: Limits{slots, slots, 1000}}
		events := NewEvents(cl, node, time.Now, log)
		agents[node] = NewRequester(cl, o, events, log)
		controller := NewController(cl, o, k, events, NewMetrics(prometheus.NewRegistry()), log)
		controller.guarded = name
		running.Go(func() { _ = controller.Run(ctx) })
		running.Go(func() { watchPods(ctx, cl, node) })
	}
	defer func() { cancel(); running.Wait() }()
	apiserver.Eventually(t, 2*time.Minute, "an agent leads", func() bool { return s.leads(t, name) != "" })
	time.Sleep(20 * time.Second) // all have their watches; the span is what is measured

	before := requests.Load()
	began := time.Now()
	time.Sleep(span)
	atRest := float64(requests.Load()-before) / time.Since(began).Seconds() / float64(n)

	most := s.mostAtOnce(t, name)
	alone := leak(t, s, agents, name+"-alone")
	began = time.Now()
	before = requests.Load()
	var apps []string
	for i := range workloads {
		apps = append(apps, fmt.Sprintf("%s-web%d", name, i))
	}
	first := leak(t, s, agents, apps...)
	var turns []time.Duration
	for i := range workloads {
		app := fmt.Sprintf("%s-web%d", name, i)
		apiserver.Eventually(t, 10*time.Minute, app+" is restarted", func() bool {
			r := s.restart(t, name, "deployment-"+app)
			return !active(r) && r.Status.Phase == v1alpha1.PhaseSucceeded && len(r.Status.History) == 1
		})
		if at, ok := writes.Load(http.MethodPatch + " " + app); ok {
			turns = append(turns, at.(time.Time).Sub(began))
		}
	}
	took := time.Since(began)
	slices.Sort(turns)
	if len(alone) != 1 {
		t.Fatalf("%d Restarts were made for one workload", len(alone))
	}
	if len(first) != workloads || len(turns) != workloads {
		t.Errorf("%d Restarts were made and %d templates stamped for %d workloads", len(first), len(turns), workloads)
	}
	storm := float64(requests.Load()-before) / float64(workloads)
	at := func(what string) string { return fmt.Sprintf("%d agents: %s", n, what) }
	seconds := func(what string, d time.Duration) bench.Row { return bench.Alone(at(what), "s", d.Seconds()) }
	burst := fmt.Sprintf("decision to first API write, %d at once, ", workloads)
	return []bench.Row{
		bench.Alone(at("requests per agent and second at rest"), "1/s", atRest).AtMost(0.05),
		bench.Alone(at(fmt.Sprintf("most restarts at once of %d asked for", workloads)), "", float64(most())).AtMost(slots),
		seconds("decision to first API write, one by itself", alone[0]).AtMost(1),
		seconds(burst+"median", first[len(first)/2]).AtMost(1),
		seconds(burst+"19 of 20", first[(len(first)*19+19)/20-1]),
		seconds(burst+"longest", first[len(first)-1]),
		seconds("decision to the first pod template stamped", turns[0]),
		seconds(fmt.Sprintf("until all %d were restarted, %d at a time", workloads, slots), took),
		bench.Alone(at("requests of all agents per restart, waiting for its turn included"), "", storm),
	}
}

// leak has the agent of each pod of the workloads see it leak, all at once, and
// gives how long it took those that made a Restart of it, from the decision until
// the API server had taken the write. The shortest is the first.
func leak(t *testing.T, s *stage, agents map[string]*Requester, apps ...string) (took []time.Duration) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, app := range apps {
		for _, p := range s.pods(t, s.name, app) {
			all.Go(func() {
				asked := time.Now()
				o, err := agents[p.Spec.NodeName].Request(t.Context(), Request{
					Pod: Pod{Namespace: s.name, Name: p.Name, UID: string(p.UID)}, Reason: v1alpha1.ReasonDiskFill, Message: "it leaks",
				})
				if err != nil {
					t.Error(err)
				}
				if o.Kind == Created {
					mu.Lock()
					took = append(took, time.Since(asked))
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	slices.Sort(took)
	return took
}

// watchPods is the watch that each agent has of its node's pods besides
// (nodePods of the command).
func watchPods(ctx context.Context, c client.WithWatch, node string) {
	onNode := client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("spec.nodeName", node)}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (kruntime.Object, error) {
			list := &corev1.PodList{}
			return list, c.List(ctx, list, &client.ListOptions{Raw: &o}, onNode)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.Watch(ctx, &corev1.PodList{}, &client.ListOptions{Raw: &o}, onNode)
		},
	}
	cache.NewSharedIndexInformer(lw, &corev1.Pod{}, 0, cache.Indexers{}).RunWithContext(ctx)
}
