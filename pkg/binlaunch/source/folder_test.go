package source

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

const good = `apiVersion: nodeagent.dev/v1alpha1
kind: Binary
metadata: {name: node-exporter}
spec:
  fetch:
  - url: https://example.org/node_exporter-1.9.1.linux-{{arch}}.tar.gz
    sha256: {amd64: ` + digest + `}
    stripComponents: 1
  command: [./node_exporter, --web.listen-address=:$(PORT0)]
  ports: [{name: metrics, port: 9100}]
  resources: {cpu: 250m, memory: 64Mi, pids: 64, disk: 100Mi}
  profile: host-observer
  roles: ["*"]
  health: {http: {port: metrics, path: /}, interval: 10s}
  update: {maxUnavailable: 10%}
`

const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParse(t *testing.T) {
	all, err := Parse([]byte(good + "---\n---\n" + strings.Replace(good, "node-exporter", "second", 1)))
	if err != nil || len(all) != 2 || all[0].Name != "node-exporter" || all[1].Name != "second" {
		t.Fatalf("%v, %v", all, err)
	}
	s := all[0].Spec.Defaulted()
	if s.Health.Interval.Duration != 10*time.Second || s.Health.Timeout.Duration != 20*time.Second || *s.Health.MaxConsecutiveFailures != 3 ||
		s.Health.GracePeriod.Duration != 5*time.Minute || s.Resources.CPU.MilliValue() != 250 || s.Update.MaxUnavailable.String() != "10%" {
		t.Errorf("%+v", s)
	}
}

func TestParseTellsTheLine(t *testing.T) {
	for _, tt := range []struct{ name, from, to, want string }{
		{"unknown field", "  profile: host-observer", "  profil: host-observer", `line 12: unknown field "spec.profil"`},
		{"wrong value", "profile: host-observer", "profile: open", `line 12: spec.profile: Unsupported value: "open": supported values: "host-observer", "isolated", "privileged"`},
		{"wrong type", "ports: [{name: metrics, port: 9100}]", "ports: 9100", "line 10: spec.ports: want a list, not a JSON number"},
		{"digest", digest, "abc", `line 6: spec.fetch[0]: Invalid value: "abc": want sha256 as 64 lower case hexadecimal digits`},
		{"port", "port: 9100", "port: 91000", "line 10: spec.ports[0].port: Invalid value: 91000: should be less than or equal to 65535"},
		{"kind", "kind: Binary", "kind: Pod", `line 2: kind: Unsupported value: "Pod": supported values: "Binary"`},
		{"twice", "  roles: [\"*\"]", "  roles: [a]\n  roles: [b]", `line 14: mapping key "roles" already defined at line 13`},
		{"syntax", "roles: [\"*\"]", "roles: [\"*\"", "line 12: did not find expected ',' or ']'"},
		{"probe", "http: {port: metrics, path: /}", "http: {port: other}", `line 14: spec.health.port: Invalid value: "other": want health.port to be the name of one of the ports`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(good, tt.from, tt.to, 1)
			if text == good {
				t.Fatal("nothing replaced")
			}
			_, err := Parse([]byte(text))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	f := &Folder{Path: filepath.Join(dir, "binaries.d"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	names := func() string {
		var all []string
		for _, b := range f.Binaries() {
			all = append(all, b.Name+"="+b.Spec.Command[0])
		}
		return strings.Join(all, " ")
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(f.Path, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f.Scan() || names() != "" {
		t.Error("a folder that is not there wants something")
	}
	if err := os.Mkdir(f.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	write("a.yaml", good)
	write("README.txt", "not read")
	if !f.Scan() || names() != "node-exporter=./node_exporter" || f.Scan() {
		t.Errorf("read: %s", names())
	}
	write("b.yaml", good)                                              // the same name again
	write("c.yml", strings.ReplaceAll(good, "node-exporter", "other")) //
	if !f.Scan() || names() != "node-exporter=./node_exporter other=./node_exporter" {
		t.Errorf("read: %s", names())
	}
	// A file that becomes bad keeps what it said; one that is repaired says anew.
	write("c.yml", strings.Replace(strings.ReplaceAll(good, "node-exporter", "other"), "profile: host-observer", "profile: open-wide", 1))
	if f.Scan() || names() != "node-exporter=./node_exporter other=./node_exporter" {
		t.Errorf("read: %s", names())
	}
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "c.yml: line 12: spec.profile") {
		t.Errorf("told %v", err)
	}
	write("c.yml", strings.ReplaceAll(strings.ReplaceAll(good, "node-exporter", "other"), "./node_exporter", "./changed"))
	if !f.Scan() || names() != "node-exporter=./node_exporter other=./changed" || f.Err() != nil {
		t.Errorf("read: %s, %v", names(), f.Err())
	}
	if err := os.Remove(filepath.Join(f.Path, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	if !f.Scan() || names() != "node-exporter=./node_exporter other=./changed" { // b.yaml has it too
		t.Errorf("read: %s", names())
	}
	if err := os.RemoveAll(f.Path); err != nil {
		t.Fatal(err)
	}
	if !f.Scan() || names() != "" {
		t.Errorf("read: %s", names())
	}
	var told [][]*v1alpha1.Binary
	ctx, cancel := context.WithCancel(t.Context())
	_ = f.Run(ctx, func(all []*v1alpha1.Binary) { told = append(told, all); cancel() })
	if len(told) != 1 {
		t.Errorf("told %d times; an empty folder is told once", len(told))
	}
}
