package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/restart"
)

const rbacHead = `# Generated from restart.Rights by make generate; change it there.
#
# What an agent may do in the API, verb by verb. test/e2e reads the audit log
# to see that nothing else is asked.
apiVersion: v1
kind: ServiceAccount
metadata:
  name: nodeagent
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: nodeagent
rules:
`

const rbacTail = `---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: nodeagent
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: nodeagent
subjects:
- kind: ServiceAccount
  name: nodeagent
  namespace: nodeagent
`

// rbac writes one rule for each resource, in the table's order.
func rbac(string) ([]byte, error) {
	out := bytes.NewBufferString(rbacHead)
	writeRules(out, restart.Rights())
	out.WriteString(rbacTail)
	out.WriteString(ownHead)
	writeRules(out, restart.OwnRights())
	out.WriteString(ownTail)
	return out.Bytes(), nil
}

const ownHead = `---
# What the agents share among themselves stands in their own namespace.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: nodeagent
rules:
`

const ownTail = `---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: nodeagent
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: nodeagent
subjects:
- kind: ServiceAccount
  name: nodeagent
  namespace: nodeagent
`

const otherKindsHead = `# Generated from restart.OtherRights by make generate; change it there.
#
# What an agent needs besides the base to restart workloads of Argo Rollouts,
# OpenKruise and OpenShift.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: nodeagent-other-kinds
rules:
`

// otherKinds writes the role for workloads that not every cluster has.
func otherKinds(string) ([]byte, error) {
	return besides("nodeagent-other-kinds", otherKindsHead, restart.OtherRights()), nil
}

const launchHead = `# Generated from restart.LaunchRights by make generate; change it there.
#
# What an agent needs besides the base to launch Binaries on its node.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: nodeagent-launch
rules:
`

// launch writes the role for launching.
func launch(string) ([]byte, error) {
	return besides("nodeagent-launch", launchHead, restart.LaunchRights()), nil
}

// besides is a role of an overlay, and its binding to the agent's account.
func besides(name, head string, rights []restart.Right) []byte {
	out := bytes.NewBufferString(head)
	writeRules(out, rights)
	out.WriteString(bindingOf(name))
	return out.Bytes()
}

// bindingOf binds another ClusterRole as the base's is bound.
func bindingOf(name string) string {
	return strings.NewReplacer("name: nodeagent\nroleRef", "name: "+name+"\nroleRef",
		"kind: ClusterRole\n  name: nodeagent\n", "kind: ClusterRole\n  name: "+name+"\n").Replace(rbacTail)
}

func writeRules(out *bytes.Buffer, rights []restart.Right) {
	var order []string
	rules := map[string][]restart.Right{}
	for _, r := range rights {
		resource := r.Resource
		if r.Subresource != "" {
			resource += "/" + r.Subresource
		}
		key := fmt.Sprintf("- apiGroups: [%q]\n  resources: [%s]\n", r.Group, resource)
		if rules[key] == nil {
			order = append(order, key)
		}
		rules[key] = append(rules[key], r)
	}
	for _, key := range order {
		out.WriteString(key + "  verbs:\n")
		for _, r := range rules[key] {
			fmt.Fprintf(out, "  # %s\n  - %s\n", r.Reason, r.Verb)
		}
	}
}
