package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
	"github.com/nodeagent/nodeagent/test/freeport"
	"github.com/nodeagent/nodeagent/test/tarball"
)

// serveExporter offers Debian's node_exporter as its makers do, in a tar.gz with
// a folder, at this machine's address in the nodes' network.
func (s *story) serveExporter() (url, digest string) {
	s.t.Helper()
	root, err := s.Lab(s.ctx, "fetch", "node-exporter")
	s.must(err)
	program, err := os.ReadFile(filepath.Join(strings.TrimSpace(root), "usr/bin/prometheus-node-exporter"))
	s.must(err)
	packed, err := tarball.Pack("node_exporter-1.5.0", tarball.File{Name: "node_exporter", Content: program})
	s.must(err)

	l, err := (&net.ListenConfig{}).Listen(s.ctx, "tcp", s.address()+":0")
	s.must(err)
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "node_exporter.tar.gz", time.Time{}, bytes.NewReader(packed))
	})}
	go func() { _ = srv.Serve(l) }()
	s.t.Cleanup(func() { _ = srv.Close() })
	sum := sha256.Sum256(packed)
	return fmt.Sprintf("http://%s/node_exporter-1.5.0.linux-{{arch}}.tar.gz", l.Addr()), hex.EncodeToString(sum[:])
}

// address is this machine's in the network of the nodes.
func (s *story) address() string {
	s.t.Helper()
	to := s.nodeAddresses()[0]
	conn, err := (&net.Dialer{}).DialContext(s.ctx, "udp", to+":9") // asks the routing table alone
	s.must(err)
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	s.must(err)
	return host
}

func (s *story) nodeAddresses() []string {
	s.t.Helper()
	list := &corev1.NodeList{}
	s.must(s.List(s.ctx, list))
	var all []string
	for _, n := range list.Items {
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				all = append(all, a.Address)
			}
		}
	}
	return all
}

// exporterSpec runs node_exporter on every node, on a socket that the launcher
// holds. A changed generation is an update.
func exporterSpec(url, digest, generation string) *v1alpha1.Binary {
	cpu, memory, disk, pids := resource.MustParse("500m"), resource.MustParse("128Mi"), resource.MustParse("100Mi"), int64(64)
	return &v1alpha1.Binary{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: "Binary"},
		ObjectMeta: metav1.ObjectMeta{Name: exporter},
		Spec: v1alpha1.BinarySpec{
			Fetch:     []v1alpha1.Artifact{{URL: url, SHA256: map[string]v1alpha1.Digest{"*": v1alpha1.Digest(digest)}, StripComponents: 1}},
			Command:   []string{"./node_exporter", "--web.systemd-socket"},
			Env:       []v1alpha1.EnvVar{{Name: "GENERATION", Value: generation}},
			Ports:     []v1alpha1.Port{{Name: "metrics", Port: exporterPort, Held: true}},
			Resources: v1alpha1.Resources{CPU: &cpu, Memory: &memory, Disk: &disk, Pids: &pids},
			Profile:   v1alpha1.ProfileHostObserver,
			Roles:     []string{"*"},
			Health: &v1alpha1.HealthCheck{
				Probe: v1alpha1.Probe{HTTP: &v1alpha1.HTTPProbe{Port: "metrics", Path: "/"}}, Interval: &metav1.Duration{Duration: 2 * time.Second},
			},
		},
	}
}

// apply is kubectl apply.
func (s *story) apply(b *v1alpha1.Binary) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "binary.yaml")
	s.write(file, map[string]any{"apiVersion": b.APIVersion, "kind": b.Kind, "metadata": map[string]any{"name": b.Name}, "spec": b.Spec})
	_, err := s.Kubectl(s.ctx, "apply", "-f", file)
	s.must(err)
}

// upOn waits until a Binary is up on n nodes, on each that is its own.
func (s *story) upOn(name string, n int32) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, fmt.Sprintf("%s is up on %d nodes", name, n), func(ctx context.Context) (bool, error) {
		b := &v1alpha1.Binary{}
		if err := s.Get(ctx, client.ObjectKey{Name: name}, b); err != nil {
			return false, err
		}
		if b.Status.ObservedGeneration != b.Generation || b.Status.Nodes != n || b.Status.Up != n || len(s.instances(name)) != int(n) {
			return false, fmt.Errorf("up on %d of %d nodes: %s", b.Status.Up, b.Status.Nodes, b.Status.Message)
		}
		return true, nil
	}))
}

func (s *story) instances(name string) []v1alpha1.BinaryInstance {
	s.t.Helper()
	list := &v1alpha1.BinaryInstanceList{}
	s.must(s.List(s.ctx, list))
	var all []v1alpha1.BinaryInstance
	for _, i := range list.Items {
		if i.Spec.Binary == name {
			all = append(all, i)
		}
	}
	return all
}

// instanceOn is the exporter's on a node.
func (s *story) instanceOn(node string) v1alpha1.BinaryInstance {
	s.t.Helper()
	for _, i := range s.instances(exporter) {
		if i.Spec.Node == node {
			return i
		}
	}
	s.t.Fatalf("%s has no instance on %s", exporter, node)
	return v1alpha1.BinaryInstance{}
}

func (s *story) label(node, role string) {
	s.t.Helper()
	_, err := s.Kubectl(s.ctx, "label", "--overwrite", "node", node, v1alpha1.LabelRole+"="+role)
	s.must(err)
}

func (s *story) unlabel(node string) {
	s.t.Helper()
	if _, err := s.Kubectl(context.WithoutCancel(s.ctx), "label", "node", node, v1alpha1.LabelRole+"-"); err != nil {
		s.t.Error(err)
	}
}

// rollouts watches how an update goes from node to node.
type rollouts struct{ stop func() mostAtATime }

// mostAtATime is on how many nodes at once something was seen.
type mostAtATime struct{ admitted, exchanging int }

// watchRollouts follows the exporter's Binary and its instances until stop. What
// the API server tells of one kind comes in the order in which it was written.
func (s *story) watchRollouts() *rollouts {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	var most mostAtATime
	var both sync.WaitGroup
	follow := func(list client.ObjectList, see func(client.Object)) {
		s.must(s.List(ctx, list)) // first, as in cluster.Follow
		w, err := s.Watch(ctx, list, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}})
		s.must(err)
		both.Go(func() {
			defer w.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case e, open := <-w.ResultChan():
					if !open {
						s.t.Error("the watch of an update has ended")
						return
					}
					if o, ok := e.Object.(client.Object); ok {
						see(o)
					}
				}
			}
		})
	}
	follow(&v1alpha1.BinaryList{}, func(o client.Object) {
		if b, ok := o.(*v1alpha1.Binary); ok && b.Name == exporter {
			most.admitted = max(most.admitted, len(b.Status.Admitted))
		}
	})
	exchanging := map[string]bool{}
	follow(&v1alpha1.BinaryInstanceList{}, func(o client.Object) {
		i, ok := o.(*v1alpha1.BinaryInstance)
		if !ok || i.Spec.Binary != exporter {
			return
		}
		if delete(exchanging, i.Spec.Node); i.Status.Next != nil {
			exchanging[i.Spec.Node] = true
		}
		most.exchanging = max(most.exchanging, len(exchanging))
	})
	r := &rollouts{stop: func() mostAtATime { cancel(); both.Wait(); return most }}
	s.t.Cleanup(func() { r.stop() })
	return r
}

// asking is a load on the exporter of every node.
type asking struct {
	asked, refused, dropped atomic.Int64
	stop                    func()
}

// startAsking opens new connections without a pause, two at a time to each node,
// until stop.
func (s *story) startAsking() *asking {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	a := &asking{}
	var all sync.WaitGroup
	a.stop = func() { cancel(); all.Wait() }
	s.t.Cleanup(a.stop)
	for _, address := range s.nodeAddresses() {
		url := fmt.Sprintf("http://%s:%d/", address, exporterPort)
		for range 2 {
			hc := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			all.Go(func() {
				for ctx.Err() == nil {
					a.count(ctx, askOnce(ctx, hc, url))
				}
			})
		}
	}
	return a
}

func (a *asking) count(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	a.asked.Add(1)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		a.refused.Add(1)
	case err != nil:
		a.dropped.Add(1)
	}
}

func askOnce(ctx context.Context, hc *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", res.StatusCode)
	}
	return err
}

// prometheusScrapesLaunched lets Debian's Prometheus ask the agents what runs
// (HTTP service discovery, as docs/launch.md says), and waits until it scrapes
// the exporter of each node under that node's name.
func (s *story) prometheusScrapesLaunched() {
	s.t.Helper()
	nodes, err := s.Nodes(s.ctx)
	s.must(err)
	var discoveries []any
	for _, node := range nodes {
		pod, err := s.AgentPod(s.ctx, node)
		s.must(err)
		discoveries = append(discoveries, map[string]any{"url": fmt.Sprintf("http://%s:9456/targets", pod.Status.PodIP), "refresh_interval": "1s"})
	}
	folder := s.t.TempDir()
	s.write(filepath.Join(folder, "prometheus.yml"), map[string]any{
		"global": map[string]any{"scrape_interval": "1s"},
		"scrape_configs": []any{map[string]any{
			"job_name": "launched", "http_sd_configs": discoveries,
			"relabel_configs": []any{
				map[string]any{"source_labels": []string{"__meta_nodeagent_port_name"}, "regex": "metrics", "action": "keep"},
				map[string]any{"source_labels": []string{"__meta_nodeagent_binary"}, "target_label": "binary"},
				map[string]any{"source_labels": []string{"__meta_nodeagent_node"}, "target_label": "node"},
			},
		}},
	})
	address := fmt.Sprintf("127.0.0.1:%d", freeport.From(s.t, 20000))
	s.daemon("prometheus", "usr/bin/prometheus", address+"/-/ready", folder,
		"--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address="+address)
	s.must(cluster.Until(s.ctx, "Prometheus has the node's own name from the exporter of each", func(ctx context.Context) (bool, error) {
		var answer struct {
			Data struct {
				Result []struct{ Metric map[string]string }
			}
		}
		if err := getJSON(ctx, "http://"+address+"/api/v1/query?query=node_uname_info", &answer); err != nil {
			return false, err
		}
		right := 0
		for _, r := range answer.Data.Result {
			// The exporter sees the node's own host name, not a pod's.
			if r.Metric["binary"] == exporter && r.Metric["node"] == r.Metric["nodename"] {
				right++
			}
		}
		if right != len(nodes) {
			return false, fmt.Errorf("%v", answer.Data.Result)
		}
		return true, nil
	}))
}
