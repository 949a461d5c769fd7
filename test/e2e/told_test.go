package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/cluster"
	"github.com/nodeagent/nodeagent/test/freeport"
)

// stageTold is what of a webhook's message the stories read.
type stageTold struct {
	Incident, Stage, Namespace, Kind, Workload, Why, Message, Graph string
}

// listeners collects what the agents post to a webhook.
type listeners struct {
	url  string
	mu   sync.Mutex
	told []stageTold
}

// listenForWebhooks serves a webhook at this machine's address in the nodes'
// network.
func (s *story) listenForWebhooks() *listeners {
	s.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(s.ctx, "tcp", s.address()+":0")
	s.must(err)
	w := &listeners{url: fmt.Sprintf("http://%s/hook", l.Addr())}
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m stageTold
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			s.t.Errorf("a webhook got what cannot be read: %v", err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told = append(w.told, m)
	})}
	go func() { _ = srv.Serve(l) }()
	s.t.Cleanup(func() { _ = srv.Close() })
	return w
}

// of is what was told of a namespace. Alertmanager posts to the same place.
func (w *listeners) of(namespace string) []stageTold {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.told), func(m stageTold) bool { return m.Namespace != namespace })
}

// stages are those told of a namespace, without repetitions, and the incidents
// that they belong to.
func (w *listeners) stages(namespace string) (stages, incidents []string) {
	for _, m := range w.of(namespace) {
		if !slices.Contains(stages, m.Stage) {
			stages = append(stages, m.Stage)
		}
		if !slices.Contains(incidents, m.Incident) {
			incidents = append(incidents, m.Incident)
		}
	}
	return stages, incidents
}

// until waits until a stage of the story's incident was told.
func (w *listeners) until(s *story, stage string) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, "the webhook was told of "+stage, func(context.Context) (bool, error) {
		stages, _ := w.stages(s.namespace)
		if !slices.Contains(stages, stage) {
			return false, fmt.Errorf("told so far: %v", stages)
		}
		return true, nil
	}))
}

// deaf is a receiver that takes connections and never answers. It counts them.
func (s *story) deaf() (url string, asked *atomic.Int32) {
	s.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(s.ctx, "tcp", s.address()+":0")
	s.must(err)
	asked = &atomic.Int32{}
	var held []net.Conn
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			held = append(held, c)
		}
	})
	s.t.Cleanup(func() {
		_ = l.Close()
		done.Wait()
		for _, c := range held {
			_ = c.Close()
		}
	})
	return fmt.Sprintf("http://%s/deaf", l.Addr()), asked
}

// People are told of a restart as one incident, by a webhook and in a real
// Alertmanager, though every agent is killed in the middle of it, one receiver
// never answers, and another one is not there.
func TestPeopleAreTold(t *testing.T) {
	s := newStory(t)
	hook := s.listenForWebhooks()
	alertmanager := s.startAlertmanagerAt(s.address(), hook.url)
	deaf, asked := s.deaf()
	s.configure(fmt.Sprintf(`notify:
  graph: https://graphs.example/d?ns={namespace}&w={kind}/{workload}
  receivers:
  - {name: deaf, kind: Webhook, url: %q}
  - {name: dead, kind: Webhook, url: "http://%s:%d/"}
  - {name: hook, kind: Webhook, url: %q}
  - {name: alerts, kind: Alertmanager, url: "http://%s"}
`, deaf, s.address(), freeport.From(t, 20000), hook.url, alertmanager))
	web := cluster.Deployment(s.namespace, "web", 2)
	web.Spec.MinReadySeconds = 8
	s.create(web)
	old := s.untilReady("web", 2)
	seen := s.leak(&old[0])
	_, err := cluster.UntilPhase(s.ctx, seen, v1alpha1.PhaseRunning)
	s.must(err)
	s.must(cluster.Until(s.ctx, "Alertmanager shows the restart", func(ctx context.Context) (bool, error) {
		var all []alert
		if err := getJSON(ctx, "http://"+alertmanager+"/api/v2/alerts", &all); err != nil {
			return false, err
		}
		return slices.ContainsFunc(all, func(a alert) bool {
			return a.Labels["alertname"] == "NodeagentRestart" && a.Labels["namespace"] == s.namespace && a.Labels["workload"] == "web"
		}), nil
	}))
	hook.until(s, "Restarting")
	all, err := s.Nodes(s.ctx)
	s.must(err)
	for _, node := range all {
		s.killAgent(node)
	}
	s.succeeded(seen, old)
	hook.until(s, "Done")
	stages, incidents := hook.stages(s.namespace)
	if !slices.Equal(stages, []string{"Seen", "Restarting", "Done"}) || len(incidents) != 1 {
		t.Errorf("told %v in the incidents %v, want Seen, Restarting and Done in one", stages, incidents)
	}
	first := hook.of(s.namespace)[0]
	if !regexp.MustCompile(cluster.LeakFile + ` in .* grew .* \(.*iB/s\)`).MatchString(first.Why) {
		t.Errorf("the first message does not name the file and its rate: %q", first.Why)
	}
	if first.Kind != "Deployment" || first.Workload != "web" || first.Graph != "https://graphs.example/d?ns="+s.namespace+"&w=Deployment/web" {
		t.Errorf("the first message does not say whose it is, or where its graph: %+v", first)
	}
	if asked.Load() == 0 {
		t.Error("the one that does not answer was not asked")
	}
	s.must(cluster.Until(s.ctx, "an agent tells that one receiver is not there", func(ctx context.Context) (bool, error) {
		said, err := s.Kubectl(ctx, "-n", cluster.Namespace, "logs", "-l", "app.kubernetes.io/name=nodeagent", "--tail=-1")
		return regexp.MustCompile(`not told of a restart.*\bdead\b.*connection refused`).MatchString(said), err
	}))
}

// Workloads that ask for it are restarted when what they use has changed: by an
// environment, a volume, a projected one or as pull secret. A change without a
// difference does nothing; one that is made while no agent runs is caught up.
func TestReload(t *testing.T) {
	s := newStory(t)
	s.overlay("reload")
	config := &corev1.ConfigMap{ObjectMeta: cluster.Meta(s.namespace, "app"), Data: map[string]string{"level": "info"}}
	sentinel := &corev1.ConfigMap{ObjectMeta: cluster.Meta(s.namespace, "sentinel"), Data: map[string]string{"level": "info"}}
	secret := &corev1.Secret{ObjectMeta: cluster.Meta(s.namespace, "key"), StringData: map[string]string{"token": "one"}}
	pull := &corev1.Secret{
		ObjectMeta: cluster.Meta(s.namespace, "pull"), Type: corev1.SecretTypeDockerConfigJson,
		StringData: map[string]string{corev1.DockerConfigJsonKey: `{"auths":{"one.example":{"auth":"b25l"}}}`},
	}
	s.create(config, sentinel, secret, pull)
	app := corev1.LocalObjectReference{Name: "app"}
	uses := map[string]func(*corev1.PodSpec){
		"env": func(p *corev1.PodSpec) {
			p.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: app}}}
		},
		"value": func(p *corev1.PodSpec) {
			p.Containers[0].Env = []corev1.EnvVar{{Name: "LEVEL", ValueFrom: &corev1.EnvVarSource{
				ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: app, Key: "level"}}}}
		},
		"projected": func(p *corev1.PodSpec) {
			p.Volumes = append(p.Volumes, corev1.Volume{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: app}}},
			}}})
		},
		"volume": func(p *corev1.PodSpec) {
			p.Volumes = append(p.Volumes, corev1.Volume{Name: "key", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "key"}}})
		},
		"pull": func(p *corev1.PodSpec) { p.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}} },
		"sentinel": func(p *corev1.PodSpec) {
			p.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "sentinel"}}}}
		},
	}
	for name, use := range uses {
		s.create(s.using(name, use))
	}
	for name := range uses {
		s.untilReady(name, 1)
	}
	s.remembered(len(uses))

	// One is written again without a difference, before those that are changed.
	s.written(secret, func() { secret.Labels = map[string]string{"written": "again"} })
	s.written(config, func() { config.Data["level"] = "debug" })
	s.written(pull, func() {
		pull.StringData = map[string]string{corev1.DockerConfigJsonKey: `{"auths":{"two.example":{"auth":"dHdv"}}}`}
	})
	for _, name := range []string{"env", "value", "projected", "pull"} {
		s.reloaded(name, 1)
	}
	s.written(secret, func() { secret.Labels = map[string]string{"written": "once-more"} })
	s.written(sentinel, func() { sentinel.Data["level"] = "debug" })
	s.reloaded("sentinel", 1) // which was changed after it
	s.notReloaded("volume")

	s.whileNoAgentRuns(func() {
		s.written(secret, func() { secret.StringData = map[string]string{"token": "two"} })
	})
	s.reloaded("volume", 1)
}

// written changes an object as it stands now.
func (s *story) written(o client.Object, change func()) {
	s.t.Helper()
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(o), o))
	change()
	s.must(s.Update(s.ctx, o))
}

func (s *story) notReloaded(name string) {
	s.t.Helper()
	err := s.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: restart.Name("Deployment", name)}, &v1alpha1.Restart{})
	if !apierrors.IsNotFound(err) {
		s.t.Errorf("the Restart of %s: %v, want none: nothing that it uses was changed", name, err)
	}
}

func (s *story) whileNoAgentRuns(do func()) {
	s.t.Helper()
	_, err := s.Kubectl(s.ctx, "-n", cluster.Namespace, "patch", "daemonset", "nodeagent", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"no":"node"}}}}}`)
	s.must(err)
	s.must(cluster.Until(s.ctx, "no agent runs", func(ctx context.Context) (bool, error) {
		list := &corev1.PodList{}
		err := s.List(ctx, list, client.InNamespace(cluster.Namespace), client.MatchingLabels{"app.kubernetes.io/name": "nodeagent"})
		return len(list.Items) == 0, err
	}))
	do()
	_, err = s.Kubectl(s.ctx, "-n", cluster.Namespace, "patch", "daemonset", "nodeagent", "--type=json", "-p", `[{"op":"remove","path":"/spec/template/spec/nodeSelector"}]`)
	s.must(err)
	s.agentsReady()
}

// using is a Deployment of one pod that asks to be restarted when what it uses
// has changed.
func (s *story) using(name string, use func(*corev1.PodSpec)) *appsv1.Deployment {
	d := cluster.Deployment(s.namespace, name, 1)
	d.Annotations = map[string]string{"nodeagent.dev/reload": "true"}
	use(&d.Spec.Template.Spec)
	return d
}

// remembered waits until the leader has written down what n workloads were
// started with: what changed before that is what they began with.
func (s *story) remembered(n int) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, "the leader knows what they were started with", func(ctx context.Context) (bool, error) {
		list := &corev1.SecretList{}
		if err := s.List(ctx, list, client.InNamespace(cluster.Namespace)); err != nil {
			return false, err
		}
		known := 0
		for _, secret := range list.Items {
			if strings.HasPrefix(secret.Name, "nodeagent-reload-") {
				known += len(secret.Data)
			}
		}
		return known >= n, nil
	}))
}

// reloaded waits until a Deployment was restarted n times for a changed
// configuration.
func (s *story) reloaded(name string, n int) {
	s.t.Helper()
	s.must(cluster.Until(s.ctx, fmt.Sprintf("%s was restarted for its configuration", name), func(ctx context.Context) (bool, error) {
		r := &v1alpha1.Restart{}
		if err := s.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: "deployment-" + name}, r); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		if r.Spec.Reason != v1alpha1.ReasonConfigChange {
			s.t.Fatalf("%s was restarted for %s", name, r.Spec.Reason)
		}
		return r.Status.Phase == v1alpha1.PhaseSucceeded && len(r.Status.History) == n, nil
	}))
	s.untilReady(name, 1)
}
