//go:build bench

package restart

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// row is one line of bench/results/restart.json.
type row struct {
	Name     string  `json:"name"`
	Ours     float64 `json:"ours"`
	Peer     float64 `json:"peer"`
	PeerName string  `json:"peerName"`
	Unit     string  `json:"unit"`
	Ratio    float64 `json:"ratio"`
	Target   string  `json:"target"`
	Holds    bool    `json:"holds"`
}

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
	k := startKubelet(t, c)
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
	var rows []row
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
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Logf("%-60s %10.4g %s (%s) %v", r.Name, r.Ours, r.Unit, r.Target, r.Holds)
		if !r.Holds {
			t.Errorf("%s is %g %s, want %s", r.Name, r.Ours, r.Unit, r.Target)
		}
	}
}

// scale runs n agents: at rest first, then with offending workloads at once.
func scale(t *testing.T, c *cluster, k *kubelet, name string, n int, span time.Duration) []row {
	s := &stage{cluster: c, kubelet: k, name: name}
	c.Namespace(t, name)
	nodes := make([]string, n)
	for i := range nodes {
		nodes[i] = fmt.Sprintf("%s-n%d", name, i)
	}
	k.register(t, name, nodes...)
	const slots = 10
	workloads := min(n, 100)
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
	}
	defer func() { cancel(); running.Wait() }()
	apiserver.Eventually(t, 2*time.Minute, "an agent leads", func() bool { return s.leads(t, name) != "" })
	time.Sleep(20 * time.Second) // all have their watches; the span is what is measured

	before := requests.Load()
	began := time.Now()
	time.Sleep(span)
	atRest := float64(requests.Load()-before) / time.Since(began).Seconds() / float64(n)

	most := s.mostAtOnce(t, name)
	began = time.Now()
	before = requests.Load()
	var all sync.WaitGroup
	var mu sync.Mutex
	var first []time.Duration
	for i := range workloads {
		app := fmt.Sprintf("%s-web%d", name, i)
		for _, p := range s.pods(t, name, app) { // each agent that has a pod of it sees it leak
			all.Go(func() {
				asked := time.Now()
				o, err := agents[p.Spec.NodeName].Request(ctx, Request{
					Pod: Pod{Namespace: name, Name: p.Name, UID: string(p.UID)}, Reason: v1alpha1.ReasonDiskFill, Message: "it leaks",
				})
				if err != nil {
					t.Error(err)
				}
				if o.Kind == Created {
					mu.Lock()
					first = append(first, time.Since(asked))
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
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
	slices.Sort(first)
	slices.Sort(turns)
	if len(first) != workloads || len(turns) != workloads {
		t.Errorf("%d Restarts were made and %d templates stamped for %d workloads", len(first), len(turns), workloads)
	}
	storm := float64(requests.Load()-before) / float64(workloads)
	at := func(what string) string { return fmt.Sprintf("%d agents: %s", n, what) }
	return []row{
		bounded(at("requests per agent and second at rest"), atRest, 0.05, "1/s"),
		bounded(at(fmt.Sprintf("most restarts at once of %d asked for", workloads)), float64(most()), slots, ""),
		bounded(at("decision to first API write, median"), first[len(first)/2].Seconds(), 1, "s"),
		bounded(at("decision to first API write, longest of all at once"), first[len(first)-1].Seconds(), 0, "s"),
		bounded(at("decision to the first pod template stamped"), turns[0].Seconds(), 0, "s"),
		bounded(at(fmt.Sprintf("until all %d were restarted, %d at a time", workloads, slots)), took.Seconds(), 0, "s"),
		bounded(at("requests of all agents per restart, waiting for its turn included"), storm, 0, ""),
	}
}

// bounded is a row; without a bound it tells and promises nothing. No peer
// does this.
func bounded(name string, ours, bound float64, unit string) row {
	r := row{Name: name, Ours: ours, Unit: unit, Target: "told", Holds: true}
	if bound > 0 {
		r.Target, r.Ratio, r.Holds = fmt.Sprintf("<= %g", bound), ours/bound, ours <= bound
	}
	return r
}
