package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// supervisor runs a node's programs as its init. It starts and stops what it
// is told to and restarts nothing by itself: a test wants to see what died.
type supervisor struct {
	mu       sync.Mutex
	children map[string]*running
	pids     map[int]*running
}

// running is a child and, once it was started, its process.
type running struct {
	child
	pid   int           // in the node's pid namespace; 0 if it does not run
	ended chan struct{} // closed when the process is gone
	last  string        // how it ended last
}

// order is what a lab command asks of the init, answer what it says.
type order struct {
	Do   string // start, stop, status
	Name string
}

type answer struct {
	Error    string
	Children []childStatus
}

type childStatus struct {
	Name string
	Pid  int
	Last string
}

func newSupervisor(children []child) *supervisor {
	s := &supervisor{children: map[string]*running{}, pids: map[int]*running{}}
	for _, c := range children {
		s.children[c.Name] = &running{child: c}
	}
	return s
}

// serve answers orders until the process is killed.
func (s *supervisor) serve(l net.Listener) error {
	go s.reap()
	for {
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("cannot take orders: %w", err)
		}
		go func() {
			defer conn.Close()
			var o order
			if json.NewDecoder(conn).Decode(&o) == nil {
				_ = json.NewEncoder(conn).Encode(s.obey(o))
			}
		}()
	}
}

func (s *supervisor) obey(o order) answer {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var err error
	switch o.Do {
	case "start":
		err = s.start(ctx, o.Name)
	case "stop":
		err = s.stop(ctx, o.Name)
	case "status":
	default:
		err = fmt.Errorf("unknown order %q", o.Do)
	}
	a := answer{Children: s.status()}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func (s *supervisor) status() []childStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []childStatus
	for _, r := range s.children {
		all = append(all, childStatus{Name: r.Name, Pid: r.pid, Last: r.last})
	}
	return all
}

// start starts the child, if it does not run, and waits until it is ready.
func (s *supervisor) start(ctx context.Context, name string) error {
	r, ended, err := s.spawn(name)
	if err != nil {
		return err
	}
	ready := waitFor(ctx, 50*time.Millisecond, func() bool {
		select {
		case <-ended:
			return true
		default:
			return isReady(ctx, r.Ready)
		}
	})
	select {
	case <-ended:
		return fmt.Errorf("%s ended (%s); the end of its log:\n%s", name, r.last, lastLines(childLog(name), 15))
	default:
	}
	if !ready {
		return fmt.Errorf("%s is not ready; the end of its log:\n%s", name, lastLines(childLog(name), 15))
	}
	return nil
}

func childLog(name string) string { return filepath.Join(nodeLogFolder, name+".log") }

// spawn holds the lock from fork to book, so that reap finds the pid even of a
// child that ends at once.
func (s *supervisor) spawn(name string) (*running, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.children[name]
	if r == nil {
		return nil, nil, fmt.Errorf("a node has no program %q", name)
	}
	if r.pid != 0 {
		return r, r.ended, nil
	}
	log, err := openLog(childLog(name))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	// Not os/exec: its Wait and reap would take each other's children.
	pid, err := syscall.ForkExec(r.Args[0], r.Args, &syscall.ProcAttr{
		Dir: "/", Env: childEnv(), Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	r.pid, r.ended = pid, make(chan struct{})
	s.pids[pid] = r
	return r, r.ended, nil
}

func childEnv() []string {
	return []string{"PATH=" + nodePath, "HOME=/root", "LANG=C.UTF-8"}
}

func (s *supervisor) stop(ctx context.Context, name string) error {
	s.mu.Lock()
	r := s.children[name]
	if r == nil || r.pid == 0 {
		s.mu.Unlock()
		if r == nil {
			return fmt.Errorf("a node has no program %q", name)
		}
		return nil
	}
	pid, ended := r.pid, r.ended
	s.mu.Unlock()
	_ = syscall.Kill(pid, syscall.SIGTERM)
	select {
	case <-ended:
		return nil
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not end", name)
	}
}

// reap waits for whatever ends: the children and all that was orphaned on the
// node, shims above all.
func (s *supervisor) reap() {
	born := make(chan os.Signal, 1)
	signal.Notify(born, syscall.SIGCHLD)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.ECHILD):
			select {
			case <-born:
			case <-time.After(time.Second):
			}
		case err == nil:
			s.ended(pid, status)
		}
	}
}

func (s *supervisor) ended(pid int, status syscall.WaitStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.pids[pid]
	if r == nil {
		return
	}
	delete(s.pids, pid)
	r.pid, r.last = 0, describeEnd(status)
	fmt.Fprintf(os.Stderr, "%s %s ended: %s\n", time.Now().Format(time.RFC3339), r.Name, r.last)
	close(r.ended)
}

func describeEnd(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "by signal " + status.Signal().String()
	}
	return fmt.Sprintf("exit code %d", status.ExitStatus())
}

// isReady asks a child's own sign of life.
func isReady(ctx context.Context, what string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if path, ok := strings.CutPrefix(what, "unix:"); ok {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, what, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// tellNode gives node n's init an order.
func tellNode(ctx context.Context, p paths, n int, o order) ([]childStatus, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", p.nodeSocket(n))
	if err != nil {
		return nil, fmt.Errorf("cannot reach %s (is it running?): %w", nodeName(n), err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(o); err != nil {
		return nil, fmt.Errorf("cannot give %s an order: %w", nodeName(n), err)
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return nil, fmt.Errorf("%s did not answer: %w", nodeName(n), err)
	}
	if a.Error != "" {
		return a.Children, fmt.Errorf("cannot %s %s on %s: %s", o.Do, o.Name, nodeName(n), a.Error)
	}
	return a.Children, nil
}
