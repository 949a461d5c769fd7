package parts

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/source"
	"github.com/nodeagent/nodeagent/test/tarball"
)

// TestExamples plays each file of manifests/examples as it is, but for where its
// artifacts are, their digests, and its ports: from a URL to a healthy task.
func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("needs real programs to launch")
	}
	files, err := filepath.Glob("../../../manifests/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	n := newNode(t)
	served := exampleArtifacts(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, ok := served[artifactOf(r.URL.Path)]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(content)
	}))
	defer srv.Close()
	var all []*v1alpha1.Binary
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found, err := source.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, b := range found {
			b.Generation = 1
			b.Spec.Enforcement = v1alpha1.EnforcementBestEffort // as in the other tests here
			for i := range b.Spec.Fetch {
				a := &b.Spec.Fetch[i]
				a.URL = strings.Replace(a.URL, "https://example.org", srv.URL, 1)
				sum := sha256.Sum256(served[artifactOf(a.URL)])
				a.SHA256 = map[string]v1alpha1.Digest{"*": v1alpha1.Digest(hex.EncodeToString(sum[:]))}
			}
			for i := range b.Spec.Ports {
				b.Spec.Ports[i].Port = 0
			}
			all = append(all, b)
		}
	}
	n.agent(all...)
	for _, b := range all {
		i := n.up(b.Name, 1)
		if want := says(b.Name); want != "" {
			hears(t, i, want)
		}
	}
	for name, want := range map[string]string{"node-exporter": "node_uname_info{", "blackbox-exporter": "blackbox_exporter_build_info{"} {
		i, _ := n.supervisor.Instance(name)
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", i.Status.Ports[0].Port))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s has no %s in its metrics: %v", name, want, err)
		}
	}
}

// artifactOf names what a URL of an example means, whatever its version.
func artifactOf(url string) string {
	name, _, _ := strings.Cut(path.Base(url), "-")
	return name
}

// exampleArtifacts are what the examples fetch: Debian's exporters in an archive
// as their makers publish them, a script, and an archive with a configuration.
func exampleArtifacts(t *testing.T) map[string][]byte {
	t.Helper()
	program := func(variable string) []byte {
		file := os.Getenv(variable)
		if file == "" {
			t.Fatalf("%s names no program: run `make test`", variable)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	packed := func(files ...tarball.File) []byte {
		archive, err := tarball.Pack("release-1.0", files...)
		if err != nil {
			t.Fatal(err)
		}
		return archive
	}
	return map[string][]byte{
		"node_exporter":     packed(tarball.File{Name: "node_exporter", Content: program("NODEAGENT_TEST_NODE_EXPORTER")}),
		"blackbox_exporter": packed(tarball.File{Name: "blackbox_exporter", Content: program("NODEAGENT_TEST_BLACKBOX_EXPORTER")}),
		"blackbox.yml":      []byte("modules: {http_2xx: {prober: http}}\n"),
		"heartbeat.sh":      []byte("while :; do echo beats; sleep 1; done\n"),
		"app": packed(
			tarball.File{Name: "bin/app", Content: []byte("#!/bin/sh\necho $LEVEL by $(cat $1)\nexec sleep 1000\n")},
			tarball.File{Name: "etc/app.conf", Content: []byte("its own file\n")},
		),
	}
}

// says is what an example's task writes.
func says(name string) string {
	return map[string]string{"heartbeat": "beats", "with-config": "debug by its own file"}[name]
}

// hears waits until the task has written a line.
func hears(t *testing.T, i binlaunch.Instance, line string) {
	t.Helper()
	out, err := i.Output(true)
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(60*time.Second, func() { _ = out.Close() })
	defer late.Stop()
	defer out.Close()
	var heard []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if heard = append(heard, lines.Text()); lines.Text() == line {
			return
		}
	}
	t.Errorf("%s wrote %q, want a line %q", i.Name, heard, line)
}
