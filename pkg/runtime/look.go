package runtime

import (
	"context"
	"fmt"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
)

// maxLooks bounds the calls under way at once: containerd's own work matters
// more than our speed.
const maxLooks = 4

// lookAtAll lists every container of the given namespaces and completes each
// but those that are known already, whole and as the list has them. With an
// error nothing is known, not even that a container is gone.
func lookAtAll(ctx context.Context, d *daemon, m *metrics, namespaces []string, known set) ([]finding, error) {
	var findings []finding
	for _, ns := range namespaces {
		err := d.list(ctx, ns, func(record *containersapi.Container) {
			findings = append(findings, identified(m, ns, record))
		})
		if err != nil {
			m.failed(callList)
			return nil, err
		}
	}
	return findings, each(ctx, findings, func(f *finding) {
		if !known.completes(f) {
			complete(ctx, d, m, f)
		}
	})
}

// lookAt looks at the given containers alone.
func lookAt(ctx context.Context, d *daemon, m *metrics, refs []ref) ([]finding, error) {
	findings := make([]finding, len(refs))
	for i, r := range refs {
		findings[i].ref = r
	}
	return findings, each(ctx, findings, func(f *finding) {
		record, err := d.get(ctx, f.ref)
		switch {
		case err != nil:
			m.failed(callGet)
			f.recordErr = err
		case record == nil:
			f.gone = true
		default:
			*f = identified(m, f.ref.namespace, record)
			complete(ctx, d, m, f)
		}
	})
}

func each(ctx context.Context, findings []finding, do func(*finding)) error {
	var group errgroup.Group
	group.SetLimit(maxLooks)
	for i := range findings {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			do(&findings[i])
			return nil
		})
	}
	_ = group.Wait() // the functions return none
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("cannot look at %d containers: %w", len(findings), err)
	}
	return nil
}

func identified(m *metrics, namespace string, record *containersapi.Container) finding {
	c, err := identify(namespace, record)
	if err != nil {
		// Asking again would bring the same: the container is watched without.
		m.failed(callSpec)
	}
	return finding{ref: ref{namespace, c.ID}, container: c}
}

// complete asks for what the record does not hold. A container may go at any
// moment of it: then it is gone, which is no failure.
func complete(ctx context.Context, d *daemon, m *metrics, f *finding) {
	c := &f.container
	c.Layer, f.layerErr = d.located(ctx, c.Namespace, c.Layer)
	if errdefs.IsNotFound(f.layerErr) {
		// Either the container went too, or it lives on without its layer
		// (somebody removed the snapshot under it).
		f.layerErr = nil
		if record, err := d.get(ctx, f.ref); err == nil && record == nil {
			f.gone = true
			return
		}
	}
	if f.layerErr != nil {
		m.failed(callSnapshot)
	}
	if c.PID, f.processErr = d.pid(ctx, f.ref); f.processErr != nil {
		m.failed(callTask)
	}
}
