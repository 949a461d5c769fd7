package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/test/cluster"
)

// manyRestarts is what of the agents' configuration is not the base's in any
// story: all stories together restart more within an hour than agents do.
const manyRestarts = "restart: {limits: {hourly: 200}}"

const baseFolder = "base"

// overlay gives the agents an overlay of manifests/overlays, and after the
// story the base again.
func (s *story) overlay(name string) {
	s.t.Helper()
	s.folder = filepath.Join("overlays", name)
	s.configure("")
}

// configure gives the agents more configuration, and after the story their own.
func (s *story) configure(more string) {
	s.t.Helper()
	if !s.configured {
		s.configured = true
		s.t.Cleanup(s.backToBase)
	}
	s.must(s.setAgents(s.ctx, s.folder, more))
}

func (s *story) backToBase() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	err := s.setAgents(ctx, baseFolder, "")
	if s.folder != baseFolder {
		_, less := s.Kubectl(ctx, "delete", "--ignore-not-found", "-f", s.Path("manifests", s.folder, "rbac.yaml"))
		err = errors.Join(err, less)
	}
	if err != nil {
		s.t.Errorf("cannot go back to the base: %v", err)
	}
}

// setAgents applies a folder of manifests as it is but for the agents'
// configuration, and waits until all agents have it.
func (s *story) setAgents(ctx context.Context, folder, more string) error {
	return applyAgents(ctx, s.Cluster, folder, more, s.t.TempDir())
}

func applyAgents(ctx context.Context, c *cluster.Cluster, folder, more, temporary string) error {
	all, err := c.Kubectl(ctx, "kustomize", c.Path("manifests", folder))
	if err != nil {
		return err
	}
	documents := strings.Split(all, "\n---\n")
	config, err := configured(documents, more)
	if err != nil {
		return err
	}
	if err := restartedFor(documents, config); err != nil {
		return err
	}
	file := filepath.Join(temporary, "agents.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(documents, "\n---\n")), 0o600); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "apply", "-f", file); err != nil {
		return err
	}
	return agentsReady(ctx, c)
}

// configured adds to the agents' configuration among the documents, and gives
// it.
func configured(documents []string, more string) (string, error) {
	var config string
	err := change(documents, "ConfigMap", func(o map[string]any) error {
		data, _ := o["data"].(map[string]any)
		text, _ := data["config.yaml"].(string)
		all := map[string]any{}
		for _, part := range []string{text, manyRestarts, more} {
			var next map[string]any
			if err := yaml.Unmarshal([]byte(part), &next); err != nil {
				return err
			}
			merge(all, next)
		}
		merged, err := yaml.Marshal(all)
		config = string(merged)
		data["config.yaml"] = config
		return err
	})
	return config, err
}

// restartedFor has the DaemonSet's pods start anew where the configuration is
// another one: an agent reads it when it starts.
func restartedFor(documents []string, config string) error {
	return change(documents, "DaemonSet", func(o map[string]any) error {
		merge(o, map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{
			"annotations": map[string]any{"config": fmt.Sprintf("%x", sha256.Sum256([]byte(config)))},
		}}}})
		return nil
	})
}

// change rewrites the agents' one object of a kind.
func change(documents []string, kind string, with func(map[string]any) error) error {
	for i, text := range documents {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			return fmt.Errorf("cannot read the manifests: %w", err)
		}
		if meta, _ := o["metadata"].(map[string]any); o["kind"] != kind || meta["name"] != "nodeagent" {
			continue
		}
		if err := with(o); err != nil {
			return fmt.Errorf("cannot change the %s: %w", kind, err)
		}
		changed, err := yaml.Marshal(o)
		documents[i] = string(changed)
		return err
	}
	return fmt.Errorf("the manifests have no %s nodeagent", kind)
}

func merge(into, more map[string]any) {
	for key, value := range more {
		inner, both := into[key].(map[string]any)
		if next, ok := value.(map[string]any); ok && both {
			merge(inner, next)
			continue
		}
		into[key] = value
	}
}

func (s *story) agentsReady() {
	s.t.Helper()
	s.must(agentsReady(s.ctx, s.Cluster))
}

func agentsReady(ctx context.Context, c *cluster.Cluster) error {
	_, err := c.Kubectl(ctx, "-n", cluster.Namespace, "rollout", "status", "daemonset/nodeagent", "--timeout=90s")
	return err
}
