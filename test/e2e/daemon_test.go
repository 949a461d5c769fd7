package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// daemon runs a program of Debian's in a folder until the story ends, and waits
// until it answers at ready. The lab fetches the package if need be, and does
// not install it: the program finds its own share in place of /usr/share, in a
// mount namespace that goes with it.
func (s *story) daemon(part, program, ready, folder string, args ...string) {
	s.t.Helper()
	root, err := s.Lab(s.ctx, "fetch", part)
	s.must(err)
	ctx, cancel := context.WithCancel(context.Background()) // it ends after the story's last question
	root = strings.TrimSpace(root)
	script := `mount --bind "$0/usr/share" /usr/share && exec "$0/$@"`
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "sh", "-c", script, root, program}, args...)...)
	cmd.Dir = folder
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	s.must(cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it says why in its log
		close(ended)
	}()
	s.t.Cleanup(func() {
		cancel()
		<-ended
		if s.t.Failed() {
			s.t.Logf("%s\n%s", part, tail(log.String(), 4000))
		}
	})
	s.must(cluster.Until(s.ctx, part+" is ready", func(ctx context.Context) (bool, error) {
		select {
		case <-ended:
			s.t.Fatalf("%s ended at once:\n%s", part, tail(log.String(), 4000))
		default:
		}
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
