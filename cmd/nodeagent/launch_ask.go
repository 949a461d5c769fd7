package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/source"
)

// agentClient reaches the agent of this node over its local socket.
func agentClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

// openAnswer asks the agent and returns its answer, or why there is none.
func openAnswer(ctx context.Context, socket, method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, err
	}
	res, err := agentClient(socket).Do(req)
	switch {
	case err != nil && nobodyThere(err):
		return nil, fmt.Errorf("no agent answers on %s: start nodeagent run on this node", socket)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("only root may ask the agent on %s", socket)
	case err != nil:
		return nil, fmt.Errorf("cannot ask the agent: %w", err)
	case res.StatusCode == http.StatusOK:
		return res.Body, nil
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("cannot read the agent's answer: %w", err)
	}
	if res.StatusCode == http.StatusNotFound && strings.Contains(string(text), "404 page") {
		return nil, errors.New("this node's agent launches nothing: set launch.enabled to true in its configuration")
	}
	return nil, errors.New(strings.TrimSpace(string(text)))
}

// askLaunch asks the agent and reads its answer into v, if there is one.
func askLaunch(ctx context.Context, socket, method, path string, body io.Reader, v any) error {
	answer, err := openAnswer(ctx, socket, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if v == nil {
		return nil
	}
	if err := json.NewDecoder(answer).Decode(v); err != nil {
		return fmt.Errorf("cannot read the agent's answer: %w", err)
	}
	return nil
}

// readBinary reads the one Binary of a file.
func readBinary(path string) (*v1alpha1.Binary, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the Binary: %w", err)
	}
	all, err := source.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %s", path, oneLine(err))
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("cannot use %s: want one Binary, not %d", path, len(all))
	}
	return all[0], nil
}
