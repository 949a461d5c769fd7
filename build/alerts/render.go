package alerts

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"sigs.k8s.io/yaml"
)

// Runbooks is where the pages of docs/runbooks are read, unless another place
// is given to build/generate.
const Runbooks = "https://github.com/nodeagent/nodeagent/blob/main/docs/runbooks"

const head = "# Generated from build/alerts by make generate; change it there.\n"

// file is Prometheus' own format of a rules file, and the spec of a
// PrometheusRule alike.
type file struct {
	Groups []group `json:"groups"`
}

type group struct {
	Name  string  `json:"name"`
	Rules []entry `json:"rules"`
}

type entry struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// Plain is the rules file that Prometheus reads.
func Plain(runbooks string) ([]byte, error) {
	return marshal(rulesFile(runbooks))
}

// Object is the same as an object of the Prometheus operator.
func Object(runbooks string) ([]byte, error) {
	return marshal(map[string]any{
		"apiVersion": "monitoring.coreos.com/v1",
		"kind":       "PrometheusRule",
		"metadata": map[string]any{
			"name":   "nodeagent",
			"labels": map[string]string{"app.kubernetes.io/name": "nodeagent"},
		},
		"spec": rulesFile(runbooks),
	})
}

func rulesFile(runbooks string) file {
	g := group{Name: "nodeagent"}
	for _, r := range Rules() {
		e := entry{
			Alert:  r.Name,
			Expr:   r.Expr,
			Labels: map[string]string{"severity": string(r.Severity)},
			Annotations: map[string]string{
				"summary":     r.Summary,
				"description": r.Description,
				"runbook_url": strings.TrimSuffix(runbooks, "/") + "/" + r.Name + ".md",
			},
		}
		if r.For > 0 {
			e.For = model.Duration(r.For).String()
		}
		g.Rules = append(g.Rules, e)
	}
	return file{Groups: []group{g}}
}

func marshal(v any) ([]byte, error) {
	text, err := yaml.Marshal(v)
	return append([]byte(head), text...), err
}

// Table is the alerts for docs/alerts.md.
func Table() []byte {
	var out bytes.Buffer
	out.WriteString("| alert | severity | when | for |\n|---|---|---|---|\n")
	for _, r := range Rules() {
		fmt.Fprintf(&out, "| [%s](runbooks/%s.md) | %s | %s | %s |\n", r.Name, r.Name, r.Severity, r.When, wait(r.For))
	}
	return out.Bytes()
}

func wait(d time.Duration) string {
	if d == 0 {
		return "at once"
	}
	return model.Duration(d).String()
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(text, "\n", "\n"+by)
}
