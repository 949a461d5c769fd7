package restart

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// badDay stands between the agents and the real API server and does what a bad
// day does: it answers 429 and 500, is slow, ends watches, and loses the
// answers to writes that were made.
type badDay struct {
	next          http.Handler
	mu            sync.Mutex
	reads, writes deck
	did           [5]atomic.Int64
}

// deck deals the numbers from 0 to 99, all of them before one comes again: of
// what happens to eight in a hundred there is some in every day, however few
// writes it has.
type deck struct {
	shuffle *rand.Rand
	left    []int
}

func (d *deck) deal() int {
	if len(d.left) == 0 {
		d.left = d.shuffle.Perm(100)
	}
	n := d.left[0]
	d.left = d.left[1:]
	return n
}

func (b *badDay) deal(method string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if method == http.MethodGet {
		return b.reads.deal()
	}
	return b.writes.deal()
}

const (
	didRefuse = iota
	didFail
	didLose
	didDelay
	didEndWatch
)

func (b *badDay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("watch") != "" {
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		defer cancel()
		b.did[didEndWatch].Add(1)
		b.next.ServeHTTP(w, r.WithContext(ctx))
		return
	}
	switch n := b.deal(r.Method); {
	case n < 8:
		b.did[didRefuse].Add(1)
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusTooManyRequests, "TooManyRequests")
	case n < 16:
		b.did[didFail].Add(1)
		answer(w, http.StatusInternalServerError, "InternalError")
	case n < 24 && r.Method != http.MethodGet:
		b.did[didLose].Add(1)
		b.next.ServeHTTP(httptest.NewRecorder(), r)
		answer(w, http.StatusInternalServerError, "InternalError")
	case n < 32:
		b.did[didDelay].Add(1)
		time.Sleep(time.Duration(n-20) * 200 * time.Millisecond)
		b.next.ServeHTTP(w, r)
	default:
		b.next.ServeHTTP(w, r)
	}
}

func answer(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"a bad day"}`, reason, code)
}

// badAPI is a way to the API server on a bad day.
func (c *cluster) badAPI(t *testing.T, seed uint64) (*badDay, *rest.Config) {
	t.Helper()
	to, err := url.Parse(c.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		FlushInterval: -1,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	b := &badDay{next: proxy, reads: deck{shuffle: rand.New(rand.NewPCG(seed, 0))}, writes: deck{shuffle: rand.New(rand.NewPCG(seed, 1))}}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	config := rest.CopyConfig(c.Config)
	config.Host, config.TLSClientConfig = server.URL, rest.TLSClientConfig{}
	return b, config
}

// storyBadAPI: two agents, each with a bad day of its own, and etcd is
// compacted under them. All ends in the right state, once.
func storyBadAPI(t *testing.T, s *stage, ns string) {
	const workloads = 5
	var all []*appsv1.Deployment
	for i := range workloads {
		all = append(all, s.deployment(t, ns, fmt.Sprintf("web%d", i)))
	}
	var days []*badDay
	for i, node := range []string{s.nodeA, s.nodeB} {
		day, config := s.cluster.badAPI(t, uint64(i+1))
		days = append(days, day)
		a := s.quickAgent(t, config, Options{Node: node})
		a.run(t)
		for _, d := range all {
			pod := s.podOn(t, ns, d.Name, node)
			apiserver.Eventually(t, 120*time.Second, "it can be asked for", func() bool {
				_, err := a.requester.Request(t.Context(), Request{
					Pod: Pod{Namespace: ns, Name: pod.Name, UID: string(pod.UID)}, Reason: v1alpha1.ReasonDiskFill,
				})
				return err == nil
			})
		}
		s.cluster.compact(t)
	}
	for _, d := range all {
		r := s.ended(t, ns, "deployment-"+d.Name)
		wantPhase(t, r, v1alpha1.PhaseSucceeded, "3 pods replaced")
		if len(r.Status.History) != 1 {
			t.Errorf("history %+v, want one restart", r.Status.History)
		}
		s.wantOneRollout(t, d)
	}
	for i, what := range []string{"refused", "failed", "lost", "delayed", "ended a watch"} {
		n := days[0].did[i].Load() + days[1].did[i].Load()
		t.Logf("%s %d times", what, n)
		if n == 0 {
			t.Errorf("the bad day never %s", what)
		}
	}
}

// compact drops etcd's history up to now, so that no watch can go on from
// before.
func (c *cluster) compact(t *testing.T) {
	t.Helper()
	var all corev1.NamespaceList
	if err := c.Admin.List(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"revision":%q,"physical":true}`, all.ResourceVersion)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Etcd()+"/v3/kv/compaction", bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if said, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		t.Fatalf("etcd was not compacted: %s", said)
	}
}
