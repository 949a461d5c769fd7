package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

const defaultConfigFile = "/etc/nodeagent/config.yaml"

// loadConfig reads the file, fills in the defaults and validates. A missing
// file is an error only when it was named.
func loadConfig(path string, named bool) (*v1alpha1.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil && (named || !errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("cannot read config: %w", err)
	}
	cfg := &v1alpha1.Config{}
	if err := yaml.UnmarshalStrict(data, cfg); err != nil {
		return nil, fmt.Errorf("cannot use config %s: %s", path, oneLine(err))
	}
	cfg.SetDefaults()
	if cfg.Node == "" {
		cfg.Node = os.Getenv("NODE_NAME")
	}
	if cfg.Node == "" {
		if cfg.Node, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("cannot tell this node's name, set node in %s: %w", path, err)
		}
	}
	if errs := cfg.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("cannot use config %s: %s", path, oneLine(errs.ToAggregate()))
	}
	return cfg, nil
}

// oneLine says an error of the YAML or JSON reader without the names of the
// layers it went through.
func oneLine(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	for _, prefix := range []string{"error unmarshaling JSON: ", "while decoding JSON: ", "error converting YAML to JSON: ", "json: "} {
		s = strings.TrimPrefix(s, prefix)
	}
	return s
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
		return fmt.Errorf("cannot use containerd's socket %s: it is not a socket", path)
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
