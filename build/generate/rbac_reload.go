package main

import (
	"bytes"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/reload"
)

const reloadHead = `# Generated from reload.Rights by make generate; change it there.
#
# What an agent needs besides the base to restart workloads whose ConfigMaps or
# Secrets changed: to read them in the whole cluster. RBAC cannot grant their
# metadata alone.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: nodeagent-reload
rules:
`

const reloadOwn = `---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: nodeagent-reload
rules:
`

// reloadRights writes the roles of manifests/overlays/reload.
func reloadRights(string) ([]byte, error) {
	out := bytes.NewBuffer(besides("nodeagent-reload", reloadHead, reload.Rights()))
	out.WriteString(reloadOwn)
	writeRules(out, reload.OwnRights())
	out.WriteString(strings.NewReplacer("ClusterRoleBinding", "RoleBinding", "kind: ClusterRole\n", "kind: Role\n").Replace(bindingOf("nodeagent-reload")))
	return out.Bytes(), nil
}
