package restart

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// counted counts what is asked of the API, and may be cut off from it.
type counted struct {
	client.Reader
	asked int
	away  bool
}

func (c *counted) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	c.asked++
	if c.away {
		return errors.New("connection refused")
	}
	return c.Reader.Get(ctx, key, o, opts...)
}

// storyOwners: the owner of a pod in danger is asked for once and told as long
// as the pod is there; of no other pod anything is asked.
func storyOwners(t *testing.T, s *stage, ns string) {
	s.deployment(t, ns, "web")
	pods := s.pods(t, ns, "web")
	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "alone"}, Spec: podTemplate().Spec}
	s.cluster.Create(t, bare)
	podOf := func(p *corev1.Pod) Pod { return Pod{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID)} }
	web, alone := podOf(&pods[0]), podOf(bare)

	api := &counted{Reader: s.cluster.Admin}
	reg := prometheus.NewRegistry()
	o := NewOwners(api, reg, slog.New(slog.DiscardHandler))
	there := map[Pod]bool{web: true, alone: true}
	now := time.Now()
	update := func(after time.Duration, danger ...Pod) {
		o.Update(t.Context(), danger, func(p Pod) bool { return there[p] }, now.Add(after))
	}
	tells := func(what string, asked int, lines ...string) {
		t.Helper()
		want := ""
		if len(lines) > 0 {
			want = "# HELP nodeagent_pod_owner_info " + APIMetricTable()[ownerInfo].Help + "\n# TYPE nodeagent_pod_owner_info gauge\n" + strings.Join(lines, "\n") + "\n"
		}
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "nodeagent_pod_owner_info"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if api.asked != asked {
			t.Errorf("%s: the API was asked %d times, want %d", what, api.asked, asked)
		}
	}
	line := func(p Pod, kind, name string) string {
		return `nodeagent_pod_owner_info{namespace="` + ns + `",owner="` + name + `",owner_kind="` + kind + `",pod="` + p.Name + `",uid="` + p.UID + `"} 1`
	}

	update(0)
	tells("nobody is in danger", 0)
	api.away = true
	update(0, web)
	tells("the API is away", 1)
	update(10*time.Second, web)
	tells("it is not asked again at once", 1)
	api.away = false
	update(ownersRetry, web)
	tells("a pod and its ReplicaSet are asked for", 3, line(web, KindDeployment, "web"))
	update(time.Hour, web)
	update(time.Hour)
	tells("it is asked for once, and told on", 3, line(web, KindDeployment, "web"))
	update(time.Hour, alone, web)
	tells("a pod without owner is its own", 4, line(alone, KindPod, "alone"), line(web, KindDeployment, "web"))
	update(time.Hour, Pod{Namespace: ns, Name: web.Name, UID: "another"}, Pod{})
	tells("another of the same name is not there", 5, line(alone, KindPod, "alone"), line(web, KindDeployment, "web"))
	delete(there, web)
	update(time.Hour, alone)
	tells("it goes with the pod", 5, line(alone, KindPod, "alone"))
}

func TestReached(t *testing.T) {
	reg := prometheus.NewRegistry()
	o := NewOwners(nil, reg, slog.New(slog.DiscardHandler))
	for _, want := range []string{"", "0", "1", "0"} {
		if want != "" {
			o.Reached(want == "1")
			want = "# HELP nodeagent_api_reachable " + APIMetricTable()[apiReachable].Help + "\n# TYPE nodeagent_api_reachable gauge\nnodeagent_api_reachable " + want + "\n"
		}
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "nodeagent_api_reachable"); err != nil {
			t.Error(err)
		}
	}
}
