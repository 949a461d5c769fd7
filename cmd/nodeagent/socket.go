package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/top"
)

// reportPath is where the local socket answers with a top.Report.
const reportPath = "/v1/report"

// listenLocal makes the agent's local socket, which only root may open. One
// that a killed agent left is replaced; one that answers is another agent's.
func listenLocal(ctx context.Context, path string) (net.Listener, error) {
	dialer := net.Dialer{Timeout: time.Second}
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("cannot use the local socket %s: another agent answers on it", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the local socket's folder: %w", err)
	}
	// It gets its name only when nobody but root may open it any more.
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot make the local socket: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", fresh)
	if err != nil {
		return nil, fmt.Errorf("cannot make the local socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // by then the name is another's
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make the local socket: %w", err), l.Close(), os.Remove(fresh))
	}
	return l, nil
}

// serveLocal answers on the local socket until ctx ends; more adds other paths.
// An agent that cannot make it does its work all the same: only top has to do
// without it, and nothing can be launched by hand.
func serveLocal(ctx context.Context, path string, report func() top.Report, log *slog.Logger, more ...func(*http.ServeMux)) error {
	l, err := listenLocal(ctx, path)
	if err != nil {
		log.Warn("nodeagent top will measure by itself", "err", err)
		return nil
	}
	defer os.Remove(path)
	mux := http.NewServeMux()
	for _, add := range more {
		add(mux)
	}
	mux.HandleFunc("GET "+reportPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(report()); err != nil {
			log.Debug("report not delivered", "err", err)
		}
	})
	return serve(ctx, l, mux)
}

// askAgent asks the agent of this node for its report.
func askAgent(ctx context.Context, path string) (top.Report, error) {
	client := agentClient(path)
	client.Timeout = 5 * time.Second
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+reportPath, nil)
	if err != nil {
		return top.Report{}, fmt.Errorf("cannot ask the agent: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return top.Report{}, fmt.Errorf("cannot ask the agent: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return top.Report{}, fmt.Errorf("cannot ask the agent: it answers %s", res.Status)
	}
	var r top.Report
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
		return top.Report{}, fmt.Errorf("cannot read the agent's report: %w", err)
	}
	return r, nil
}
