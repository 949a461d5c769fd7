package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// agentReady is how long the agent's first look at everything may take.
const agentReady = 2 * time.Minute

// agent is the real agent as a process.
type agent struct{ cmd *exec.Cmd }

const agentConfig = `apiVersion: nodeagent.dev/v1alpha1
kind: Config
node: bench
listen: ` + listen + `
socket: %[1]s/agent.sock
containerd: {socket: %[1]s/c.sock}
disk: {method: %[2]s}
`

// listen is where the agent serves. The cell's network is its own, so nobody else
// has the port.
const listen = "127.0.0.1:9456"

// startAgent returns once every layer was looked at.
func (g *ground) startAgent(ctx context.Context) (*agent, error) {
	config := g.file("agent.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, agentConfig, g.cell, cmp.Or(g.method, "auto")), 0o600); err != nil {
		return nil, fmt.Errorf("cannot configure the agent: %w", err)
	}
	program, err := filepath.Abs(g.agent)
	if err != nil {
		return nil, fmt.Errorf("cannot find the agent: %w", err)
	}
	a := &agent{cmd: exec.CommandContext(ctx, program, "run", "--standalone", "--config", config)}
	if err := g.start(a.cmd, "agent.log"); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(agentReady)
	for {
		body, err := a.get(ctx, "/readyz")
		if err == nil {
			_ = body.Close()
			return a, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the agent was not ready after %s: %w", agentReady, err)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (a *agent) pid() int { return a.cmd.Process.Pid }

func (a *agent) stop() error {
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("cannot stop the agent: %w", err)
	}
	if err := a.cmd.Wait(); err != nil {
		return fmt.Errorf("the agent did not end well: %w", err)
	}
	return nil
}

func (a *agent) get(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+path, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the agent: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the agent: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, fmt.Errorf("cannot ask the agent: %s answers %s", path, res.Status)
	}
	return res.Body, nil
}

// figures are what the agent's /metrics tells of the layers now, by their names.
func (a *agent) figures(ctx context.Context) (map[string]figure, error) {
	body, err := a.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(body)
	if err != nil {
		return nil, fmt.Errorf("cannot read the agent's metrics: %w", err)
	}
	now := time.Now()
	out := make(map[string]figure)
	for _, m := range families["nodeagent_container_disk_bytes"].GetMetric() {
		if l := labels(m); l["part"] == "layer" {
			out[l["pod"]] = figure{at: now, bytes: int64(m.GetGauge().GetValue())}
		}
	}
	for _, m := range families["nodeagent_disk_measure_age_seconds"].GetMetric() {
		l := labels(m)
		f, ok := out[l["pod"]]
		if l["part"] != "layer" || !ok {
			continue
		}
		f.made = now.Add(-time.Duration(m.GetGauge().GetValue() * float64(time.Second)))
		f.method = l["method"]
		out[l["pod"]] = f
	}
	return out, nil
}

// method is how the agent measures the layers here.
func (a *agent) method(ctx context.Context) (string, error) {
	figures, err := a.figures(ctx)
	if err != nil {
		return "", err
	}
	for _, f := range figures {
		if f.method != "" {
			return f.method, nil
		}
	}
	return "", errors.New("the agent tells of no layer")
}

func labels(m *dto.Metric) map[string]string {
	out := make(map[string]string)
	for _, l := range m.GetLabel() {
		out[l.GetName()] = l.GetValue()
	}
	return out
}
