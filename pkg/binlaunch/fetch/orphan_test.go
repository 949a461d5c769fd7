package fetch

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// fetchUntilKilled is an agent that fetches, in a process of its own.
func fetchUntilKilled(dir, url string) {
	s, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		panic(err)
	}
	f, err := New(Options{Store: s, Executable: os.Getenv("FETCH_HOST"), Reserve: -1})
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	_, _, err = f.Get(context.Background(), []Artifact{{URL: url, Insecure: true}}, nil)
	panic(fmt.Sprint("it ended: ", err))
}

// TestAgentKilled: the process that fetches ends with the agent, and the next
// agent sweeps what both left.
func TestAgentKilled(t *testing.T) {
	b := newBench(t)
	began, ended := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(make([]byte, 500_000))
		w.(http.Flusher).Flush()
		close(began)
		<-r.Context().Done()
		close(ended)
	}))
	defer server.Close()
	dir := filepath.Join(b.dir, "other")
	var stderr bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FETCH_AGENT="+dir, "FETCH_URL="+server.URL+"/x", "FETCH_HOST="+host)
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	<-began
	if n := pullers(t, dir); n != 1 {
		t.Errorf("%d processes fetch", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	select {
	case <-ended: // its connection is closed: it is gone
	case <-time.After(60 * time.Second):
		t.Fatal("the process that fetches outlives the agent")
	}
	s, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, sub := range []string{"tmp", "entries"} {
		if left, err := os.ReadDir(filepath.Join(dir, sub)); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", sub, left, err)
		}
	}
	if s.Stats().Swept != 1 {
		t.Errorf("%+v", s.Stats())
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("a mount is left: %v", err)
	}
}

// pullers counts the processes that fetch into a store.
func pullers(t *testing.T, dir string) int {
	t.Helper()
	mounts, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	// Its end names the test, and is there however much of the path is one of
	// another file system. Other tests fetch at the same time.
	parts := strings.Split(dir, "/")
	own := strings.Join(parts[len(parts)-3:], "/")
	n := 0
	for _, path := range mounts {
		comm, err := os.ReadFile(filepath.Join(filepath.Dir(path), "comm"))
		if errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(string(comm), "nodeagent-pull") {
			continue
		}
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), own) {
			n++
		}
	}
	return n
}
