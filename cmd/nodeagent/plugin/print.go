package plugin

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/restart"
)

// print writes the Restarts as they were last seen, as kubectl would.
func (o *options) print(states []state) error {
	if o.output == "" || len(states) == 0 {
		return nil
	}
	if o.output == "name" {
		for _, s := range states {
			fmt.Fprintf(o.out, "restart.nodeagent.dev/%s\n", s.restart.Name)
		}
		return nil
	}
	list := &v1alpha1.RestartList{}
	list.APIVersion, list.Kind = "v1", "List"
	for _, s := range states {
		r := s.restart.DeepCopy()
		r.APIVersion, r.Kind, r.ManagedFields = v1alpha1.GroupVersion().String(), "Restart", nil
		list.Items = append(list.Items, *r)
	}
	var what any = list
	if len(list.Items) == 1 {
		what = &list.Items[0]
	}
	raw, err := json.MarshalIndent(what, "", "    ")
	if err == nil && o.output == "yaml" {
		raw, err = yaml.JSONToYAML(raw)
	}
	if template, ok := o.template(); ok && err == nil {
		return fill(o.out, template, raw)
	}
	if err != nil {
		return fmt.Errorf("cannot print the Restarts: %w", err)
	}
	fmt.Fprintln(o.out, strings.TrimSuffix(string(raw), "\n"))
	return nil
}

// parseTemplate reads a template as kubectl does: a field that is not there is
// empty.
func parseTemplate(text string) (*jsonpath.JSONPath, error) {
	template := jsonpath.New("output").AllowMissingKeys(true)
	if err := template.Parse(text); err != nil {
		return nil, fmt.Errorf("cannot use the template %q: %w", text, err)
	}
	return template, nil
}

// fill writes a template with the fields of what stands in JSON.
func fill(out io.Writer, text string, raw []byte) error {
	template, err := parseTemplate(text)
	if err != nil {
		return err
	}
	var fields any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return fmt.Errorf("cannot print the Restarts: %w", err)
	}
	if err := template.Execute(out, fields); err != nil {
		return fmt.Errorf("cannot fill the template %q: %w", text, err)
	}
	return nil
}

// showPlan tells a person what a restart would do.
func showPlan(out io.Writer, name string, scope v1alpha1.Scope, plan restart.Plan) {
	if plan.Refusal != "" {
		fmt.Fprintf(out, "%s would be refused: %s\n", name, plan.Refusal)
		return
	}
	what := fmt.Sprintf("its %d pods are", len(plan.Pods))
	if scope == v1alpha1.ScopePod || len(plan.Pods) == 1 {
		what = "1 pod is"
	}
	fmt.Fprintf(out, "%s would be restarted: %s %s\n", name, what, methods(plan.Method))
	for _, pod := range plan.Pods {
		fmt.Fprintf(out, "  pod/%s on %s\n", pod.Name, pod.Node)
	}
	for _, w := range plan.Warnings {
		fmt.Fprintf(out, "  note: %s\n", w)
	}
}
