package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/test/cluster"
	"github.com/nodeagent/nodeagent/test/freeport"
)

// A leak becomes an alert in a real Alertmanager, sent there by a real
// Prometheus that found the agents as the docs say and reads the rules as they
// are. The alert names namespace, pod, container and owner, and resolves when
// the restart has ended the leak.
func TestAlert(t *testing.T) {
	s := newStory(t)
	told := s.startReceiver()
	alertmanager := s.startAlertmanager(told.server.URL)
	prometheus := s.startPrometheus(alertmanager)
	s.scrapesEveryAgent(prometheus)

	web := cluster.Deployment(s.namespace, "web", 2)
	web.Spec.MinReadySeconds = 20 // it fires for long enough to be looked at
	s.create(web)
	old := s.untilReady("web", 2)
	seen := s.leak(&old[0])
	mine := func(a alert) bool {
		return a.Labels["alertname"] == "NodeagentOffender" && a.Labels["namespace"] == s.namespace && a.Labels["owner"] == "web"
	}
	firing := told.until(s, "firing", mine)
	for label, want := range map[string]string{
		"pod": old[0].Name, "container": "app", "owner_kind": "Deployment", "owner": "web",
		"node": old[0].Spec.NodeName, "uid": string(old[0].UID), "severity": "warning",
	} {
		if got := firing.Labels[label]; got != want {
			t.Errorf("the alert's label %s is %q, want %q", label, got, want)
		}
	}
	summary := fmt.Sprintf("The container app of pod %s/%s (Deployment web) on node %s fills the disk.", s.namespace, old[0].Name, old[0].Spec.NodeName)
	if got := firing.Annotations["summary"]; got != summary {
		t.Errorf("the alert says %q, want %q", got, summary)
	}
	s.atAlertmanager(alertmanager, firing)

	r := s.succeeded(seen, old)
	s.goneFromAlertmanager(alertmanager, firing)
	if r.Status.Started == nil {
		t.Fatalf("the Restart does not tell when it was started: %+v", r.Status)
	}
	// One of before would be of an alert that came and went by itself.
	resolved := told.until(s, "resolved", func(a alert) bool {
		return mine(a) && a.Labels["uid"] == firing.Labels["uid"] && a.EndsAt.After(r.Status.Started.Time)
	})
	s.t.Logf("%s: fired %s, resolved %s by the restart", firing.Annotations["summary"], firing.StartsAt.Format(time.TimeOnly), resolved.EndsAt.Format(time.TimeOnly))
}

// alert is one of Alertmanager's, in its webhook and its API alike.
type alert struct {
	Labels      map[string]string
	Annotations map[string]string
	StartsAt    time.Time
	EndsAt      time.Time // of one that fires: when it would end if it were told no more
}

// receiver is who is told by Alertmanager.
type receiver struct {
	server *httptest.Server
	mu     sync.Mutex
	alerts map[string][]alert // by status: firing, resolved
}

func (s *story) startReceiver() *receiver {
	r := &receiver{alerts: map[string][]alert{}}
	r.server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		var body struct {
			Alerts []struct {
				Status string
				alert
			}
		}
		if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
			s.t.Errorf("Alertmanager sent what cannot be read: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, a := range body.Alerts {
			r.alerts[a.Status] = append(r.alerts[a.Status], a.alert)
		}
	}))
	s.t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) until(s *story, status string, so func(alert) bool) alert {
	s.t.Helper()
	var found alert
	s.must(cluster.Until(s.ctx, "an alert is "+status, func(context.Context) (bool, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, a := range r.alerts[status] {
			if so(a) {
				found = a
				return true, nil
			}
		}
		return false, fmt.Errorf("told so far: %v", r.alerts)
	}))
	return found
}

// startAlertmanager returns its address.
func (s *story) startAlertmanager(webhook string) string {
	s.t.Helper()
	return s.startAlertmanagerAt("127.0.0.1", webhook)
}

func (s *story) startAlertmanagerAt(host, webhook string) string {
	s.t.Helper()
	folder := s.t.TempDir()
	s.write(filepath.Join(folder, "alertmanager.yml"), map[string]any{
		"route": map[string]any{
			"receiver": "test", "group_by": []string{"..."}, "group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h",
		},
		"receivers": []any{map[string]any{
			"name": "test", "webhook_configs": []any{map[string]any{"url": webhook, "send_resolved": true}},
		}},
	})
	address := fmt.Sprintf("%s:%d", host, freeport.From(s.t, 20000))
	s.daemon("alertmanager", "usr/bin/prometheus-alertmanager", address+"/-/ready", folder,
		"--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address=", "--web.listen-address="+address)
	return address
}

// startPrometheus gives it the scrape job and the rules of manifests/alerts as
// they are, but for the time between two scrapes and for who finds the pods:
// Debian's Prometheus is built without Kubernetes' discovery. So a file tells
// it what that would, and the job's relabelling chooses. It returns its address.
func (s *story) startPrometheus(alertmanager string) string {
	text, err := os.ReadFile(s.Path("manifests/alerts/scrape.yaml"))
	s.must(err)
	var jobs []map[string]any
	s.must(yaml.Unmarshal(text, &jobs))
	if _, ok := jobs[0]["kubernetes_sd_configs"]; !ok || len(jobs) != 1 {
		s.t.Fatalf("manifests/alerts/scrape.yaml has no Kubernetes discovery: %v", jobs)
	}
	delete(jobs[0], "kubernetes_sd_configs")
	jobs[0]["file_sd_configs"] = []any{map[string]any{"files": []string{"pods.yml"}}}
	folder := s.t.TempDir()
	s.write(filepath.Join(folder, "pods.yml"), s.discovered())
	s.write(filepath.Join(folder, "prometheus.yml"), map[string]any{
		"global":         map[string]any{"scrape_interval": "2s", "evaluation_interval": "2s"},
		"rule_files":     []string{s.Path("manifests/alerts/nodeagent.rules.yaml")},
		"scrape_configs": jobs,
		"alerting": map[string]any{"alertmanagers": []any{map[string]any{
			"static_configs": []any{map[string]any{"targets": []string{alertmanager}}},
		}}},
	})
	address := fmt.Sprintf("127.0.0.1:%d", freeport.From(s.t, 20000))
	s.daemon("prometheus", "usr/bin/prometheus", address+"/-/ready", folder,
		"--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address="+address)
	return address
}

// discovered is what Prometheus' discovery tells of the pods of the agent's
// namespace (role pod): a target for each port, with labels.
func (s *story) discovered() []any {
	list := &corev1.PodList{}
	s.must(s.List(s.ctx, list, client.InNamespace(cluster.Namespace)))
	var targets []any
	for _, p := range list.Items {
		for _, c := range p.Spec.Containers {
			for _, port := range append(c.Ports, corev1.ContainerPort{Name: "other", ContainerPort: 1}) {
				targets = append(targets, map[string]any{
					"targets": []string{fmt.Sprintf("%s:%d", p.Status.PodIP, port.ContainerPort)},
					"labels": map[string]string{
						"__meta_kubernetes_namespace":                        p.Namespace,
						"__meta_kubernetes_pod_name":                         p.Name,
						"__meta_kubernetes_pod_node_name":                    p.Spec.NodeName,
						"__meta_kubernetes_pod_container_name":               c.Name,
						"__meta_kubernetes_pod_container_port_name":          port.Name,
						"__meta_kubernetes_pod_label_app_kubernetes_io_name": p.Labels["app.kubernetes.io/name"],
					},
				})
			}
		}
	}
	return targets
}

// scrapesEveryAgent waits until each node's agent is scraped, under its node's name.
func (s *story) scrapesEveryAgent(prometheus string) {
	s.t.Helper()
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	s.must(cluster.Until(s.ctx, "every agent is scraped", func(ctx context.Context) (bool, error) {
		var targets struct {
			Data struct {
				ActiveTargets []struct {
					Labels            map[string]string
					Health, LastError string
				}
			}
		}
		if err := getJSON(ctx, "http://"+prometheus+"/api/v1/targets?state=active", &targets); err != nil {
			return false, err
		}
		if n := len(targets.Data.ActiveTargets); n > len(nodes) {
			s.t.Fatalf("%d targets are scraped on %d nodes: %+v", n, len(nodes), targets.Data.ActiveTargets)
		}
		up := map[string]bool{}
		for _, target := range targets.Data.ActiveTargets {
			if target.Health == "up" {
				up[target.Labels["node"]] = true
			}
		}
		for _, node := range nodes {
			if !up[node] {
				return false, fmt.Errorf("targets %+v", targets.Data.ActiveTargets)
			}
		}
		return true, nil
	}))
}

// atAlertmanager looks for the alert where a person would.
func (s *story) atAlertmanager(address string, a alert) {
	s.t.Helper()
	shown, all, err := showsAlert(s.ctx, address, a)
	s.must(err)
	if !shown {
		s.t.Errorf("Alertmanager does not show %v among %v", a.Labels, all)
	}
}

// goneFromAlertmanager waits until it is not shown there any more.
func (s *story) goneFromAlertmanager(address string, a alert) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, "the alert is gone from Alertmanager", func(ctx context.Context) (bool, error) {
		shown, all, err := showsAlert(ctx, address, a)
		if err == nil && shown {
			err = fmt.Errorf("it shows %v", all)
		}
		return !shown, err
	}))
}

// showsAlert asks Alertmanager for all that fires.
func showsAlert(ctx context.Context, address string, a alert) (shown bool, all []alert, err error) {
	if err := getJSON(ctx, "http://"+address+"/api/v2/alerts", &all); err != nil {
		return false, nil, err
	}
	return slices.ContainsFunc(all, func(other alert) bool {
		return other.Labels["alertname"] == a.Labels["alertname"] && other.Labels["uid"] == a.Labels["uid"]
	}), all, nil
}

func (s *story) write(path string, content any) {
	s.t.Helper()
	text, err := yaml.Marshal(content)
	s.must(err)
	s.must(os.WriteFile(path, text, 0o600))
}

func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", strings.SplitN(url, "?", 2)[0], res.Status)
	}
	return json.NewDecoder(res.Body).Decode(into)
}
