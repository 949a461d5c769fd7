package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// daemon runs a program of Debian's in a folder until the story ends, and waits
// until it answers at ready. The lab fetches the package if need be.
func (s *story) daemon(part, program, ready, folder string, args ...string) {
	s.t.Helper()
	root, err := s.Lab(s.ctx, "fetch", part)
	s.must(err)
	ctx, cancel := context.WithCancel(context.Background()) // it ends after the story's last question
	cmd := exec.CommandContext(ctx, filepath.Join(strings.TrimSpace(root), program), args...)
	cmd.Dir = folder
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	s.must(cmd.Start())
	s.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was told to end
		if s.t.Failed() {
			s.t.Logf("%s\n%s", part, tail(log.String(), 4000))
		}
	})
	s.must(cluster.Until(s.ctx, part+" is ready", func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ready, nil)
		if err != nil {
			return false, err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return false, fmt.Errorf("it answers %s", res.Status)
		}
		return true, nil
	}))
}

func tail(text string, most int) string { return text[max(0, len(text)-most):] }

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
