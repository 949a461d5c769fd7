package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/build/alerts"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

const root = "../.."

func TestUpToDate(t *testing.T) {
	for _, p := range pages(alerts.Runbooks) {
		t.Run(p.path, func(t *testing.T) {
			want, err := p.make(root)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(root, p.path))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s is not what the code says: run make generate and commit what it changed", p.path)
			}
		})
	}
}

// TestRights reads the manifest as the API server would: it grants what the
// table says, all of it and nothing else, to the agent's service account.
func TestRights(t *testing.T) {
	file, err := os.ReadFile(filepath.Join(root, "manifests/base/rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	parts := bytes.Split(file, []byte("\n---\n"))
	if len(parts) != 5 {
		t.Fatalf("%d documents, want 5", len(parts))
	}
	var account corev1.ServiceAccount
	var role rbacv1.ClusterRole
	var binding rbacv1.ClusterRoleBinding
	var own rbacv1.Role
	var ownBinding rbacv1.RoleBinding
	for i, into := range []any{&account, &role, &binding, &own, &ownBinding} {
		if err := yaml.UnmarshalStrict(parts[i], into); err != nil {
			t.Fatal(err)
		}
	}
	wantRights(t, role.Rules, restart.Rights())
	wantRights(t, own.Rules, restart.OwnRights())
	if binding.RoleRef.Name != role.Name || len(binding.Subjects) != 1 || binding.Subjects[0].Name != account.Name {
		t.Errorf("the role is bound as %+v to %+v", binding.RoleRef, binding.Subjects)
	}
	if ownBinding.RoleRef.Name != own.Name || ownBinding.RoleRef.Kind != "Role" || len(ownBinding.Subjects) != 1 || ownBinding.Subjects[0].Name != account.Name {
		t.Errorf("the role of their own namespace is bound as %+v to %+v", ownBinding.RoleRef, ownBinding.Subjects)
	}
}

// wantRights holds rules to the table.
func wantRights(t *testing.T, rules []rbacv1.PolicyRule, table []restart.Right) {
	t.Helper()
	var granted, wanted []string
	for _, rule := range rules {
		if len(rule.ResourceNames)+len(rule.NonResourceURLs) > 0 {
			t.Errorf("a rule of another sort: %v", rule)
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					granted = append(granted, verb+" "+group+" "+resource)
				}
			}
		}
	}
	for _, r := range table {
		resource := r.Resource
		if r.Subresource != "" {
			resource += "/" + r.Subresource
		}
		wanted = append(wanted, r.Verb+" "+r.Group+" "+resource)
		if r.Reason == "" {
			t.Errorf("%s has no reason", r)
		}
	}
	slices.Sort(granted)
	slices.Sort(wanted)
	if !slices.Equal(granted, wanted) {
		t.Errorf("granted %q\nwanted  %q", granted, wanted)
	}
}
