package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
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
// restart ends as it should, once.
func TestKilledAtEachStep(t *testing.T) {
	s := newStory(t)
	web := cluster.Deployment(s.namespace, "web", 3)
	s.create(web, cluster.Service(s.namespace, "web"))
	old := s.untilReady("web", 3)
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(web), web))
	fewest, err := s.FewestEndpoints(s.ctx, s.namespace, "web", 3)
	s.must(err)
	k := s.killer(old[0].Spec.NodeName)
	s.person(web, "apps/v1", "Deployment", onePod(&old[0]))
	r := s.endedTimes("Deployment", "web", 1)
	t.Logf("killed before and after: %s", strings.Join(slices.Sorted(maps.Keys(k.moments())), "; "))

	if r.Status.Phase != v1alpha1.PhaseSucceeded {
		t.Errorf("it ended as %s", r.Status.Phase)
	}
	for _, moment := range []string{"slots", "restarts/status Pending", "restarts/status Running", "pods", "pods/eviction", "restarts/status Verifying", "restarts/status Succeeded"} {
		if !k.killedTwiceAt(moment) {
			t.Errorf("the agent was not killed before and after a write %s", moment)
		}
	}
	s.replaced(old, s.untilReady("web", 3), old[0].Name)
	now := web.DeepCopy()
	s.must(s.Get(s.ctx, client.ObjectKeyFromObject(now), now))
	if now.Generation != web.Generation {
		t.Errorf("the Deployment was written: generation %d after %d", now.Generation, web.Generation)
	}
	if n, err := fewest(); err != nil || n < 3 {
		t.Errorf("the Service sent to %d pods at the least: %v", n, err)
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
	certificate, ca := selfSigned(s.t, s.address())
	l, err := (&net.ListenConfig{}).Listen(s.ctx, "tcp", s.address()+":0")
	s.must(err)
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: k, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	go func() { _ = srv.ServeTLS(l, "", "") }()
	s.t.Cleanup(func() { _ = srv.Close() })

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
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: new("https://" + l.Addr().String()), CABundle: ca},
			Rules:        []admissionregistrationv1.RuleWithOperations{rule("nodeagent.dev", "restarts", "restarts/status"), rule("", "pods", "pods/eviction"), rule("coordination.k8s.io", "leases")},
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
	var pid int
	err := cluster.Until(ctx, "the agent's process is known", func(ctx context.Context) (bool, error) {
		var err error
		pid, err = s.AgentPID(ctx, node)
		return err == nil, err
	})
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

// selfSigned is a certificate for an address, and what to trust it by.
func selfSigned(t *testing.T, address string) (certificate tls.Certificate, ca []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(address)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
