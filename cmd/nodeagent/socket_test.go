package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodeagent/top"
)

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "na") // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "agent.sock")
}

// serveReport serves a report until the test ends and waits until it answers.
func serveReport(t *testing.T, path string, r top.Report) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- serveLocal(ctx, path, func() top.Report { return r }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	}()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		_, err := askAgent(ctx, path)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestLocalSocket(t *testing.T) {
	path := socketPath(t)
	stop := serveReport(t, path, top.Report{Node: "node-1", Containers: []top.Container{{Pod: "web", Bytes: 42}}})

	got, err := askAgent(t.Context(), path)
	if err != nil || got.Node != "node-1" || len(got.Containers) != 1 || got.Containers[0].Bytes != 42 {
		t.Errorf("the report came as %+v, %v", got, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v; want only root to open it", info.Mode(), err)
	}
	if _, err := listenLocal(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another agent answers") {
		t.Errorf("a second agent takes the socket: %v", err)
	}

	stop()
	if _, err := askAgent(t.Context(), path); !nobodyThere(err) {
		t.Errorf("after the agent has ended the answer is %v", err)
	}
}

// A killed agent leaves its socket behind; the next one takes its place.
func TestLocalSocketOfAKilledAgent(t *testing.T) {
	path := socketPath(t)
	left, err := listenLocal(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Close(); err != nil { // the file stays, as after a kill
		t.Fatal(err)
	}
	if _, err := askAgent(t.Context(), path); !nobodyThere(err) {
		t.Errorf("a socket without an agent answers %v", err)
	}
	serveReport(t, path, top.Report{Node: "node-2"})()
}

func TestTopRefuses(t *testing.T) {
	for _, o := range []topOptions{{sort: "size?", output: "table"}, {sort: "size", output: "yaml"}} {
		if err := o.validate(); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
