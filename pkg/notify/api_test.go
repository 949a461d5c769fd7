package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// stage is an API server. What agents write into Restarts the stories write.
type stage struct {
	*apiserver.Cluster
	agent *rest.Config
}

func TestOnAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("-short runs the pure tests alone")
	}
	s := &stage{Cluster: apiserver.Start(t, nil)}
	apiserver.StartKubelet(t, s.Cluster, "node-1")
	s.InstallAgent(t)
	s.agent = s.Agent(t, "node-1")
	for name, story := range map[string]func(*testing.T, *stage, string){
		"webhook":      storyWebhook,
		"slack":        storySlack,
		"mattermost":   storyMattermost,
		"routes":       storyRoutes,
		"trouble":      storyTrouble,
		"again":        storyAgain,
		"many":         storyMany,
		"alertmanager": storyAlertmanager,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.Namespace(t, name)
			story(t, s, name)
		})
	}
}

// told is a real HTTP receiver and what it was sent.
type told struct {
	*httptest.Server
	mu      sync.Mutex
	answers func(n int, w http.ResponseWriter, r *http.Request) // nil: 200
	bodies  [][]byte
	headers []http.Header
	paths   []string
}

func listen(t *testing.T, answers func(n int, w http.ResponseWriter, r *http.Request)) *told {
	t.Helper()
	got := &told{answers: answers}
	got.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.mu.Lock()
		got.bodies, got.headers, got.paths = append(got.bodies, body), append(got.headers, r.Header.Clone()), append(got.paths, r.URL.Path)
		n := len(got.bodies)
		got.mu.Unlock()
		if got.answers != nil {
			got.answers(n, w, r)
		}
	}))
	t.Cleanup(got.CloseClientConnections)
	t.Cleanup(got.Close)
	return got
}

func (g *told) all() [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.bodies)
}

// incidents are a webhook's messages about a namespace.
func (g *told) incidents(t *testing.T, ns string) []Incident {
	t.Helper()
	var all []Incident
	for _, body := range g.all() {
		var in Incident
		if err := json.Unmarshal(body, &in); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if in.Namespace == ns {
			all = append(all, in)
		}
	}
	return all
}

func stages(all []Incident) string {
	var words []string
	for _, in := range all {
		words = append(words, string(in.Stage))
	}
	return strings.Join(words, " ")
}

// notifier leads until stop is called or the test ends. All stories share a
// cluster, so each has receivers of its own names, and its namespace's
// annotation leads to them alone.
func (s *stage) notifier(t *testing.T, ns string, config v1alpha1.NotifyConfig) (n *Notifier, stop func()) {
	t.Helper()
	if config.Default == nil {
		var names []string
		for _, r := range config.Receivers {
			names = append(names, r.Name)
		}
		s.Kubectl("annotate", "--overwrite", "namespace", ns, v1alpha1.AnnotationNotify+"="+strings.Join(names, ","))
		config.Default = []string{v1alpha1.NobodyNotified}
	}
	n, err := New(s.agent, config, prometheus.NewRegistry(), apiserver.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { n.Lead(ctx) })
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return n, stop
}

func (s *stage) ask(t *testing.T, ns, name string) *v1alpha1.Restart {
	t.Helper()
	r, _, err := restart.Ask(t.Context(), s.Admin, restart.Wish{
		Namespace: ns, Target: v1alpha1.TargetReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name},
		Scope: v1alpha1.ScopeWorkload, Node: "node-3", Reason: v1alpha1.ReasonDiskFill,
		Message: "/app/logs/debug.log in " + name + "-7c9f grew 4.1 GiB in 10 min; node-3's disk is full in 22 min.",
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// goes writes a phase as an agent does, with what it has to be conditional on.
func (s *stage) goes(t *testing.T, r *v1alpha1.Restart, phase v1alpha1.Phase, message string) {
	t.Helper()
	apiserver.Eventually(t, time.Minute, "the status is written", func() bool {
		if s.Admin.Get(t.Context(), client.ObjectKeyFromObject(r), r) != nil {
			return false
		}
		now := metav1.Now()
		r.Status.Phase, r.Status.Message, r.Status.ObservedGeneration, r.Status.Holder = phase, message, r.Generation, "node-3"
		if r.Status.Started == nil || phase == v1alpha1.PhasePending {
			r.Status.Started, r.Status.Finished = &now, nil
		}
		if phase.Ended() {
			r.Status.Finished = &now
		}
		return s.Admin.Status().Update(t.Context(), r) == nil
	})
}

// untilTold waits until the object remembers that a receiver was told.
func (s *stage) untilTold(t *testing.T, r *v1alpha1.Restart, receiver string, stage v1alpha1.NotifyStage) {
	t.Helper()
	apiserver.Eventually(t, 60*time.Second, receiver+" is told "+string(stage), func() bool {
		now := s.Restart(t, r.Namespace, r.Name)
		record := now.Status.Notified[receiver]
		return record.Stage == stage && record.Generation == r.Generation
	})
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// One incident, told stage by stage, each once, signed.
func storyWebhook(t *testing.T, s *stage, ns string) {
	got := listen(t, nil)
	n, _ := s.notifier(t, ns, v1alpha1.NotifyConfig{
		Graph:     "https://graphs.example/d?ns={namespace}",
		Receivers: []v1alpha1.Receiver{{Name: ns, Kind: v1alpha1.ReceiverWebhook, URLFile: file(t, got.URL+"/in/s3cret"), KeyFile: file(t, "the key")}},
	})
	r := s.ask(t, ns, "checkout")
	s.untilTold(t, r, ns, v1alpha1.NotifySeen)
	s.goes(t, r, v1alpha1.PhasePending, "Taken up by node-3.")
	s.goes(t, r, v1alpha1.PhaseRunning, "1 of 3 pods are new.")
	s.untilTold(t, r, ns, v1alpha1.NotifyRestarting)
	s.goes(t, r, v1alpha1.PhaseVerifying, "The new pods are Ready.")
	s.goes(t, r, v1alpha1.PhaseSucceeded, "3 pods replaced in 41s, 4.1Gi freed on node-3.")
	s.untilTold(t, r, ns, v1alpha1.NotifyDone)
	all := got.incidents(t, ns)
	if stages(all) != "Seen Restarting Done" {
		t.Fatalf("told %s", stages(all))
	}
	last := all[2]
	if last.ID != ns+"/deployment-checkout#1" || !strings.Contains(last.Why, "/app/logs/debug.log") || last.Node != "node-3" ||
		last.Graph != "https://graphs.example/d?ns="+ns || last.Finished == nil || last.Message == "" || last.Workload != "checkout" {
		t.Errorf("%+v", last)
	}
	for i, h := range got.headers {
		if want := "sha256=" + sign("the key", h.Get(headerTimestamp), got.bodies[i]); h.Get(headerSignature) != want || got.paths[i] != "/in/s3cret" {
			t.Errorf("signature %q at %s, want %q", h.Get(headerSignature), got.paths[i], want)
		}
	}
	if v := testutil.ToFloat64(n.counter.WithLabelValues(ns, delivered)); v != 3 {
		t.Errorf("%v delivered, want 3", v)
	}
	// The next restart of the same workload is another incident.
	r = s.ask(t, ns, "checkout")
	s.untilTold(t, r, ns, v1alpha1.NotifySeen)
	if all = got.incidents(t, ns); all[3].ID != ns+"/deployment-checkout#2" || all[3].Finished != nil {
		t.Errorf("%+v", all[3])
	}
}

// Slack gets a thread for each incident, whichever agent goes on with it.
func storySlack(t *testing.T, s *stage, ns string) {
	got := listen(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"ok":true,"channel":"C0123456","ts":"1700000000.00000%d"}`, n)
	})
	config := v1alpha1.NotifyConfig{Receivers: []v1alpha1.Receiver{{Name: ns, Kind: v1alpha1.ReceiverChat,
		URLFile: file(t, "slack://xoxb:1234-5678-abcdef@C0123456?api="+got.URL+"/api/")}}}
	_, stop := s.notifier(t, ns, config)
	r := s.ask(t, ns, "checkout")
	s.untilTold(t, r, ns, v1alpha1.NotifySeen)
	stop()
	s.notifier(t, ns, config)
	s.goes(t, r, v1alpha1.PhaseRunning, "1 of 3 pods are new.")
	s.untilTold(t, r, ns, v1alpha1.NotifyRestarting)
	s.goes(t, r, v1alpha1.PhaseStalled, "Not complete after 10m.")
	s.untilTold(t, r, ns, v1alpha1.NotifyFailed)
	var threads, texts []string
	for i, body := range got.all() {
		var said struct{ Channel, Text, Thread_TS string }
		if err := json.Unmarshal(body, &said); err != nil {
			t.Fatal(err)
		}
		threads, texts = append(threads, said.Thread_TS), append(texts, said.Text)
		if said.Channel != "C0123456" || got.paths[i] != "/api/chat.postMessage" || got.headers[i].Get("Authorization") != "Bearer xoxb-1234-5678-abcdef" {
			t.Errorf("%s: %s, %v", got.paths[i], body, got.headers[i])
		}
	}
	if !slices.Equal(threads, []string{"", "1700000000.000001", "1700000000.000001"}) {
		t.Errorf("threads %q", threads)
	}
	if !strings.Contains(texts[0], "/app/logs/debug.log") || strings.Contains(texts[1], "debug.log") || !strings.Contains(texts[2], "Stalled: Not complete") {
		t.Errorf("texts %q", texts)
	}
}

// Any other chat service, here Mattermost's incoming webhook, through shoutrrr.
func storyMattermost(t *testing.T, s *stage, ns string) {
	got := listen(t, nil)
	s.notifier(t, ns, v1alpha1.NotifyConfig{Receivers: []v1alpha1.Receiver{{Name: ns, Kind: v1alpha1.ReceiverChat,
		URLFile: file(t, "mattermost://nodeagent@"+strings.TrimPrefix(got.URL, "http://")+"/t0ken?disabletls=yes")}}})
	r := s.ask(t, ns, "checkout")
	s.goes(t, r, v1alpha1.PhaseRefused, "The Deployment is paused.")
	s.untilTold(t, r, ns, v1alpha1.NotifyFailed)
	all := got.all()
	var message struct{ Text string }
	if err := json.Unmarshal(all[len(all)-1], &message); err != nil || !strings.Contains(message.Text, "Refused: The Deployment is paused.") ||
		!strings.Contains(message.Text, ns+"/deployment-checkout#1") || got.paths[0] != "/hooks/t0ken" {
		t.Errorf("%v %v: %s", err, got.paths, all[len(all)-1])
	}
}

// The workload's annotation, else the namespace's, else the default.
func storyRoutes(t *testing.T, s *stage, ns string) {
	a, b := listen(t, nil), listen(t, nil)
	s.Kubectl("annotate", "namespace", ns, v1alpha1.AnnotationNotify+"=a")
	s.notifier(t, ns, v1alpha1.NotifyConfig{Default: []string{v1alpha1.NobodyNotified}, Receivers: []v1alpha1.Receiver{
		{Name: "a", Kind: v1alpha1.ReceiverWebhook, URL: a.URL}, {Name: "b", Kind: v1alpha1.ReceiverWebhook, URL: b.URL},
	}})
	for name, annotation := range map[string]string{"one": "b", "both": "a, b", "nobody": "none"} {
		d := apiserver.Deployment(ns, name, 1)
		d.Annotations = map[string]string{v1alpha1.AnnotationNotify: annotation}
		s.Create(t, d)
	}
	for _, name := range []string{"nobody", "one", "both", "plain"} {
		s.ask(t, ns, name)
	}
	s.untilTold(t, s.Restart(t, ns, "deployment-plain"), "a", v1alpha1.NotifySeen)
	s.untilTold(t, s.Restart(t, ns, "deployment-both"), "a", v1alpha1.NotifySeen)
	s.untilTold(t, s.Restart(t, ns, "deployment-both"), "b", v1alpha1.NotifySeen)
	s.untilTold(t, s.Restart(t, ns, "deployment-one"), "b", v1alpha1.NotifySeen)
	workloads := func(g *told) (names []string) {
		for _, in := range g.incidents(t, ns) {
			names = append(names, in.Workload)
		}
		slices.Sort(names)
		return names
	}
	if got := workloads(a); !slices.Equal(got, []string{"both", "plain"}) {
		t.Errorf("a was told of %v", got)
	}
	if got := workloads(b); !slices.Equal(got, []string{"both", "one"}) {
		t.Errorf("b was told of %v", got)
	}
}

// One receiver hangs, one answers 500, one is away, one redirects, one has no
// Secret: the sixth is told at once, and the second when it is well again.
func storyTrouble(t *testing.T, s *stage, ns string) {
	hang := make(chan struct{})
	hung := listen(t, func(int, http.ResponseWriter, *http.Request) { <-hang })
	t.Cleanup(func() { close(hang) })
	sick := listen(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n < 3 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	away := listen(t, nil)
	away.Close()
	elsewhere := listen(t, nil)
	redirects := listen(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	well := listen(t, nil)
	hook := func(name, url string) v1alpha1.Receiver {
		return v1alpha1.Receiver{Name: name, Kind: v1alpha1.ReceiverWebhook, URL: url}
	}
	n, stop := s.notifier(t, ns, v1alpha1.NotifyConfig{Receivers: []v1alpha1.Receiver{
		hook("hung", hung.URL), hook("sick", sick.URL), hook("away", away.URL), hook("redirects", redirects.URL),
		{Name: "no-secret", Kind: v1alpha1.ReceiverChat, URLFile: "/nonexistent/url"}, hook("well", well.URL),
	}})
	r := s.ask(t, ns, "checkout")
	s.untilTold(t, r, "well", v1alpha1.NotifySeen)
	s.untilTold(t, r, "sick", v1alpha1.NotifySeen)
	for _, name := range []string{"away", "redirects", "no-secret"} {
		apiserver.Eventually(t, time.Minute, name+" is counted as failed", func() bool {
			return testutil.ToFloat64(n.counter.WithLabelValues(name, failed)) > 0
		})
	}
	began := time.Now()
	stop() // does not wait for the one that hangs
	if took := time.Since(began); took >= sendWithin {
		t.Errorf("it took %s to stop", took)
	}
	if len(elsewhere.all()) != 0 {
		t.Error("a redirect was followed")
	}
	if got := s.Restart(t, ns, r.Name).Status.Notified; len(got) != 2 {
		t.Errorf("remembered as told: %v", got)
	}
}

// What was told is not told again by the next agent; what was not is.
func storyAgain(t *testing.T, s *stage, ns string) {
	got := listen(t, nil)
	config := v1alpha1.NotifyConfig{Receivers: []v1alpha1.Receiver{{Name: ns, Kind: v1alpha1.ReceiverWebhook, URL: got.URL}}}
	_, stop := s.notifier(t, ns, config)
	first := s.ask(t, ns, "first")
	s.untilTold(t, first, ns, v1alpha1.NotifySeen)
	stop()
	s.goes(t, first, v1alpha1.PhasePending, "Taken up by node-3.")
	s.goes(t, first, v1alpha1.PhaseSucceeded, "3 pods replaced in 41s.")
	second := s.ask(t, ns, "second")
	_, stop = s.notifier(t, ns, config)
	s.untilTold(t, first, ns, v1alpha1.NotifyDone)
	s.untilTold(t, second, ns, v1alpha1.NotifySeen)
	stop()
	_, stop = s.notifier(t, ns, config)
	third := s.ask(t, ns, "third")
	s.untilTold(t, third, ns, v1alpha1.NotifySeen)
	stop()
	counts := map[string]int{}
	for _, in := range got.incidents(t, ns) {
		counts[in.Workload+" "+string(in.Stage)]++
	}
	want := map[string]int{"first Seen": 1, "first Done": 1, "second Seen": 1, "third Seen": 1}
	for what, n := range counts {
		if want[what] != n {
			t.Errorf("told %s %d times, want %d", what, n, want[what])
		}
	}
	if len(counts) != len(want) {
		t.Errorf("told %v, want %v", counts, want)
	}
}

// A storm is told at the rate that a chat service takes.
func storyMany(t *testing.T, s *stage, ns string) {
	got := listen(t, nil)
	for i := range 12 {
		s.ask(t, ns, fmt.Sprintf("w%d", i))
	}
	began := time.Now()
	s.notifier(t, ns, v1alpha1.NotifyConfig{Receivers: []v1alpha1.Receiver{{Name: ns, Kind: v1alpha1.ReceiverWebhook, URL: got.URL}}})
	apiserver.Eventually(t, time.Minute, "all are told", func() bool { return len(got.incidents(t, ns)) == 12 })
	if took := time.Since(began); took < (12-burst)*time.Second*9/10 {
		t.Errorf("12 messages in %s", took)
	}
}
