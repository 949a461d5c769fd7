package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
)

const (
	shop     = "shop"
	web      = "web"
	asker    = "customer"
	replicas = 3
	leakRate = "20Mi"
	minAsked = 2000
)

// stage is what the scenes share.
type stage struct {
	*cluster.Cluster
	out    io.Writer
	began  time.Time
	before []corev1.Pod // the pods before the restart
	seen   <-chan cluster.Sighting
	end    v1alpha1.Restart
}

// say prints one line of the story with the seconds since it began.
func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func (s *stage) scene(title string) {
	fmt.Fprintf(s.out, "\n\033[1m%s\033[0m\n", title)
}

func (s *stage) installAgent(ctx context.Context) error {
	s.scene("The agent is put onto every node: kubectl apply -k manifests/base")
	if err := s.InstallAgent(ctx); err != nil {
		return err
	}
	s.say("the agent is ready")
	return nil
}

// openShop starts the web app and the client. A shop of an earlier demo goes
// first, with the Restart that would still cool down.
func (s *stage) openShop(ctx context.Context) error {
	s.scene(fmt.Sprintf("A web shop opens: Deployment %s/%s with %d replicas, and a customer who never stops asking", shop, web, replicas))
	if err := s.closeShop(ctx); err != nil {
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}
	service := cluster.Service(shop, web)
	for _, o := range []client.Object{ns, cluster.Deployment(shop, web, replicas), service} {
		if err := s.Create(ctx, o); err != nil {
			return fmt.Errorf("cannot open the shop: %w", err)
		}
	}
	var err error
	if s.before, err = s.UntilReady(ctx, shop, web, replicas); err != nil {
		return err
	}
	if err := s.Create(ctx, cluster.Client(shop, asker, service)); err != nil {
		return fmt.Errorf("cannot send the customer: %w", err)
	}
	tallies, err := s.untilAsked(ctx, 50)
	if err != nil {
		return err
	}
	s.say("%d pods are Ready, %s", len(s.before), count(tallies))
	return nil
}

func (s *stage) closeShop(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}
	if err := s.Delete(ctx, ns); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("cannot close the shop of an earlier demo: %w", err)
	}
	return cluster.Until(ctx, "the shop of an earlier demo is closed", func(ctx context.Context) (bool, error) {
		err := s.Get(ctx, client.ObjectKeyFromObject(ns), ns)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

func (s *stage) startLeak(ctx context.Context) error {
	leaking := &s.before[0]
	s.scene("Someone turns on debug logging: " + leakRate + "B a second into " + cluster.LeakFile + " in one of the pods")
	var err error
	if s.seen, err = s.Follow(ctx, shop); err != nil {
		return err
	}
	// Else the agent takes the growth for that of a start, for half a minute.
	if err := cluster.Until(ctx, leaking.Name+" has been seen quiet", func(context.Context) (bool, error) {
		return time.Since(leaking.CreationTimestamp.Time) > 6*time.Second, nil
	}); err != nil {
		return err
	}
	if err := s.Leak(ctx, leaking, leakRate); err != nil {
		return err
	}
	s.say("%s leaks, on %s, whose disk has %s left", leaking.Name, leaking.Spec.NodeName, s.diskLeft(ctx, leaking.Spec.NodeName))
	return nil
}

// watchRestart tells each new state of the Restart until its end.
func (s *stage) watchRestart(ctx context.Context) error {
	s.scene("The agent sees it, says which file fills the disk and when, and restarts the workload: kubectl -n shop get restarts")
	var phase v1alpha1.Phase
	var message string
	for {
		select {
		case <-ctx.Done():
			return errors.New("the agent made no Restart, or did not finish it: see kubectl -n nodeagent logs ds/nodeagent")
		case got, ok := <-s.seen:
			if !ok {
				return errors.New("the API server ended the watch of the Restart")
			}
			r := got.Restart
			if r.Status.Phase == "" {
				s.say("seen: %s", r.Spec.Message)
			}
			if r.Status.Phase != phase || r.Status.Message != message {
				phase, message = r.Status.Phase, r.Status.Message
				s.say("%-10s %s", phase, message)
			}
			if phase.Ended() {
				s.end = r
				return s.mustSucceed()
			}
		}
	}
}

func (s *stage) mustSucceed() error {
	if s.end.Status.Phase != v1alpha1.PhaseSucceeded {
		return fmt.Errorf("the Restart ended as %s: %s", s.end.Status.Phase, s.end.Status.Message)
	}
	return nil
}

// takeStock shows that the restart was real, and that nobody noticed it.
func (s *stage) takeStock(ctx context.Context) error {
	s.scene("What is left of it")
	after, err := s.UntilReady(ctx, shop, web, replicas)
	if err != nil {
		return err
	}
	sets, err := s.ReplicaSets(ctx, shop, web)
	if err != nil {
		return err
	}
	s.say("pods before:    %s", strings.Join(names(s.before), " "))
	s.say("pods now:       %s", strings.Join(names(after), " "))
	s.say("ReplicaSets:    %s", strings.Join(setNames(sets), " "))
	node := s.end.Status.Holder
	files, err := s.Lab(ctx, "exec", node, "--", "find", "/var/lib/containerd", "-name", "debug.log")
	if err != nil {
		return err
	}
	if files = strings.TrimSpace(files); files != "" {
		return fmt.Errorf("the file is still on the disk of %s: %s", node, files)
	}
	s.say("debug.log:      gone from the disk of %s, %s freed, %s left", node, s.end.Status.Freed, s.diskLeft(ctx, node))
	tallies, err := s.untilAsked(ctx, minAsked)
	if err != nil {
		return err
	}
	s.say("the customer:   %s", count(tallies))
	for kind, t := range tallies {
		if t.Failures > 0 {
			return fmt.Errorf("%d of %d requests over %s connections failed: %v", t.Failures, t.Requests, kind, t.Errors)
		}
	}
	return nil
}

// sendHome ends the customer's questions: what is left to play with is quiet.
func (s *stage) sendHome(ctx context.Context) error {
	err := s.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: asker}})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("cannot send the customer home: %w", err)
	}
	return nil
}

func (s *stage) untilAsked(ctx context.Context, n int64) (map[string]cluster.Tally, error) {
	var got map[string]cluster.Tally
	err := cluster.Until(ctx, fmt.Sprintf("the customer has asked %d times", n), func(ctx context.Context) (bool, error) {
		var err error
		got, err = s.Tallies(ctx, shop, asker)
		return got["new"].Requests >= n && got["keepalive"].Requests >= n, err
	})
	return got, err
}

func count(t map[string]cluster.Tally) string {
	fresh, kept := t["new"], t["keepalive"]
	return fmt.Sprintf("%d requests over new connections, %d over kept-alive ones, %d failed",
		fresh.Requests, kept.Requests, fresh.Failures+kept.Failures)
}

// diskLeft asks df on the node: an independent witness.
func (s *stage) diskLeft(ctx context.Context, node string) string {
	out, err := s.Lab(ctx, "exec", node, "--", "df", "--output=avail", "-h", "/var/lib/containerd")
	lines := strings.Fields(out)
	if err != nil || len(lines) == 0 {
		return "an unknown amount"
	}
	return lines[len(lines)-1] + "iB"
}

func names(pods []corev1.Pod) []string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return out
}

func setNames(sets []appsv1.ReplicaSet) []string {
	var out []string
	for _, rs := range sets {
		out = append(out, fmt.Sprintf("%s (%d pods)", rs.Name, rs.Status.Replicas))
	}
	return out
}

func (s *stage) goodbye() {
	s.scene("The cluster stays up. Try next:")
	fmt.Fprint(s.out, `  bin/lab kubectl -n shop describe restart deployment-web     the whole story of the restart
  bin/lab kubectl -n shop get events                          what the owners of the pods were told
  bin/lab kubectl -n nodeagent logs ds/nodeagent              what the agent says
and when you are done:
  make down                                                   ends the cluster and leaves nothing
`)
}
