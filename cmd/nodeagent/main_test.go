package main

import (
	"bytes"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch"
)

var update = flag.Bool("update", false, "write the golden files anew")

// asProgram makes the test binary be nodeagent itself: a process of its own,
// with the race detector where the tests have it.
const asProgram = "NODEAGENT_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	fetch.ChildMain()
	if os.Getenv(asProgram) != "" {
		os.Exit(execute(os.Args))
	}
	os.Exit(m.Run())
}

// program prepares one run of nodeagent.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "NODE_NAME=node-1", "KUBECONFIG=/nonexistent")
	cmd.Dir = t.TempDir()
	return cmd
}

// run runs nodeagent to its end.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := program(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestRefusesInOneLine: whatever is wrong at the start is told in one line of
// standard error, and the exit code is 1.
func TestRefusesInOneLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	folder := t.TempDir()
	socket := filepath.Join(folder, "c.sock")
	quiet, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.Close()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := file("bad.yaml", "disk:\n  horizn: 5m\n  reserve: much\n")
	missing := file("missing.yaml", "containerd: {socket: /nonexistent/c.sock}")
	plain := file("plain.yaml", "containerd: {socket: "+bad+"}")
	free := file("free.yaml", "listen: 127.0.0.1:0\ncontainerd: {socket: "+socket+"}")
	recording := filepath.Join(folder, "samples")
	port := file("port.yaml", "listen: "+taken.Addr().String()+"\ncontainerd: {socket: "+socket+"}")

	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"unknown field", []string{"run", "--config", bad},
			"nodeagent: cannot use config " + bad + ": disk.horizn: Forbidden: unknown field: want one of cpu, horizon, method, minimum, reserve\n"},
		{"no such file", []string{"run", "--config", "/nonexistent/config.yaml"},
			"nodeagent: cannot read config: open /nonexistent/config.yaml: no such file or directory\n"},
		{"no such file for check", []string{"check", "--config", "/nonexistent/config.yaml"},
			"nodeagent: cannot read config: open /nonexistent/config.yaml: no such file or directory\n"},
		{"no socket", []string{"run", "--standalone", "--config", missing},
			"nodeagent: cannot find containerd's socket /nonexistent/c.sock: start containerd, or set containerd.socket to where its socket is\n"},
		{"no socket but a file", []string{"run", "--standalone", "--config", plain},
			"nodeagent: cannot use containerd's socket " + bad + ": it is not a socket: set containerd.socket to where its socket is\n"},
		{"port taken", []string{"run", "--standalone", "--config", port},
			"nodeagent: cannot serve metrics: listen tcp " + taken.Addr().String() + ": bind: address already in use: set listen to a free address\n"},
		{"no kubeconfig", []string{"run", "--kubeconfig", "/nonexistent/kube", "--config", free},
			"nodeagent: cannot find the Kubernetes API (run with --standalone to do without it): stat /nonexistent/kube: no such file or directory\n"},
		{"no quantity to record", []string{"run", "--standalone", "--config", free, "--record", recording, "--record-limit", "much"},
			"nodeagent: cannot use --record-limit \"much\": want a quantity such as 64Mi\n"},
		{"too little to record", []string{"run", "--standalone", "--config", free, "--record", recording, "--record-limit", "4Ki"},
			"nodeagent: cannot record to " + recording + ": want a limit of at least 64Ki\n"},
		{"nowhere to record to", []string{"run", "--standalone", "--config", free, "--record", "/nonexistent/samples"},
			"nodeagent: cannot record: open /nonexistent/samples: no such file or directory\n"},
		{"unknown command", []string{"runn"}, "nodeagent: unknown command \"runn\" for \"nodeagent\"\n"},
		{"unknown flag", []string{"run", "--standalon"}, "nodeagent: unknown flag: --standalon\n"},
		{"unknown level", []string{"run", "--log-level", "LOUD"},
			"nodeagent: invalid argument \"LOUD\" for \"--log-level\" flag: slog: level string \"LOUD\": unknown name\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, stderr, code := run(t, tt.args...)
			if code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if got := withoutLog(stderr); got != tt.want {
				t.Errorf("standard error\n got %q\nwant %q", got, tt.want)
			}
		})
	}
}

// withoutLog drops the log, whose lines begin with their time.
func withoutLog(stderr string) string {
	var kept strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "time=") {
			_, _ = io.WriteString(&kept, line)
		}
	}
	return kept.String()
}

func TestVersion(t *testing.T) {
	stdout, _, code := run(t, "version")
	if code != 0 || !strings.HasPrefix(stdout, "nodeagent ") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("version: code %d, %q", code, stdout)
	}
}
