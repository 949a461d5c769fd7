package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	authclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/reload"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// checkAPI asks the API server for its version, and whether this agent may do
// all that it will want to do.
func checkAPI(ctx context.Context, cfg *v1alpha1.Config, o runOptions) []finding {
	const subject = "api"
	if o.standalone {
		return []finding{{levelInfo, subject, "not asked (--standalone)"}}
	}
	kube, err := kubeConfig(o.kubeconfig)
	if err != nil {
		return []finding{{levelFailed, subject, err.Error()}}
	}
	kube.Timeout = checkTimeout / 2
	d, err := discovery.NewDiscoveryClientForConfig(kube)
	if err != nil {
		return []finding{{levelFailed, subject, err.Error()}}
	}
	v, err := d.ServerVersion()
	if err != nil {
		return []finding{{levelFailed, subject, fmt.Sprintf("cannot reach the Kubernetes API at %s: %v", kube.Host, err)}}
	}
	return append([]finding{{levelOK, subject, v.GitVersion + " at " + kube.Host}}, checkCRD(d), checkRights(ctx, kube, o.reload, cfg.Launch.Enabled))
}

func checkCRD(d discovery.DiscoveryInterface) finding {
	gv := v1alpha1.GroupVersion().String()
	if _, err := d.ServerResourcesForGroupVersion(gv); err != nil {
		return finding{levelFailed, "crds", fmt.Sprintf("%s is not served (%v): kubectl apply -k manifests/base", gv, err)}
	}
	return finding{levelOK, "crds", gv + " is served"}
}

// checkRights asks for each right that restart names.
func checkRights(ctx context.Context, kube *rest.Config, reloads, launches bool) finding {
	c, err := authclient.NewForConfig(kube)
	if err != nil {
		return finding{levelFailed, "rights", err.Error()}
	}
	var missing []string
	rights, own := restart.Rights(), restart.OwnRights()
	if reloads {
		rights, own = append(rights, reload.Rights()...), append(own, reload.OwnRights()...)
	}
	if launches {
		rights = append(rights, restart.LaunchRights()...)
	}
	for i, r := range append(slices.Clone(rights), own...) {
		namespace := ""
		if i >= len(rights) {
			namespace = ownNamespace()
		}
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Group: r.Group, Resource: r.Resource, Subresource: r.Subresource, Verb: r.Verb},
		}}
		answer, err := c.SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return finding{levelFailed, "rights", fmt.Sprintf("cannot ask for this agent's rights: %v", err)}
		}
		if !answer.Status.Allowed {
			missing = append(missing, r.String())
		}
	}
	if len(missing) > 0 {
		return finding{levelFailed, "rights", "not allowed: " + strings.Join(missing, ", ") + ": apply manifests/base/rbac.yaml"}
	}
	return finding{levelOK, "rights", fmt.Sprintf("all %d that it needs", len(rights)+len(own))}
}
