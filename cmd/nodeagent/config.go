package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

const defaultConfigFile = "/etc/nodeagent/config.yaml"

// loadConfig reads the file over the defaults and validates. A missing file is
// an error only when it was named.
func loadConfig(path string, named bool) (*v1alpha1.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil && (named || !errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("cannot read config: %w", err)
	}
	cfg, err := parseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("cannot use config %s: %s", path, oneLine(err))
	}
	if cfg.Node == "" {
		if cfg.Node, err = nodeName(); err != nil {
			return nil, fmt.Errorf("%w: set node in %s", err, path)
		}
	}
	return cfg, nil
}

// parseConfig tells everything that is wrong, not the first thing alone.
func parseConfig(data []byte) (*v1alpha1.Config, error) {
	raw, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	var file any
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, err
	}
	shape, err := configShape()
	if err != nil {
		return nil, err
	}
	if errs := mismatches(nil, file, shape); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	cfg := v1alpha1.DefaultConfig()
	if raw, err = json.Marshal(file); err != nil { // again: without what was left empty
		return nil, err
	}
	if err := json.Unmarshal(raw, cfg); err != nil {
		return nil, err
	}
	return cfg, cfg.Validate().ToAggregate()
}

// nodeName is $NODE_NAME, else the host's name in lower case, as the kubelet
// takes it.
func nodeName() (string, error) {
	name, from := os.Getenv("NODE_NAME"), "$NODE_NAME"
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("cannot tell this node's name: %w", err)
		}
		name, from = strings.ToLower(strings.TrimSpace(host)), "the host's name"
	}
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return "", fmt.Errorf("cannot use %s %q as this node's name: it is no DNS name in lower case", from, name)
	}
	return name, nil
}

// oneLine says an error in one line, without the names of the readers that it
// went through.
func oneLine(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	return strings.TrimPrefix(s, "error converting YAML to JSON: ")
}

// checkSocket tells a wrong path or a containerd that does not run before
// anything else is started.
func checkSocket(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot find containerd's socket %s: start containerd, or set containerd.socket to where its socket is", path)
	case err != nil:
		return fmt.Errorf("cannot use containerd's socket: %w", err)
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("cannot use containerd's socket %s: it is not a socket: set containerd.socket to where its socket is", path)
	}
	return nil
}

// listen refuses an address that another process holds.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot serve metrics: %w: set listen to a free address", err)
	}
	return l, nil
}
