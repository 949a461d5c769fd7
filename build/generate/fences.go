package main

import (
	"bytes"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

const fencesHead = `# Generated from restart.Fences by make generate; change it there.
#
# What the API server refuses an agent although its role would allow it. They
# know an agent by its account, ` + restart.AgentAccount + `:
# whoever installs it in another namespace changes that here too.
`

const approverRole = `---
# Bind it to those who approve restarts of a namespace, or of the cluster.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: nodeagent-approver
rules:
- apiGroups: ["nodeagent.dev"]
  resources: [restarts]
  verbs: [approve, get, list, watch, patch]
`

// fences writes a ValidatingAdmissionPolicy and its binding for each Fence.
func fences(string) ([]byte, error) {
	out := bytes.NewBufferString(fencesHead)
	for _, f := range restart.Fences(v1alpha1.DefaultConfig().Restart.ExcludeNamespaces) {
		for _, o := range []any{policy(f), binding(f)} {
			if err := writeObject(out, o); err != nil {
				return nil, fmt.Errorf("cannot write %s: %w", f.Name, err)
			}
		}
	}
	out.WriteString(approverRole)
	return out.Bytes(), nil
}

// writeObject leaves out the status, which is the API server's.
func writeObject(out *bytes.Buffer, o any) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return err
	}
	delete(fields, "status")
	delete(fields["metadata"].(map[string]any), "creationTimestamp")
	text, err := yaml.Marshal(fields)
	if err != nil {
		return err
	}
	out.WriteString("---\n")
	out.Write(text)
	return nil
}

func policy(f restart.Fence) *admissionv1.ValidatingAdmissionPolicy {
	fail := admissionv1.Fail
	p := &admissionv1.ValidatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: f.Name, Annotations: map[string]string{"kubernetes.io/description": f.Purpose}},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail, MatchConstraints: &admissionv1.MatchResources{},
		},
	}
	if !f.Everybody {
		p.Spec.MatchConditions = []admissionv1.MatchCondition{{
			Name: "an-agent", Expression: fmt.Sprintf("request.userInfo.username == '%s'", restart.AgentAccount),
		}}
	}
	for _, r := range f.Resources {
		rule := admissionv1.RuleWithOperations{Rule: admissionv1.Rule{APIGroups: r.Groups, APIVersions: []string{"*"}, Resources: r.Resources}}
		for _, o := range r.Operations {
			rule.Operations = append(rule.Operations, admissionv1.OperationType(o))
		}
		p.Spec.MatchConstraints.ResourceRules = append(p.Spec.MatchConstraints.ResourceRules, admissionv1.NamedRuleWithOperations{RuleWithOperations: rule})
	}
	for _, v := range f.Variables {
		p.Spec.Variables = append(p.Spec.Variables, admissionv1.Variable{Name: v.Name, Expression: v.CEL})
	}
	for _, v := range f.Rules {
		p.Spec.Validations = append(p.Spec.Validations, admissionv1.Validation{Expression: v.CEL, Message: v.Name})
	}
	return p
}

func binding(f restart.Fence) *admissionv1.ValidatingAdmissionPolicyBinding {
	return &admissionv1.ValidatingAdmissionPolicyBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicyBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: f.Name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: f.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
}
