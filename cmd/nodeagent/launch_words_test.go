package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/source"
)

// What the API server says of a Binary that cannot be used is what the command
// line and a file say.
func TestSameWordsAsTheAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real API server")
	}
	a := startAPIServer(t)
	const someDigest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const good = `apiVersion: nodeagent.dev/v1alpha1
kind: Binary
metadata: {name: web}
spec:
  fetch: [{url: "https://example.org/web", sha256: {amd64: "` + someDigest + `"}}]
  command: [./web]
  env: [{name: LEVEL, value: x}]
  ports: [{name: http, port: 8080}, {name: admin, port: 0}]
  resources: {cpu: 1, memory: 64Mi, pids: 10, cpuset: "0-1,3", io: [{device: /dev/sda, readBytesPerSecond: 10Mi, writeOperationsPerSecond: 5}]}
  rlimits: [{name: nofile, soft: 1024, hard: 4096}, {name: core, soft: 0}]
  user: "1000:1000"
  health: {http: {port: http, path: /}, interval: 10s, delay: 1s}
  readiness: {exec: {command: [./ready]}}
  roles: ["*", public]
  update: {maxUnavailable: 10%}
`
	byDigest := "oci+http://registry.example/web@sha256:" + strings.Repeat("0", 64)
	for _, text := range []string{good, strings.Replace(good, `"https://example.org/web", sha256: {amd64: "`+someDigest+`"}`, strconv.Quote(byDigest), 1)} {
		if out, err := a.try(text, "create", "--dry-run=server", "-f", "-"); err != nil {
			t.Fatalf("a good one is refused: %s\n%s", out, text)
		}
		if _, err := source.Parse([]byte(text)); err != nil {
			t.Fatalf("a good one is refused: %v\n%s", err, text)
		}
	}
	var heard strings.Builder
	for i, tt := range [][2]string{
		{"name: web}\n", "name: web.site}\n"},
		{"name: web}\n", "name: " + strings.Repeat("x", 64) + "}\n"},
		{"https://example.org/web", "ftp://example.org/web"},
		{"sha256: {amd64", "mirrors: [gopher://x/], sha256: {amd64"},
		{"sha256: {amd64: \"" + someDigest + "\"}", "mode: '0755'"},
		{"0123456789abcdef0123", "X123456789abcdef0123"},
		{"sha256: {amd64", "sha512: {amd64: abc}, sha256: {amd64"},
		{"sha256: {amd64", "sha256: {AMD"},
		{"sha256: {amd64", "path: /etc/x, sha256: {amd64"},
		{"sha256: {amd64", "path: a/../b, sha256: {amd64"},
		{"sha256: {amd64", "mode: '4755', sha256: {amd64"},
		{"sha256: {amd64", "format: rar, sha256: {amd64"},
		{"sha256: {amd64", "stripComponents: 17, sha256: {amd64"},
		{"  command: [./web]\n", ""},
		{"name: LEVEL", "name: 1LEVEL"},
		{"name: LEVEL", "name: PORT0"},
		{"name: admin, port: 0", "name: http, port: 0"},
		{"name: admin, port: 0", "name: admin, port: 8080"},
		{"name: admin, port: 0", "name: Admin, port: 0"},
		{"name: admin, port: 0", "name: admin, port: 65536"},
		{"name: admin, port: 0", "name: admin, port: 0, protocol: SCTP"},
		{"name: admin, port: 0", "name: admin, port: 0, protocol: UDP, held: true"},
		{"cpu: 1", "cpu: 0"},
		{"memory: 64Mi", "memory: -1Gi"},
		{"pids: 10", "pids: 0"},
		{"0-1,3", "0-"},
		{"device: /dev/sda", "device: sda"},
		{"readBytesPerSecond: 10Mi", "readBytesPerSecond: 0"},
		{"writeOperationsPerSecond: 5", "writeOperationsPerSecond: 0"},
		{"name: nofile, soft: 1024", "name: nofile, soft: 5000"},
		{"name: nofile, soft: 1024", "name: nofile, soft: -1"},
		{"name: core", "name: nofile"},
		{"name: core", "name: cores"},
		{"1000:1000", "1000:wheel"},
		{"  user:", "  network: none\n  user:"},
		{"  user:", "  network: bridge\n  user:"},
		{"http: {port: http, path: /}", "http: {port: other}"},
		{"http: {port: http, path: /}", "http: {port: http}, tcp: {}"},
		{"interval: 10s", "interval: 1ms"},
		{"delay: 1s", "delay: -1s"},
		{"delay: 1s", "gracePeriod: 10us"},
		{"maxUnavailable: 10%", "deadline: -5m"},
		{"sha256: {amd64", "insecure: true, sha256: {amd64"},
		{"https://example.org/web", "oci+https://example.org/web"},
		{"exec: {command: [./ready]}", "tcp: {port: nine}"},
		{"exec: {command: [./ready]}", "exec: {command: []}"},
		{"roles: [\"*\", public]", "roles: [\"a b\"]"},
		{"maxUnavailable: 10%", "maxUnavailable: 0"},
		{"maxUnavailable: 10%", "maxUnavailable: 110%"},
		{"  update:", "  restartPolicy: Sometimes\n  update:"},
		{"  update:", "  profile: open\n  update:"},
		{"  update:", "  enforcement: Maybe\n  update:"},
		{"  update:", "  terminationGracePeriodSeconds: 4000\n  update:"},
		{"  update:", "  colour: red\n  update:"},
		{`[{url: "https://example.org/web", sha256: {amd64: "` + someDigest + `"}}]`, "[]"},
		{"  ports: [{name: http, port: 8080}, {name: admin, port: 0}]\n", ""},
	} {
		text := strings.Replace(good, tt[0], tt[1], 1)
		if i == 13 { // without a command there have to be two artifacts for a mistake
			text = strings.Replace(text, "fetch: [{", `fetch: [{url: "https://example.org/b", insecure: true}, {`, 1)
		}
		if text == good {
			t.Fatalf("%q is not in the text", tt[0])
		}
		_, err := source.Parse([]byte(text))
		if err == nil {
			t.Errorf("%q: a file with it is taken", tt[1])
			continue
		}
		out, refused := a.try(text, "create", "--dry-run=server", "-f", "-")
		if refused == nil {
			t.Errorf("%q: the API server takes it; a file says %v", tt[1], err)
			continue
		}
		heard.WriteString(out)
		words := ourWords(err.Error())
		if !strings.Contains(out, words) {
			t.Errorf("%q\nthe API server: %s\na file:         %v", tt[1], out, words)
		}
		file := filepath.Join(t.TempDir(), "web.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, said, code := run(t, "launch", "--print", "-f", file); code != 1 || !strings.Contains(said, words) {
			t.Errorf("%q\nthe command line: %d %s\na file:           %v", tt[1], code, said, words)
		}
	}
	for _, rule := range rulesOfBinary(t) {
		if !strings.Contains(heard.String(), rule) {
			t.Errorf("nothing above makes the API server say: %s", rule)
		}
	}
}

// rulesOfBinary are the words of all rules of the CRD.
func rulesOfBinary(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile("../../manifests/base/crds/nodeagent.dev_binaries.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd any
	if err := yaml.Unmarshal(raw, &crd); err != nil {
		t.Fatal(err)
	}
	var all []string
	var walk func(any)
	walk = func(at any) {
		switch at := at.(type) {
		case []any:
			for _, x := range at {
				walk(x)
			}
		case map[string]any:
			if rules, ok := at["x-kubernetes-validations"].([]any); ok {
				for _, r := range rules {
					all = append(all, r.(map[string]any)["message"].(string))
				}
			}
			for _, x := range at {
				walk(x)
			}
		}
	}
	walk(crd)
	if len(all) < 30 {
		t.Fatalf("the CRD has %d rules", len(all))
	}
	return all
}

// The flags' own mistakes are told in the same words as those of a file.
func TestFlagsHaveTheSameWords(t *testing.T) {
	digest := strings.Repeat("0", 64)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"https://example.org/web"}, "want sha256, sha512 or a signature"},
		{[]string{"--sha256", "abc", "https://example.org/web"}, "want sha256 as 64 lower case hexadecimal digits"},
		{[]string{"--insecure", "--sha256", digest, "https://example.org/web"}, "want no insecure beside a digest"},
		{[]string{"--insecure", "ftp://example.org/web"}, "want an http, https, oci or file URL"},
		{[]string{"--insecure", "--name", "a.b", "https://example.org/web"}, "want a name of at most 63 lower case letters"},
		{[]string{"--insecure", "--port", "http=99999", "https://example.org/web"}, "should be less than or equal to 65535"},
		{[]string{"--insecure", "--port", "http", "--port", "http", "https://example.org/web"}, "want each port's name once"},
		{[]string{"--insecure", "--env", "PORT0=1", "https://example.org/web"}, "want another name: nodeagent sets this variable"},
		{[]string{"--insecure", "--memory", "0", "https://example.org/web"}, "want more than 0"},
		{[]string{"--insecure", "--rlimit", "nofile=2:1", "https://example.org/web"}, "want a soft limit that is not above the hard one"},
		{[]string{"--insecure", "--network", "none", "--port", "http", "https://example.org/web"}, "want no ports with network none"},
		{[]string{"--insecure", "--health", "http:web/", "https://example.org/web"}, "want at least one port"},
		{[]string{"--insecure", "--profile", "open", "https://example.org/web"}, "supported values"},
		{[]string{"--insecure", "--restart", "Sometimes", "https://example.org/web"}, "supported values"},
	} {
		_, said, code := run(t, append([]string{"launch", "--print"}, tt.args...)...)
		if code != 1 || !strings.Contains(said, tt.want) || strings.Count(said, "\n") != 1 {
			t.Errorf("%q: code %d, %s", tt.args, code, said)
		}
	}
}

// ourWords is what is wrong without the line, the path and the value, which
// the API server writes in its own way.
func ourWords(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	for _, start := range []string{"want ", "should ", "supported values", "unknown field"} {
		if i := strings.Index(text, start); i >= 0 {
			return text[i:]
		}
	}
	return strconv.Quote(text)
}
