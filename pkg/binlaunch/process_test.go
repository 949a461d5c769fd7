package binlaunch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// The tests' program is the test binary itself: a server that answers with its
// version on the socket it was passed, or on $PORT0.
const asServer = "TEST_AS_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		serveVersion()
		return
	}
	os.Exit(m.Run())
}

func serveVersion() {
	var l net.Listener
	var err error
	if os.Getenv("LISTEN_FDS") == "1" && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		l, err = net.FileListener(os.NewFile(3, os.Getenv("LISTEN_FDNAMES")))
	} else {
		l, err = net.Listen("tcp", ":"+os.Getenv("PORT0"))
	}
	if err != nil {
		fmt.Println("cannot listen:", err)
		os.Exit(3)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(os.Getenv("SICK_WHEN")); err == nil && r.URL.Path == "/health" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprintln(w, os.Getenv("VERSION"), os.Getpid())
	})}
	fmt.Println("serves", os.Getenv("VERSION"))
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM)
	go func() { _ = srv.Serve(l) }()
	<-done
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = srv.Shutdown(ctx)
}

// processes starts real processes without shutting them in. It outlives the
// supervisors of a test, as what is launched outlives the agent.
type processes struct {
	t       *testing.T
	mu      sync.Mutex
	all     map[string]*process
	starts  int
	refuses error
}

type process struct {
	launcher *processes
	id       string
	cmd      *exec.Cmd
	started  time.Time
	out      *lockedBuffer
	ended    chan struct{}
	exit     Exit
}

func newProcesses(t *testing.T) *processes {
	p := &processes{t: t, all: map[string]*process{}}
	t.Cleanup(func() {
		for _, q := range p.all {
			_ = syscall.Kill(-q.cmd.Process.Pid, syscall.SIGKILL)
			<-q.ended
		}
	})
	return p
}

func (p *processes) Start(_ context.Context, l Launch) (Task, Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuses != nil {
		return nil, Record{}, p.refuses
	}
	if p.all[l.ID] != nil {
		p.t.Errorf("%s is started twice", l.ID)
	}
	args := append([]string{"-c", `export LISTEN_PID=$$; exec "$@"`, "sh"}, l.Command...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	for k, v := range l.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var names []string
	for _, s := range l.Sockets {
		cmd.ExtraFiles, names = append(cmd.ExtraFiles, s.File), append(names, s.Name)
	}
	if len(names) > 0 {
		cmd.Env = append(cmd.Env, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	q := &process{launcher: p, id: l.ID, cmd: cmd, started: time.Now(), out: &lockedBuffer{}, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = q.out, q.out
	if err := cmd.Start(); err != nil {
		return nil, Record{}, err
	}
	p.all[l.ID], p.starts = q, p.starts+1
	go func() {
		_ = cmd.Wait()
		q.exit = Exit{Code: cmd.ProcessState.ExitCode(), At: time.Now()}
		if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
			q.exit.Signal = ws.Signal().String()
		}
		close(q.ended)
	}()
	return q, Record{Enforced: []string{"nothing"}, Phases: map[string]time.Duration{"exec": time.Since(q.started)}}, nil
}

func (p *processes) Attach(context.Context) ([]Task, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Task
	for _, q := range p.all {
		all = append(all, q)
	}
	return all, nil
}

// running counts processes that have not ended.
func (p *processes) running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, q := range p.all {
		select {
		case <-q.ended:
		default:
			n++
		}
	}
	return n
}

// awaitNone waits until all processes are forgotten.
func (p *processes) awaitNone() {
	p.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		n := len(p.all)
		p.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%d processes are not forgotten", n)
		}
	}
}

func (q *process) ID() string         { return q.id }
func (q *process) Pid() int           { return q.cmd.Process.Pid }
func (q *process) Started() time.Time { return q.started }

func (q *process) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	case <-q.ended:
		return q.exit, nil
	}
}

func (q *process) Stop(ctx context.Context, grace time.Duration) error {
	_ = syscall.Kill(-q.Pid(), syscall.SIGTERM)
	select {
	case <-q.ended:
	case <-time.After(grace):
		_ = syscall.Kill(-q.Pid(), syscall.SIGKILL)
		<-q.ended
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (q *process) Stats() (Stats, error) {
	m := int64(4096)
	return Stats{Memory: &m}, nil
}

func (q *process) Output(bool) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(q.out.String())), nil
}

func (q *process) Forget(context.Context) error {
	q.launcher.mu.Lock()
	defer q.launcher.mu.Unlock()
	if q.launcher.all[q.id] == nil {
		return errors.New("forgotten twice")
	}
	delete(q.launcher.all, q.id)
	return nil
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// local is a fetcher of what is on the disk already.
type local struct {
	mu   sync.Mutex
	fail error
	held map[string]bool // owners of programs
}

func (f *local) Get(_ context.Context, owner string, a []v1alpha1.Artifact, _ []string, progress func(done, total int64)) (Program, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return Program{}, f.fail
	}
	progress(1<<20, 2<<20)
	f.held[owner] = true
	return Program{Digest: "sha256:" + a[0].URL, Verified: []string{"sha256"}}, nil
}

func (f *local) Release(_ Program, owner string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, owner)
}

func (f *local) Sweep(func(string) bool) error { return nil }
