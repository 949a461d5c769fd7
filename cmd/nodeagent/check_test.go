package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	d := newContainerd(t)
	d.addPod(t, "web-01", "web")
	config := writeConfig(t, "containerd: {socket: "+d.socket+"}\nlisten: 127.0.0.1:0\n")

	stdout, stderr, code := run(t, "check", "--standalone", "--config", config)
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, %q\n%s", code, stderr, stdout)
	}
	for _, want := range []string{
		`(?m)^ok +config +node node-1, listen 127.0.0.1:0$`,
		`(?m)^ok +containerd +v2\S+ at ` + regexp.QuoteMeta(d.socket) + `: 1 containers in k8s\.io$`,
		`(?m)^ok +snapshotter +overlayfs: layers are plain folders$`,
		`(?m)^ok +layers +` + regexp.QuoteMeta(d.folder) + `/root/io\.containerd\.snapshotter\.v1\.overlayfs can be read`,
		`(?m)^ok +open files +of \d+ processes can be looked at`,
		`(?m)^ok +cgroups +version `,
		`(?m)^info +kernel +\d`,
		`(?m)^(ok +method +events|info +method +walk): .*below ` + regexp.QuoteMeta(d.folder) + `/root/io\.containerd\.snapshotter\.v1\.overlayfs`,
		`(?m)^info +landlock +`,
		`(?m)^info +api +not asked \(--standalone\)$`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("no line %s in\n%s", want, stdout)
		}
	}

	t.Run("the API is away", func(t *testing.T) {
		stdout, _, code := run(t, "check", "--kubeconfig", deadAPI(t), "--config", config)
		if code != 1 || !regexp.MustCompile(`(?m)^FAILED +api +cannot reach the Kubernetes API at http://127\.0\.0\.1:1: `).MatchString(stdout) {
			t.Errorf("exit code %d\n%s", code, stdout)
		}
	})
}

// TestCheckWithoutContainerd: all the rest is told nonetheless.
func TestCheckWithoutContainerd(t *testing.T) {
	config := writeConfig(t, "containerd: {socket: /nonexistent/c.sock}")
	stdout, stderr, code := run(t, "check", "--standalone", "--config", config)
	if code != 1 || stderr != "nodeagent: check: the agent cannot do its job here: see the lines that say FAILED\n" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	want := `(?m)^FAILED +containerd +cannot find containerd's socket /nonexistent/c\.sock: start containerd, or set containerd\.socket to where its socket is$`
	if !regexp.MustCompile(want).MatchString(stdout) || !strings.Contains(stdout, "kernel") {
		t.Errorf("got\n%s", stdout)
	}
}

// TestReportKeepsToLines: a finding is one line, whatever an error says.
func TestReportKeepsToLines(t *testing.T) {
	var out strings.Builder
	err := report(&out, []finding{{levelOK, "a", "fine"}, {levelLacking, "b", "one\ntwo\tthree"}})
	if want := "ok       a  fine\nlacking  b  one two three\n"; err != nil || out.String() != want {
		t.Errorf("got %q, %v; want %q", out.String(), err, want)
	}
	if err := report(&out, []finding{{levelFailed, "a", ""}}); err == nil {
		t.Error("a failed finding is no error")
	}
}

func TestCheckLayers(t *testing.T) {
	cfg, err := parseConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.HostRoot = t.TempDir()
	if got := checkLayers(t.Context(), cfg, runOptions{}); got[0].level != levelFailed || !strings.Contains(got[0].text, "set hostRoot") {
		t.Errorf("an empty folder as the host's root: %+v", got)
	}
	for _, dir := range []string{"/proc", "/etc"} {
		if err := os.Mkdir(cfg.HostRoot+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := checkLayers(t.Context(), cfg, runOptions{}); got[0].level != levelLacking {
		t.Errorf("without the folder: %+v", got)
	}
	if err := os.MkdirAll(cfg.HostRoot+"/var/lib/containerd", 0o700); err != nil {
		t.Fatal(err)
	}
	got := checkLayers(t.Context(), cfg, runOptions{})
	if got[0].level != levelOK || !regexp.MustCompile(`can be read; its file system has \d+% of \S+ \wiB free, reserve 15% \(the kubelet's default, as no process called kubelet is seen\)$`).MatchString(got[0].text) {
		t.Errorf("with the folder: %+v", got)
	}
}
