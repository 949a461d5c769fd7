package runtime

import (
	"context"
	"errors"
	"fmt"
)

// snapshotPlugin is the type of containerd's snapshotters, its own and those in
// other processes.
const snapshotPlugin = "io.containerd.snapshotter.v1"

// Roots asks containerd once which snapshotters it has, those that work, and in
// which folder of the host each keeps its layers; empty where it does not say.
// It needs Socket and Namespaces alone, and registers nothing.
func Roots(ctx context.Context, config Config) (roots map[string]string, err error) {
	config, err = config.complete()
	if err != nil {
		return nil, err
	}
	d, err := connect(ctx, config.Socket, config.Timeout)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	return d.roots(ctx)
}

func (d *daemon) roots(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	all, err := d.client.IntrospectionService().Plugins(ctx, "type=="+snapshotPlugin)
	if err != nil {
		return nil, fmt.Errorf("cannot ask containerd for its snapshotters: %w", err)
	}
	roots := make(map[string]string)
	for _, p := range all.GetPlugins() {
		if p.GetInitErr() == nil {
			roots[p.GetID()] = p.GetExports()["root"]
		}
	}
	return roots, nil
}
