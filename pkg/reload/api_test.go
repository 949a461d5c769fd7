package reload

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/apiserver"
)

// stage is a cluster with the agent of node-a on it, and the rights that the
// base and manifests/overlays/reload give it.
type stage struct {
	*apiserver.Cluster
	kubelet *apiserver.Kubelet
	agent   *rest.Config
	clock   clock // the reloader's
}

// clock is a real one that stands at moments.
type clock struct {
	mu      sync.Mutex
	holders int
	since   time.Time
	behind  time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holders > 0 {
		return c.since.Add(-c.behind)
	}
	return time.Now().Add(-c.behind)
}

// moment has the clock stand while changes are made: they are of one moment,
// however long a busy machine takes for them.
func (c *clock) moment(changes func()) {
	c.mu.Lock()
	if c.holders++; c.holders == 1 {
		c.since = time.Now()
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.holders--; c.holders == 0 {
			c.behind += time.Since(c.since)
		}
	}()
	changes()
}

func TestOnAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("-short runs the pure tests alone")
	}
	s := &stage{Cluster: apiserver.Start(t, apiserver.Controllers())}
	s.kubelet = apiserver.StartKubelet(t, s.Cluster, "node-a")
	s.InstallAgent(t, "overlays/reload/rbac.yaml")
	s.agent = s.Agent(t, "node-a")
	s.controller(t)
	stories := map[string]func(*testing.T, *stage, string){
		"every-use": storyEveryUse,
		"no-data":   storyNoData,
		"chosen":    storyChosen,
		"together":  storyTogether,
		"optional":  storyOptional,
		"refused":   storyRefused,
	}
	stop := s.reloader(t)
	t.Run("stories", func(t *testing.T) {
		for name, story := range stories {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s.Namespace(t, name)
				story(t, s, name)
			})
		}
	})
	stop()
	t.Run("away", func(t *testing.T) { s.Namespace(t, "away"); storyAway(t, s, "away") })
	t.Run("killed", func(t *testing.T) { s.Namespace(t, "killed"); storyKilled(t, s, "killed") })
	s.keepsNoData(t)
}

// controller carries restarts out, as the agent does.
func (s *stage) controller(t *testing.T) {
	t.Helper()
	log := apiserver.Log(t)
	c, err := restart.NewClient(s.agent, log)
	if err != nil {
		t.Fatal(err)
	}
	controller := restart.NewController(c, restart.Options{Node: "node-a"}, nil,
		restart.NewEvents(c, "node-a", time.Now, log), restart.NewMetrics(prometheus.NewRegistry()), log)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = controller.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
}

// reloader leads until stop is called or the test ends.
func (s *stage) reloader(t *testing.T) (stop func()) {
	t.Helper()
	r, err := New(s.agent, Options{Node: "node-a", Namespace: "nodeagent", Now: s.clock.now}, apiserver.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { r.Lead(ctx) })
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return stop
}

func (s *stage) put(t *testing.T, ns string, k kind, name, value string) {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: ns, Name: name}
	var o client.Object = &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"key": value}}
	if k == secret {
		o = &corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"key": value}}
	}
	if err := s.Admin.Create(t.Context(), o.DeepCopyObject().(client.Object)); err == nil {
		return
	}
	if err := s.Admin.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// deployment asks for it, is available, and its agent knows what it was started
// with.
func (s *stage) deployment(t *testing.T, ns, name, annotation string, template func(*corev1.PodSpec)) *appsv1.Deployment {
	t.Helper()
	d := apiserver.Deployment(ns, name, 1)
	if annotation != "" {
		d.Annotations = map[string]string{Annotation: annotation}
	}
	template(&d.Spec.Template.Spec)
	s.Create(t, d)
	s.Available(t, d)
	if annotation != "" {
		s.untilKnown(t, d)
	}
	return d
}

func (s *stage) untilKnown(t *testing.T, o client.Object) {
	t.Helper()
	apiserver.Eventually(t, time.Minute, o.GetName()+" is known", func() bool {
		m, err := recall(t.Context(), s.Admin, "nodeagent")
		return err == nil && m.get(o.GetUID()) != nil
	})
}

// restarted waits for the n-th restart of a workload to end, and wants it to
// be the last so far. There is half a minute between two at least.
func (s *stage) restarted(t *testing.T, ns, name string, n int) *v1alpha1.Restart {
	t.Helper()
	var r *v1alpha1.Restart
	apiserver.Eventually(t, 3*time.Minute, name+" is restarted", func() bool {
		r = s.Restart(t, ns, name)
		return r != nil && len(r.Status.History) >= n
	})
	if r.Spec.Reason != v1alpha1.ReasonConfigChange || len(r.Status.History) != n {
		t.Errorf("restart %s: reason %s, history %+v", name, r.Spec.Reason, r.Status.History)
	}
	return r
}

// nothingMore shows that the agent has dealt with all that came before: it
// restarts another workload for a change made now.
func (s *stage) nothingMore(t *testing.T, ns string) {
	t.Helper()
	s.put(t, ns, configMap, "sentinel", "1")
	s.deployment(t, ns, "sentinel", "true", fromEnv("sentinel"))
	s.put(t, ns, configMap, "sentinel", "2")
	s.restarted(t, ns, "deployment-sentinel", 1)
}

func fromEnv(name string) func(*corev1.PodSpec) {
	return func(spec *corev1.PodSpec) {
		spec.Containers[0].EnvFrom = append(spec.Containers[0].EnvFrom,
			corev1.EnvFromSource{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local(name)}})
	}
}

// Each way in which a pod can use one, and each kind of workload.
func storyEveryUse(t *testing.T, s *stage, ns string) {
	template := everywhere()
	for _, r := range references(template.Spec) {
		s.put(t, ns, r.Kind, r.Name, "1")
	}
	use := func(spec *corev1.PodSpec) {
		spec.InitContainers = []corev1.Container{{Name: "init", Image: "web:1", EnvFrom: template.Spec.InitContainers[0].EnvFrom}}
		spec.Containers[0].Env = template.Spec.Containers[0].Env
		spec.ImagePullSecrets = template.Spec.ImagePullSecrets
		for i, v := range template.Spec.Volumes {
			v.Name = "v" + string(rune('0'+i))
			if v.Projected != nil {
				v.Projected = &corev1.ProjectedVolumeSource{Sources: v.Projected.Sources[:2]}
			}
			spec.Volumes = append(spec.Volumes, v)
		}
	}
	d := s.deployment(t, ns, "web", "true", use)
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "logs", Annotations: map[string]string{Annotation: "true"}},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "logs"}}, Template: apiserver.Template("logs")},
	}
	fromEnv("env")(&set.Spec.Template.Spec)
	s.Create(t, set)
	s.untilKnown(t, set)
	apiserver.Eventually(t, time.Minute, "the DaemonSet's controller counts its pod", func() bool {
		return s.Admin.Get(t.Context(), client.ObjectKeyFromObject(set), set) == nil && set.Status.NumberAvailable == 1
	})
	db := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "db", Annotations: map[string]string{Annotation: "true"}},
		Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Template: apiserver.Template("db"),
		},
	}
	fromEnv("env")(&db.Spec.Template.Spec)
	s.Create(t, db)
	s.untilKnown(t, db)
	apiserver.Eventually(t, time.Minute, "the StatefulSet's controller counts its pods", func() bool {
		return s.Admin.Get(t.Context(), client.ObjectKeyFromObject(db), db) == nil && db.Status.AvailableReplicas == 2
	})
	n := 0
	for _, r := range references(template.Spec) {
		s.put(t, ns, r.Kind, r.Name, "2")
		n++
		got := s.restarted(t, ns, "deployment-web", n)
		if !strings.Contains(got.Spec.Message, r.String()) || got.Status.Phase != v1alpha1.PhaseSucceeded {
			t.Errorf("%s: %s %q", r, got.Status.Phase, got.Spec.Message)
		}
		s.Available(t, d)
		if n == 2 {
			break // the pause between two takes its time; the table has the rest
		}
	}
	s.restarted(t, ns, "daemonset-logs", 1)
	if r := s.restarted(t, ns, "statefulset-db", 1); r.Status.Phase != v1alpha1.PhaseSucceeded || r.Spec.Reason != v1alpha1.ReasonConfigChange {
		t.Errorf("the StatefulSet's: %s, %s (%s)", r.Spec.Reason, r.Status.Phase, r.Status.Message)
	}
}

// What makes no difference in data does nothing.
func storyNoData(t *testing.T, s *stage, ns string) {
	s.put(t, ns, configMap, "app", "1")
	d := s.deployment(t, ns, "web", "true", fromEnv("app"))
	before := d.Generation
	s.Kubectl("label", "-n", ns, "configmap", "app", "touched=yes")
	s.clock.moment(func() { // what is gone for longer is a change
		s.Kubectl("delete", "-n", ns, "configmap", "app")
		s.put(t, ns, configMap, "app", "1")
	})
	s.nothingMore(t, ns)
	s.Available(t, d)
	if d.Generation != before || s.Restart(t, ns, "deployment-web") != nil {
		t.Error("restarted without a difference in data")
	}
}

// Those that do not ask, and those that ask for others, are left alone.
func storyChosen(t *testing.T, s *stage, ns string) {
	s.put(t, ns, configMap, "app", "1")
	s.put(t, ns, secret, "db", "1")
	both := func(spec *corev1.PodSpec) {
		fromEnv("app")(spec)
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "db", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "db"}}})
	}
	s.deployment(t, ns, "asks-not", "", both)
	s.deployment(t, ns, "chosen", "secret/db", both)
	s.put(t, ns, configMap, "app", "2")
	s.nothingMore(t, ns)
	if s.Restart(t, ns, "deployment-chosen") != nil || s.Restart(t, ns, "deployment-asks-not") != nil {
		t.Fatal("restarted for what it did not ask")
	}
	s.put(t, ns, secret, "db", "2")
	s.restarted(t, ns, "deployment-chosen", 1)
	if s.Restart(t, ns, "deployment-asks-not") != nil {
		t.Error("one that does not ask was restarted")
	}
}

// Several changes within a moment are one restart, and its template is written
// once.
func storyTogether(t *testing.T, s *stage, ns string) {
	s.put(t, ns, configMap, "a", "1")
	s.put(t, ns, configMap, "b", "1")
	d := s.deployment(t, ns, "web", "true", func(spec *corev1.PodSpec) { fromEnv("a")(spec); fromEnv("b")(spec) })
	before := d.Generation
	s.clock.moment(func() {
		for _, value := range []string{"2", "3", "4"} {
			s.put(t, ns, configMap, "a", value)
			s.put(t, ns, configMap, "b", value)
		}
	})
	s.restarted(t, ns, "deployment-web", 1)
	s.nothingMore(t, ns)
	s.Available(t, d)
	if d.Generation != before+1 {
		t.Errorf("the template was written %d times", d.Generation-before)
	}
	s.restarted(t, ns, "deployment-web", 1)
}

func storyOptional(t *testing.T, s *stage, ns string) {
	s.deployment(t, ns, "web", "true", func(spec *corev1.PodSpec) {
		spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("extra"), Optional: new(true)}}}
	})
	s.put(t, ns, secret, "extra", "1")
	s.restarted(t, ns, "deployment-web", 1)
}

// One that cannot be restarted now is told once, and not tried in a circle.
func storyRefused(t *testing.T, s *stage, ns string) {
	s.put(t, ns, configMap, "app", "1")
	s.deployment(t, ns, "web", "true", fromEnv("app"))
	s.Kubectl("rollout", "pause", "-n", ns, "deployment/web")
	s.put(t, ns, configMap, "app", "2")
	if r := s.restarted(t, ns, "deployment-web", 1); r.Status.Phase != v1alpha1.PhaseRefused {
		t.Errorf("phase %s", r.Status.Phase)
	}
	s.nothingMore(t, ns)
	s.restarted(t, ns, "deployment-web", 1)
}

// A change made while no agent ran is caught up, once; one that was taken back
// is none.
func storyAway(t *testing.T, s *stage, ns string) {
	stop := s.reloader(t)
	s.put(t, ns, configMap, "app", "1")
	s.put(t, ns, configMap, "back", "1")
	s.deployment(t, ns, "web", "true", fromEnv("app"))
	s.deployment(t, ns, "calm", "true", fromEnv("back"))
	stop()
	s.put(t, ns, configMap, "app", "2")
	s.put(t, ns, configMap, "back", "2")
	s.put(t, ns, configMap, "back", "1")
	stop = s.reloader(t)
	s.restarted(t, ns, "deployment-web", 1)
	stop()
	stop = s.reloader(t)
	s.nothingMore(t, ns)
	stop()
	s.restarted(t, ns, "deployment-web", 1)
	if s.Restart(t, ns, "deployment-calm") != nil {
		t.Error("restarted for a change that was taken back")
	}
}

// The agent ends as soon as it asked, before it can write down that it did: the
// next one finds the Restart and asks for no second.
func storyKilled(t *testing.T, s *stage, ns string) {
	stop := s.reloader(t)
	s.put(t, ns, configMap, "app", "1")
	d := s.deployment(t, ns, "web", "true", fromEnv("app"))
	s.kubelet.Hold(ns, true) // the restart does not end before the agent does
	s.put(t, ns, configMap, "app", "2")
	apiserver.Eventually(t, time.Minute, "it asks", func() bool { return s.Restart(t, ns, "deployment-web") != nil })
	stop()
	s.kubelet.Hold(ns, false)
	before, err := recall(t.Context(), s.Admin, "nodeagent")
	if err != nil {
		t.Fatal(err)
	}
	s.restarted(t, ns, "deployment-web", 1)
	stop = s.reloader(t)
	s.nothingMore(t, ns)
	stop()
	s.restarted(t, ns, "deployment-web", 1)
	after, err := recall(t.Context(), s.Admin, "nodeagent")
	if err != nil {
		t.Fatal(err)
	}
	if was, is := before.get(d.UID)["configmap/app"], after.get(d.UID)["configmap/app"]; was == is {
		t.Errorf("the new data is not remembered: %q, then %q", was, is)
	}
}

// keepsNoData reads what is remembered as anybody with the right could.
func (s *stage) keepsNoData(t *testing.T) {
	m, err := recall(t.Context(), s.Admin, "nodeagent")
	if err != nil || len(m.shards) == 0 {
		t.Fatalf("%v, %d shards", err, len(m.shards))
	}
	for name, shard := range m.shards {
		for key, value := range shard.Data {
			if len(key) != 24 || strings.Contains(string(value), `"1"`) || strings.Contains(string(value), `"2"`) {
				t.Errorf("shard %s holds %s: %s", name, key, value)
			}
		}
	}
}
