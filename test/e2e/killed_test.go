package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
	"github.com/nodeagent/nodeagent/test/cluster"
)

// The API server asks a webhook before each write of the agent that carries a
// restart out, and the webhook kills that agent: at each step once before the
// write is done, and once after it, before the agent can hear of it. The
// restart ends as it should, once, by whichever way it goes.
func TestKilledAtEachStep(t *testing.T) {
	t.Run("one pod of a Deployment", func(t *testing.T) {
		s := newStory(t)
		web := cluster.Deployment(s.namespace, "web", 3)
		s.create(web, cluster.Service(s.namespace, "web"))
		old := s.untilReady("web", 3)
		k := s.killedAtEach("pods", "pods/eviction")
		k.restart(web, "apps/v1", "Deployment", old[0].Spec.NodeName, 3, onePod(&old[0]))
		s.replaced(old, s.untilReady("web", 3), old[0].Name)
	})
	t.Run("the template of a Deployment", func(t *testing.T) {
		s := newStory(t)
		web := cluster.Deployment(s.namespace, "web", 3)
		s.create(web, cluster.Service(s.namespace, "web"))
		old := s.untilReady("web", 3)
		nodes, err := s.Nodes(s.ctx)
		s.must(err)
		k := s.killedAtEach("deployments with [kubectl.kubernetes.io/restartedAt]")
		k.stamps = 1
		k.restart(web, "apps/v1", "Deployment", nodes[0], 3, nil)
		s.replaced(old, s.untilReady("web", 3), names(old)...)
	})
	t.Run("a Deployment that is rolled back", func(t *testing.T) {
		s := newStory(t)
		web := cluster.Deployment(s.namespace, "web", 3)
		settings := s.rolledBackWithout(web)
		s.create(settings, web, cluster.Service(s.namespace, "web"))
		old, template := s.untilReady("web", 3), s.template("web")
		nodes, err := s.Nodes(s.ctx)
		s.must(err)
		s.must(s.Delete(s.ctx, settings))
		k := s.killedAtEach("deployments with [kubectl.kubernetes.io/restartedAt]", "deployments with []")
		k.stamps, k.ends = 2, []v1alpha1.Phase{v1alpha1.PhaseRollingBack, v1alpha1.PhaseStalled}
		k.restart(web, "apps/v1", "Deployment", nodes[0], 3, func(spec *v1alpha1.RestartSpec) {
			spec.Deadline = &metav1.Duration{Duration: time.Minute}
		})
		s.untilPods("web", 3)
		s.replaced(old, s.untilReady("web", 3))
		if now := s.template("web"); now != template {
			t.Errorf("the template was\n%s and is\n%s", template, now)
		}
	})
	t.Run("a pod without owner", func(t *testing.T) {
		s := newStory(t)
		web := cluster.Pod(s.namespace, "web")
		s.create(web, cluster.Service(s.namespace, "web"))
		old := s.untilReady("web", 1)
		k := s.killedAtEach("pods", "pods/eviction")
		k.restart(web, "v1", "Pod", old[0].Spec.NodeName, 1, onePod(&old[0]))
		s.replaced(old, s.untilReady("web", 1), "web")
	})
}

// killedAtEach is a restart whose agent is killed before and after each of its
// writes.
type killedAtEach struct {
	*story
	writes []string         // to what is restarted
	stamps int64            // how often the target itself is written
	ends   []v1alpha1.Phase // that follow on Running
}

func (s *story) killedAtEach(writes ...string) *killedAtEach {
	return &killedAtEach{story: s, writes: writes, ends: []v1alpha1.Phase{v1alpha1.PhaseVerifying, v1alpha1.PhaseSucceeded}}
}

// restart asks for it, on that node, and follows it to its end. fewest is how many
// endpoints there always are.
func (k *killedAtEach) restart(target client.Object, apiVersion, kind, node string, fewest int, change func(*v1alpha1.RestartSpec)) {
	k.t.Helper()
	k.must(k.Get(k.ctx, client.ObjectKeyFromObject(target), target))
	least, err := k.FewestEndpoints(k.ctx, k.namespace, "web", fewest)
	k.must(err)
	killer := k.killer(node)
	k.person(target, apiVersion, kind, change)
	r := k.endedTimes(kind, "web", 1)
	k.t.Logf("killed before and after: %s", strings.Join(slices.Sorted(maps.Keys(killer.moments())), "; "))

	if want := k.ends[len(k.ends)-1]; r.Status.Phase != want {
		k.t.Errorf("it ended as %s, want %s", r.Status.Phase, want)
	}
	moments := append([]string{"slots"}, k.writes...)
	for _, phase := range append([]v1alpha1.Phase{v1alpha1.PhasePending, v1alpha1.PhaseRunning}, k.ends...) {
		moments = append(moments, fmt.Sprintf("restarts/status %s", phase))
	}
	for _, moment := range moments {
		if !killer.killedTwiceAt(moment) {
			k.t.Errorf("the agent was not killed before and after a write %s", moment)
		}
	}
	if kind != "Pod" { // the old one is gone
		was := target.GetGeneration()
		k.must(k.Get(k.ctx, client.ObjectKeyFromObject(target), target))
		if now := target.GetGeneration(); now != was+k.stamps {
			k.t.Errorf("the %s was written: generation %d after %d", kind, now, was)
		}
	}
	if n, err := least(); err != nil || n < fewest {
		k.t.Errorf("the Service sent to %d pods at the least: %v", n, err)
	}
}

// killer is a webhook that kills the agent that is about to write.
type killer struct {
	s    *story
	node string
	mu   sync.Mutex
	over bool           // the story is
	at   map[string]int // how often each write was asked for
}

const (
	killBefore = 1
	killAfter  = 2
)

// killer has the API server ask it before each write of a node's agent, until
// the story ends.
func (s *story) killer(node string) *killer {
	s.t.Helper()
	k := &killer{s: s, node: node, at: map[string]int{}}
	address, ca := s.serveTLS(s.address(), k)
	rule := func(group string, resources ...string) admissionregistrationv1.RuleWithOperations {
		return admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
			Rule:       admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{"*"}, Resources: resources},
		}
	}
	asks := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name:         "killer.nodeagent.dev",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: new("https://" + address.String()), CABundle: ca},
			Rules:        []admissionregistrationv1.RuleWithOperations{rule("nodeagent.dev", "restarts", "restarts/status"), rule("", "pods", "pods/eviction"), rule("apps", "deployments"), rule("coordination.k8s.io", "leases")},
			MatchConditions: []admissionregistrationv1.MatchCondition{
				{Name: "agent", Expression: fmt.Sprintf("request.userInfo.username == %q && %q in request.userInfo.extra['authentication.kubernetes.io/node-name']", restart.AgentAccount, node)},
				{Name: "story", Expression: fmt.Sprintf("request.namespace == %q || request.name == %q", s.namespace, restart.LeaseSlots)},
			},
			FailurePolicy: new(admissionregistrationv1.Fail), SideEffects: new(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: new(int32(20)),
		}},
	}
	s.create(asks)
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := errors.Join(s.Delete(ctx, asks), agentsReady(ctx, s.Cluster)); err != nil {
			s.t.Errorf("cannot remove the webhook: %v", err)
		}
	})
	s.t.Cleanup(func() { // before the others
		k.mu.Lock()
		defer k.mu.Unlock()
		k.over = true
	})
	return k
}

// ServeHTTP answers a review. At the first write of its kind the agent is dead
// before it is answered, and the write is refused; the next one is done, and the
// agent is dead before it is let do another; then it may.
func (k *killer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	review := &admissionv1.AdmissionReview{}
	if err := json.NewDecoder(r.Body).Decode(review); err != nil {
		k.s.t.Errorf("the API server asks what cannot be read: %v", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over || r.Context().Err() != nil { // or who asked is dead already
		return
	}
	moment := momentOf(review.Request)
	k.at[moment]++
	if k.at[moment] == killBefore {
		k.kill(moment) // the API server drops what nobody waits for any more
	}
	review.Response = &admissionv1.AdmissionResponse{
		UID: review.Request.UID, Allowed: k.at[moment] != killBefore,
		Result: &metav1.Status{Message: "the agent is dead", Code: http.StatusServiceUnavailable},
	}
	_ = answer(w, review) // nobody waits for it any more where the agent was killed
	if k.at[moment] == killAfter {
		k.kill(moment) // its next write is not looked at before it is dead
	}
}

func (k *killer) kill(moment string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.s.ctx), time.Minute)
	defer cancel()
	if err := k.s.killAgentForGood(ctx, k.node); err != nil {
		k.s.t.Errorf("cannot kill the agent at %s: %v", moment, err)
	}
}

// answer sends the whole answer now, before the handler returns.
func answer(w http.ResponseWriter, review *admissionv1.AdmissionReview) error {
	body, err := json.Marshal(review)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

// momentOf names a write by what makes it another step than others of the same
// resource.
func momentOf(r *admissionv1.AdmissionRequest) string {
	what := r.Resource.Resource
	if r.SubResource != "" {
		what += "/" + r.SubResource
	}
	switch what {
	case "restarts/status":
		var o v1alpha1.Restart
		_ = json.Unmarshal(r.Object.Raw, &o)
		return fmt.Sprintf("%s %s, %d replaced", what, o.Status.Phase, len(o.Status.ReplacedPods))
	case "deployments":
		var o appsv1.Deployment
		_ = json.Unmarshal(r.Object.Raw, &o)
		return fmt.Sprintf("%s with %v", what, slices.Sorted(maps.Keys(o.Spec.Template.Annotations)))
	case "pods":
		var o corev1.Pod
		_ = json.Unmarshal(r.Object.Raw, &o)
		return fmt.Sprintf("%s with %v", what, slices.Sorted(maps.Keys(o.Labels)))
	case "leases":
		var o metav1.PartialObjectMetadata
		_ = json.Unmarshal(r.Object.Raw, &o)
		return fmt.Sprintf("slots with %d", strings.Count(o.Annotations["nodeagent.dev/slots"], `"renewed"`))
	}
	return what
}

func (k *killer) moments() map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.at)
}

func (k *killer) killedTwiceAt(moment string) bool {
	for at, kills := range k.moments() {
		if strings.HasPrefix(at, moment) && kills >= killAfter {
			return true
		}
	}
	return false
}

// killAgentForGood ends the agent of a node with SIGKILL and its pod with it:
// its kubelet would let a pod wait that dies again and again.
func (s *story) killAgentForGood(ctx context.Context, node string) error {
	pid, err := s.agentPID(ctx, node)
	if err != nil {
		return err
	}
	pod, err := s.AgentPod(ctx, node)
	if err != nil {
		return err
	}
	if _, err := s.Lab(ctx, "exec", node, "--", "kill", "-KILL", strconv.Itoa(pid)); err != nil {
		return err
	}
	return s.Delete(ctx, pod, client.GracePeriodSeconds(0))
}

// agentPID waits until the API and containerd agree on the agent's process.
func (s *story) agentPID(ctx context.Context, node string) (pid int, err error) {
	err = cluster.Until(ctx, "the agent's process is known", func(ctx context.Context) (bool, error) {
		var err error
		pid, err = s.AgentPID(ctx, node)
		return err == nil, err
	})
	return pid, err
}
