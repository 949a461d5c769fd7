package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/test/cluster"
	"github.com/nodeagent/nodeagent/test/otherkinds"
)

// Workloads of other projects leak, and their templates are stamped as a
// Deployment's is. The schemas are the projects' own; what their controllers do
// with ReplicaSets and pods the story plays.
func TestOtherKinds(t *testing.T) {
	s := newStory(t)
	for _, k := range otherkinds.All() {
		if k.Part != "" {
			s.define(k)
		}
	}
	s.overlay("other-kinds")
	for _, k := range otherkinds.All() {
		if k.Part == "" {
			continue // OpenShift's are in pkg/restart alone
		}
		t.Run(k.Kind, func(t *testing.T) {
			t.Parallel()
			s := newStory(t)
			o := s.otherKind(k, "web")
			requests, fewest := int64(2000), 1
			if k.Surges {
				requests, fewest = manyRequests, 2
			}
			asked := s.askAll("web", 2)
			old := s.untilReady("web", 2)
			r := s.succeeded(s.leak(&old[0]), old)
			asked.clean(requests, fewest)
			s.replaced(old, s.untilReady("web", 2), names(old)...)
			if r.Spec.Target.APIVersion != k.APIVersion || r.Status.Method != v1alpha1.MethodTemplate {
				t.Errorf("%+v was restarted by %s", r.Spec.Target, r.Status.Method)
			}
			generation := o.GetGeneration()
			s.must(s.Get(s.ctx, client.ObjectKeyFromObject(o), o))
			if o.GetGeneration() != generation+1 {
				t.Errorf("generation %d after %d, want one change", o.GetGeneration(), generation)
			}
		})
	}
}

// define makes a kind known to the API server until the story ends. Its
// definition is longer than the annotation that `kubectl apply` writes may be.
func (s *story) define(k otherkinds.Kind) {
	s.t.Helper()
	folder, err := s.Lab(s.ctx, "fetch", k.Part)
	s.must(err)
	file := filepath.Join(strings.TrimSpace(folder), k.File)
	_, err = s.Kubectl(s.ctx, "create", "-f", file)
	s.must(err)
	s.t.Cleanup(func() {
		if _, err := s.Kubectl(context.WithoutCancel(s.ctx), "delete", "--wait=false", "-f", file); err != nil {
			s.t.Errorf("cannot remove the definition of %s: %v", k.Resource, err)
		}
	})
	s.must(cluster.Until(s.ctx, k.Resource+" is established", func(ctx context.Context) (bool, error) {
		_, err := s.Kubectl(ctx, "wait", "--for=condition=Established", "crd/"+k.Resource, "--timeout=10s") // it fails where there is no condition yet
		return err == nil, err
	}))
}

// otherKind makes one of two replicas, and its controller.
func (s *story) otherKind(k otherkinds.Kind, name string) *unstructured.Unstructured {
	s.t.Helper()
	template := cluster.PodTemplate(name)
	if k.Surges {
		s.meetsMany(&template.Spec, name, 2)
	} else {
		slowToEnd(&template.Spec)
	}
	return k.Start(s.t, s, s.namespace, name, template)
}
