package runtime

import (
	"context"
	"errors"
	"maps"
	"slices"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
)

// Daemon is what one question to containerd brought.
type Daemon struct {
	Version      string
	Containers   int
	Snapshotters []string // that hold the layers of these containers, sorted
	// Roots are where all its snapshotters keep their layers, by name.
	Roots map[string]string
}

// Check asks containerd once whether the configured namespaces can be watched.
// It needs Socket and Namespaces alone, and registers nothing.
func Check(ctx context.Context, config Config) (_ Daemon, err error) {
	config, err = config.complete()
	if err != nil {
		return Daemon{}, err
	}
	d, err := connect(ctx, config.Socket, config.Timeout)
	if err != nil {
		return Daemon{}, err
	}
	defer func() { err = errors.Join(err, d.close()) }()

	found := Daemon{Version: d.version}
	snapshotters := map[string]struct{}{}
	for _, ns := range config.Namespaces {
		err := d.list(ctx, ns, func(record *containersapi.Container) {
			found.Containers++
			if name := record.GetSnapshotter(); name != "" {
				snapshotters[name] = struct{}{}
			}
		})
		if err != nil {
			return found, err
		}
	}
	if found.Roots, err = d.roots(ctx); err != nil {
		return found, err
	}
	found.Snapshotters = slices.Sorted(maps.Keys(snapshotters))
	return found, nil
}
