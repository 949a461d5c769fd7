package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agent is a running `nodeagent run`, a process of its own.
type agent struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	log  *transcript
	done chan struct{} // closed when the process has ended
}

// startAgent runs the agent against a containerd and returns once it serves.
func startAgent(t *testing.T, d *containerd, args ...string) *agent {
	t.Helper()
	config := writeConfig(t, "listen: 127.0.0.1:0\ncontainerd: {socket: "+d.socket+"}\n")
	a := &agent{t: t, cmd: program(t, append([]string{"run", "--config", config}, args...)...), done: make(chan struct{})}
	stderr, err := a.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.log = newTranscript(stderr)
	go func() {
		defer close(a.done)
		<-a.log.ended
		_ = a.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		<-a.done
		if t.Failed() {
			t.Logf("the agent's log:\n%s", a.log.text.String())
		}
	})
	select {
	case line := <-a.log.first:
		listen := regexp.MustCompile(`listen=(\S+)`).FindStringSubmatch(line)
		if listen == nil {
			t.Fatalf("the first line of the log tells no address: %q", line)
		}
		a.url = "http://" + listen[1]
	case <-a.done:
		t.Fatal("the agent ended at once")
	case <-time.After(patience):
		t.Fatal("the agent says nothing")
	}
	return a
}

// transcript reads a process's log; text may be read once ended is closed.
type transcript struct {
	text  bytes.Buffer
	first chan string
	ended chan struct{}
}

func newTranscript(r io.Reader) *transcript {
	x := &transcript{first: make(chan string, 1), ended: make(chan struct{})}
	go func() {
		defer close(x.ended)
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if x.text.Len() == 0 {
				x.first <- lines.Text()
			}
			x.text.WriteString(lines.Text() + "\n")
		}
	}()
	return x
}

func (a *agent) get(path string) (code int, body string) {
	a.t.Helper()
	response, err := http.Get(a.url + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// await asks a path until its answer holds, and returns that.
func (a *agent) await(path, what string, holds func(code int, body string) bool) string {
	a.t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		code, body := a.get(path)
		if holds(code, body) {
			return body
		}
		select {
		case <-again.C:
		case <-a.done:
			a.t.Fatalf("the agent ended while waiting for: %s", what)
		case <-deadline:
			a.t.Fatalf("waited %s for: %s; have %d\n%s", patience, what, code, body)
		}
	}
}

func (a *agent) awaitReady() {
	a.t.Helper()
	a.await("/readyz", "ready", func(code int, _ string) bool { return code == http.StatusOK })
}

// terminate asks the agent to end, and tells its exit code.
func (a *agent) terminate() int {
	a.t.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		a.t.Fatal(err)
	}
	select {
	case <-a.done:
	case <-time.After(8 * time.Second): // the DaemonSet's grace is 10 s
		a.t.Fatal("the agent is still there 8 s after SIGTERM")
	}
	return a.cmd.ProcessState.ExitCode()
}

// sample reads the value of one series, and whether it is there.
func sample(t *testing.T, exposition, series string) (float64, bool) {
	t.Helper()
	for line := range strings.Lines(exposition) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v, true
		}
	}
	return 0, false
}

const webBytes = `nodeagent_container_disk_bytes{container="web",namespace="shop",part="layer",pod="web-01",uid="00000000-0000-0000-0000-000000000001"}`

// TestStandalone is the life of an agent without an API.
func TestStandalone(t *testing.T) {
	d := newContainerd(t)
	upper := d.addPod(t, "web-01", "web")
	write(t, filepath.Join(upper, "debug.log"), 3<<20)
	a := startAgent(t, d, "--standalone")

	if code, body := a.get("/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	a.awaitReady()
	_, text := a.get("/metrics")
	if v, ok := sample(t, text, webBytes); !ok || v < 3<<20 || v > 3<<20+65536 {
		t.Errorf("%s = %v, %v; want 3 MiB and the folder itself", webBytes, v, ok)
	}
	if v, _ := sample(t, text, "promhttp_metric_handler_errors_total{cause=\"gathering\"}"); v != 0 {
		t.Errorf("%v errors while gathering", v)
	}

	write(t, filepath.Join(upper, "more.log"), 5<<20)
	a.await("/metrics", "what was written since", func(_ int, text string) bool {
		v, _ := sample(t, text, webBytes)
		return v >= 8<<20
	})
	if code := a.terminate(); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	text = a.log.text.String()
	if !strings.Contains(text, "nodeagent ends") || strings.Contains(text, "level=ERROR") || strings.Contains(text, "fills the disk") {
		t.Errorf("the log at a clean end:\n%s", text)
	}
}

// TestContainerdAway: while containerd is dead the last figures are served,
// with their age, and the layers are measured on.
func TestContainerdAway(t *testing.T) {
	d := newContainerd(t)
	upper := d.addPod(t, "web-01", "web")
	write(t, filepath.Join(upper, "debug.log"), 1<<20)
	began := time.Now()
	a := startAgent(t, d, "--standalone")
	a.awaitReady()

	d.stop(syscall.SIGKILL)
	text := a.await("/metrics", "containerd seen to be away", func(_ int, text string) bool {
		v, ok := sample(t, text, "nodeagent_runtime_connected")
		return ok && v == 0
	})
	if v, ok := sample(t, text, webBytes); !ok || v < 1<<20 {
		t.Errorf("bytes %v, %v; want the last figure", v, ok)
	}
	age := strings.Replace(webBytes, "_container_disk_bytes", "_disk_measure_age_seconds", 1)
	method := "walk"
	if probeEvents("/", containerdRoot).OK {
		method = "events"
	}
	age = strings.Replace(age, `namespace="shop",`, `method="`+method+`",namespace="shop",`, 1)
	if v, ok := sample(t, text, age); !ok || v < 0 || v > time.Since(began).Seconds() {
		t.Errorf("%s = %v, %v; the agent was started %s ago", age, v, ok, time.Since(began))
	}
	if v, ok := sample(t, text, "nodeagent_runtime_confirmed_timestamp_seconds"); !ok || v < float64(began.Unix()) {
		t.Errorf("confirmed at %v, %v; the agent was started at %d", v, ok, began.Unix())
	}
	if code, body := a.get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz while containerd is away: %d %s", code, body)
	}
	write(t, filepath.Join(upper, "more.log"), 1<<20)
	a.await("/metrics", "a layer measured without containerd", func(_ int, text string) bool {
		v, _ := sample(t, text, webBytes)
		return v >= 2<<20
	})

	d.start(t)
	d.addPod(t, "web-02", "web")
	second := strings.ReplaceAll(strings.Replace(webBytes, "web-01", "web-02", 1), "0001\"", "0002\"")
	a.await("/metrics", "a container made after containerd came back", func(_ int, text string) bool {
		_, ok := sample(t, text, second)
		return ok
	})
	if code := a.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestAPIAway: without its API server the agent measures and serves, and is
// not ready, so that a DaemonSet's rollout does not go on.
func TestAPIAway(t *testing.T) {
	d := newContainerd(t)
	d.addPod(t, "web-01", "web")
	a := startAgent(t, d, "--kubeconfig", deadAPI(t))
	a.await("/readyz", "ready but for the pods", func(code int, body string) bool {
		return code == http.StatusServiceUnavailable && body == "pods: this node's pods were not yet listed\n"
	})
	_, text := a.get("/metrics")
	if _, ok := sample(t, text, webBytes); !ok {
		t.Error("nothing is measured while the API is away")
	}
	if code := a.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// deadAPI is the kubeconfig of an API server where nobody answers.
func deadAPI(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, path string, size int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(bytes.Repeat([]byte("x"), size))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil { // synced: allocated
		t.Fatal(err)
	}
}
