package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/top"
	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/source"
	"github.com/nodeagent/nodeagent/test/apiserver"
	"github.com/nodeagent/nodeagent/test/powercut"
)

// hand is a node without a cluster, whose agent launches, and somebody at its
// command line.
type hand struct {
	t       *testing.T
	cfg     *v1alpha1.Config
	program string
	config  string
	kill    func()
}

func newHand(t *testing.T) *hand {
	t.Helper()
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("needs root, to launch real processes")
	}
	root := launchRoot(t)
	h := &hand{t: t, cfg: launchConfig(t, "node-1", root), program: filepath.Join(root, "nodeagent"), config: filepath.Join(root, "config.yaml")}
	h.cfg.Socket = filepath.Join(root, "run", "agent.sock")
	if err := os.WriteFile(h.config, []byte("socket: "+h.cfg.Socket+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(buildProgram(t), h.program); err != nil { // where other users find it
		t.Fatal(err)
	}
	return h
}

// agent begins an agent's life. The one before has to be killed.
func (h *hand) agent() {
	h.t.Helper()
	logger := apiserver.Log(h.t)
	l, err := newLaunchParts(h.cfg, runOptions{standalone: true}, h.program, nil, prometheus.NewRegistry(), logger)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = l.run(ctx) })
	done.Go(func() { _ = serveLocal(ctx, h.cfg.Socket, func() top.Report { return top.Report{} }, logger, l.handle) })
	var once sync.Once
	h.kill = func() { once.Do(func() { cancel(); done.Wait() }) }
	h.t.Cleanup(h.kill)
	h.eventually("the agent answers", func() bool { return h.cli("ps").code == 0 })
}

func (h *hand) eventually(what string, so func() bool) {
	h.t.Helper()
	apiserver.Eventually(h.t, 60*time.Second, what, so)
}

func (h *hand) command(args ...string) *exec.Cmd {
	return exec.Command(h.program, append([]string{args[0], "--config", h.config}, args[1:]...)...)
}

// cli runs nodeagent to its end.
func (h *hand) cli(args ...string) ran {
	h.t.Helper()
	cmd := h.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	return ran{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// reads runs nodeagent until one of its lines matches, interrupts it as Ctrl-C
// does, and wants that to be a good end.
func (h *hand) reads(pattern string, args ...string) {
	h.t.Helper()
	cmd := h.command(args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	late := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	found := false
	for lines := bufio.NewScanner(out); !found && lines.Scan(); {
		found = regexp.MustCompile(pattern).MatchString(lines.Text())
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil || !found {
		h.t.Errorf("nodeagent %v: a line with %s: %v; its end: %v", args, pattern, found, err)
	}
}

// up waits until an agent that was begun again has a task up.
func (h *hand) up(name string) {
	h.t.Helper()
	h.eventually(name+" is up again", func() bool {
		return slices.ContainsFunc(strings.Split(h.cli("ps").out, "\n"), func(line string) bool {
			f := strings.Fields(line)
			return len(f) > 1 && f[0] == name && f[1] == string(v1alpha1.StateHealthy)
		})
	})
}

func (h *hand) inspect(name string) launched {
	h.t.Helper()
	var l launched
	said := h.cli("inspect", name)
	if err := yaml.Unmarshal([]byte(said.out), &l); err != nil || said.code != 0 || l.Status == nil {
		h.t.Fatalf("inspect %s: %+v, %v", name, said, err)
	}
	return l
}

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// slowly sends half of content at once, of the other half as little as tells that
// it goes on, until goOn is closed, and then the rest.
func slowly(content []byte, goOn <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		rest := content
		send := func(n int) {
			_, _ = w.Write(rest[:n])
			w.(http.Flusher).Flush()
			rest = rest[n:]
		}
		send(len(content) / 2)
		more := time.NewTicker(100 * time.Millisecond)
		defer more.Stop()
		for {
			select {
			case <-goOn:
				send(len(rest))
				return
			case <-r.Context().Done():
				return
			case <-more.C:
				send(min(len(rest), 4<<10))
			}
		}
	}
}

// ticker says its argument, and then a line ten times a second.
const ticker = "echo runs $1\ni=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done\n"

// From the command line alone: launched, watched while it is fetched, listed,
// read, changed, kept over a restart of the agent, stopped.
func TestLaunchByHand(t *testing.T) {
	h := newHand(t)
	content := append([]byte(ticker), bytes.Repeat([]byte("#"), 8<<20-len(ticker))...)
	goOn := make(chan struct{})
	srv := httptest.NewServer(slowly(content, goOn))
	defer srv.Close()
	defer srv.CloseClientConnections()
	url := srv.URL + "/ticker"
	h.agent()

	args := []string{"launch", "--name", "hand", "--sha256", sha256Of(content), "--command", "/bin/sh", "--best-effort", "--port", "http", url, "--", "./ticker"}
	launch := h.command(append(args, "one")...)
	out, err := launch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := launch.Start(); err != nil {
		t.Fatal(err)
	}
	defer launch.Process.Kill()
	lines, told := bufio.NewScanner(out), []string{}
	progress := regexp.MustCompile(`hand Fetching: [1-7] of 8 MiB fetched`)
	for lines.Scan() {
		told = append(told, lines.Text())
		if progress.MatchString(lines.Text()) {
			break
		}
	}
	if list := h.cli("ps"); !regexp.MustCompile(`hand +Fetching .* launched +[1-7] of 8 MiB fetched`).MatchString(list.out) {
		t.Errorf("ps while it is fetched: %+v", list)
	}
	if at := h.inspect("hand"); !strings.Contains(at.Status.Message, "of 8 MiB fetched") {
		t.Errorf("status while it is fetched: %+v", at.Status)
	}
	close(goOn)
	for lines.Scan() {
		told = append(told, lines.Text())
	}
	if err := launch.Wait(); err != nil || !strings.Contains(told[len(told)-1], "hand Healthy http=31") {
		t.Errorf("launch: %v\n%s", err, strings.Join(told, "\n"))
	}

	first := h.inspect("hand")
	if s := first.Status; !strings.HasPrefix(s.Digest, "sha256:") || len(s.Verified) != 1 || s.Verified[0] != "sha256" || len(s.Enforced) == 0 || len(s.Phases) < 4 || first.Source != fromLaunched {
		t.Errorf("inspect: %+v", first)
	}
	list := strings.Split(h.cli("ps").out, "\n")
	if want := regexp.MustCompile(fmt.Sprintf(`^hand +Healthy +\d+s +http=31\d{3} +%d +0 +[1-9]\d*[KM]i +launched *$`, first.Status.Pid)); !want.MatchString(list[1]) ||
		strings.Join(strings.Fields(list[0]), " ") != "NAME STATE SINCE PORTS PID RESTARTS MEMORY FROM MESSAGE" {
		t.Errorf("ps prints\n%s", strings.Join(list, "\n"))
	}
	h.eventually("it ticks", func() bool { return strings.HasPrefix(h.cli("logs", "hand").out, "runs one\ntick 0\n") })
	after := strings.Count(h.cli("logs", "hand").out, "tick") + 3
	h.reads(fmt.Sprintf("^tick %d$", after), "logs", "-f", "hand")

	// The agent ends, and another comes.
	h.kill()
	if said := h.cli("ps"); said.code != 1 || !strings.Contains(said.err, "no agent answers on") {
		t.Errorf("ps without an agent: %+v", said)
	}
	h.agent()
	h.up("hand")
	if now := h.inspect("hand"); now.Status.Pid != first.Status.Pid {
		t.Errorf("pid %d, was %d", now.Status.Pid, first.Status.Pid)
	}

	if said := h.cli(append(args, "two")...); said.code != 0 {
		t.Errorf("launch with another argument: %+v", said)
	}
	h.eventually("the changed one runs", func() bool { return strings.HasPrefix(h.cli("logs", "hand").out, "runs two\n") })
	if said := h.cli("stop", "hand"); said.code != 0 {
		t.Errorf("stop: %+v", said)
	}
	for _, name := range []string{"stop", "inspect", "logs"} {
		if said := h.cli(name, "hand"); said.code != 1 || !strings.Contains(said.err, "there is no binary hand on this node") {
			t.Errorf("%s of what was stopped: %+v", name, said)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(h.cfg.Launch.Root, "launched", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What is a file's or a cluster's is not changed from the command line, and only
// root may ask.
func TestLaunchByHandRefuses(t *testing.T) {
	h := newHand(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, ticker) }))
	defer srv.Close()
	if err := os.MkdirAll(h.cfg.Launch.Folder, 0o755); err != nil {
		t.Fatal(err)
	}
	web := strings.Replace(sleeper(srv.URL+"/script", sha256Of([]byte(ticker)), "x"), "name: sleeper", "name: web", 1)
	if err := os.WriteFile(filepath.Join(h.cfg.Launch.Folder, "web.yaml"), []byte(web), 0o600); err != nil {
		t.Fatal(err)
	}
	h.agent()
	h.eventually("the file's is up", func() bool { return strings.Contains(h.cli("ps").out, "web    Healthy") })
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"launch", "--name", "web", "--insecure", srv.URL + "/x"}, "the name web is taken: it is in a file in " + h.cfg.Launch.Folder},
		{[]string{"stop", "web"}, "cannot stop web from here: it is in a file in " + h.cfg.Launch.Folder},
		{[]string{"launch", "--name", "root", "--profile", "privileged", "--insecure", srv.URL + "/x"}, "profile privileged is not allowed on this node"},
	} {
		if said := h.cli(tt.args...); said.code != 1 || !strings.Contains(said.err, tt.want) {
			t.Errorf("%v: %+v", tt.args, said)
		}
	}
	// What may be mended where it comes from is told at once, and tried again.
	bad := []string{"launch", "--name", "bad", "--sha256", strings.Repeat("0", 64), srv.URL + "/x", "--wait"}
	if said := h.cli(append(bad, "0")...); said.code != 0 {
		t.Errorf("launch without waiting: %+v", said)
	}
	h.eventually("the first try fails", func() bool { return regexp.MustCompile(`(?m)^bad +BackingOff `).MatchString(h.cli("ps").out) })
	said := h.cli(append(bad, "10s")...)
	if said.code != 1 || !strings.Contains(said.err, "bad is not up after 10s: it goes on") || !strings.Contains(said.out, "bad BackingOff: cannot fetch "+srv.URL+"/x: its sha256 is ") {
		t.Errorf("another digest: %+v", said)
	}
	if said := h.cli("stop", "bad"); said.code != 0 {
		t.Errorf("stop: %+v", said)
	}
	for _, args := range [][]string{{"ps"}, {"logs", "web"}, {"stop", "web"}, {"launch", "--name", "mine", "--insecure", srv.URL + "/x"}} {
		cmd := h.command(args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "only root may ask the agent on "+h.cfg.Socket) {
			t.Errorf("nobody's %v: %v %s", args, err, out)
		}
	}
	if err := os.Remove(filepath.Join(h.cfg.Launch.Folder, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	h.eventually("the file's is gone", func() bool { return !strings.Contains(h.cli("ps").out, "web ") })
}

// Nobody vouches for it: what it is stands in the status, a change is told, and
// what runs is never said to be what came later.
func TestInsecureIsPinnedAndAChangeTold(t *testing.T) {
	h := newHand(t)
	var content atomic.Pointer[string]
	var asked atomic.Int64
	serve := func(text string) string { content.Store(&text); return sha256Of([]byte(text)) }
	one := serve(ticker)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, *content.Load())
	}))
	defer srv.Close()
	launch := func(x string) launched {
		t.Helper()
		said := h.cli("launch", "--insecure", "--name", "tool", "--command", "/bin/sh", "--best-effort", "--env", "X="+x, srv.URL+"/tool", "--", "./tool")
		if said.code != 0 {
			t.Fatalf("launch: %+v", said)
		}
		return h.inspect("tool")
	}
	want := func(l launched, verified string) {
		t.Helper()
		if len(l.Status.Verified) != 1 || !strings.HasPrefix(l.Status.Verified[0], verified) {
			t.Errorf("verified %q, want %s", l.Status.Verified, verified)
		}
	}
	h.agent()
	first := launch("1")
	want(first, "insecure: sha256 "+one)

	two := serve(ticker + "# changed\n")
	before := asked.Load()
	h.kill()
	h.agent()
	h.up("tool")
	now := h.inspect("tool")
	want(now, "insecure: sha256 "+one)
	if now.Status.Pid != first.Status.Pid || now.Status.Digest != first.Status.Digest || asked.Load() != before {
		t.Errorf("was %+v, is %+v; the server was asked %d times for it", first.Status, now.Status, asked.Load()-before)
	}

	want(launch("2"), "insecure: sha256 "+two+", was "+one)
	srv.CloseClientConnections()
	srv.Close()
	want(launch("3"), "insecure: sha256 "+two+", as last known: ")
	if said := h.cli("stop", "tool"); said.code != 0 {
		t.Errorf("stop: %+v", said)
	}
}

// What lies beside the folder of Binaries is used: the key that has to have
// signed, the header that the server asks for, the CA that vouches for it.
func TestKeysHeadersAndCA(t *testing.T) {
	h := newHand(t)
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signed := minisign.NewReader(strings.NewReader(ticker))
	if _, err := io.Copy(io.Discard, signed); err != nil {
		t.Fatal(err)
	}
	signature := signed.SignWithComments(private, "release 1", "")
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/tool.minisig":
			_, _ = w.Write(signature)
		default:
			_, _ = io.WriteString(w, ticker)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	defer srv.Close()
	binary := filepath.Join(h.cfg.Launch.Root, "tool.yaml")
	text := fmt.Sprintf(`{apiVersion: nodeagent.dev/v1alpha1, kind: Binary, metadata: {name: tool}, spec: {
  fetch: [{url: %q, signature: {key: team}, headersFile: shop}], command: [/bin/sh, ./tool], enforcement: BestEffort}}`, srv.URL+"/tool")
	if err := os.WriteFile(binary, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := public.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(srv.Listener.Addr().String(), ":")
	// One after the other is put there; each time the agent starts it comes further.
	for _, step := range []struct {
		file string
		text []byte
		want string
	}{
		{"", nil, `signed by the key "team", which this node does not have`},
		{"keys/team.pub", key, "headers"},
		{"headers/shop", []byte("Host: " + host + "\nAuthorization: Bearer token\n"), "certificate"},
		{"ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), ""},
	} {
		if step.file != "" {
			path := filepath.Join(filepath.Dir(h.cfg.Launch.Folder), step.file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, step.text, 0o600)); err != nil {
				t.Fatal(err)
			}
			h.kill()
		}
		h.agent()
		if step.want != "" {
			if said := h.cli("launch", "--wait", "0", "-f", binary); said.code != 0 {
				t.Errorf("launch: %+v", said)
			}
			h.eventually("ps tells of "+step.want, func() bool { return strings.Contains(h.cli("ps").out, step.want) })
			if said := h.cli("stop", "tool"); said.code != 0 {
				t.Errorf("stop: %+v", said)
			}
			continue
		}
		if said := h.cli("launch", "-f", binary); said.code != 0 {
			t.Errorf("launch: %+v", said)
		}
		if l := h.inspect("tool"); len(l.Status.Verified) != 1 || l.Status.Verified[0] != "signed by team (release 1)" {
			t.Errorf("verified %q", l.Status.Verified)
		}
	}
	if said := h.cli("stop", "tool"); said.code != 0 {
		t.Errorf("stop: %+v", said)
	}
}

// A server that leads to a private address is not followed there, unless the
// configuration allows it.
func TestRedirectInwardIsTheConfigurationsMatter(t *testing.T) {
	h := newHand(t)
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, ticker) }))
	defer storage.Close()
	srv := httptest.NewServer(http.RedirectHandler(storage.URL+"/blob", http.StatusFound))
	defer srv.Close()
	args := []string{"launch", "--name", "tool", "--sha256", sha256Of([]byte(ticker)), "--command", "/bin/sh", "--best-effort", srv.URL + "/tool", "--", "./tool"}
	h.agent()
	if said := h.cli(args...); said.code != 1 || !strings.Contains(said.err, "is at the loopback address") || !strings.Contains(said.err, "launch.allowPrivateRedirects") {
		t.Errorf("launch: %+v", said)
	}
	h.kill()
	h.cfg.Launch.AllowPrivateRedirects = true
	h.agent()
	h.up("tool")
	if said := h.cli("stop", "tool"); said.code != 0 {
		t.Errorf("stop: %+v", said)
	}
}

// What was launched by hand stands in no cluster and no file of somebody's: it
// is there after a power cut, and what was stopped is not.
func TestLaunchedByHandOutlivesAPowerCut(t *testing.T) {
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("needs a file system of its own")
	}
	disk := powercut.NewDisk(t)
	l := &launchParts{launched: &source.Folder{Path: filepath.Join(disk.Path, "launched"), Log: apiserver.Log(t)}, supervisor: binlaunch.New(binlaunch.Options{Logger: apiserver.Log(t)})}
	names := func() (all []string) {
		after := &source.Folder{Path: filepath.Join(disk.Cut(t), "launched"), Log: apiserver.Log(t)}
		after.Scan()
		for _, b := range after.Binaries() {
			all = append(all, b.Name)
		}
		return all
	}
	for _, name := range []string{"first", "second"} {
		b, err := launchOptions{name: name, insecure: true}.binary([]string{"https://example.org/tool"})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.save(b); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("after a power cut: %q", got)
	}
	if err := l.forget("first"); err != nil {
		t.Fatal(err)
	}
	if got := names(); !slices.Equal(got, []string{"second"}) {
		t.Errorf("after a stop and a power cut: %q", got)
	}
}
