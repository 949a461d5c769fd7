package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
)

// daemon is one connection to containerd. It only ever reads. Every call has a
// deadline; after it the daemon or a shim behind it is taken for hung.
type daemon struct {
	client     *client.Client
	containers containersapi.ContainersClient
	version    string
	timeout    time.Duration
}

// connect returns only when containerd answered.
func connect(ctx context.Context, socket string, timeout time.Duration) (*daemon, error) {
	c, err := client.New(socket, client.WithTimeout(timeout), client.WithExtraDialOpts([]grpc.DialOption{
		// containerd's own dialer waits for a socket that is not there, up to
		// the timeout and in steps of 10 ms, and then says "deadline
		// exceeded". Here a missing socket is said at once, and by its name.
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket)
		}),
	}))
	if err != nil {
		return nil, fmt.Errorf("cannot connect to containerd at %s: %w", socket, err)
	}
	conn, ok := c.Conn().(grpc.ClientConnInterface)
	if !ok {
		return nil, errors.Join(fmt.Errorf("cannot connect to containerd at %s: its client has no gRPC connection", socket), c.Close())
	}
	d := &daemon{client: c, containers: containersapi.NewContainersClient(conn), timeout: timeout}

	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	version, err := c.Version(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot reach containerd at %s: %w", socket, err), c.Close())
	}
	d.version = version.Version
	return d, nil
}

func (d *daemon) close() error { return d.client.Close() }

// events opens the stream of what happens to the containers of the given
// namespaces. It ends with ctx or with an error, and then errs is closed.
func (d *daemon) events(ctx context.Context, ns []string) (envelopes <-chan *events.Envelope, errs <-chan error) {
	return d.client.EventService().Subscribe(ctx, eventFilters(ns)...)
}

// list hands each container's record of one namespace to visit. They come one
// by one and are not kept: two hundred specs at once are megabytes. A
// namespace that does not exist has no containers.
func (d *daemon) list(ctx context.Context, namespace string, visit func(*containersapi.Container)) error {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, namespace), d.timeout)
	defer cancel()
	stream, err := d.containers.ListStream(ctx, &containersapi.ListContainersRequest{})
	if err != nil {
		return fmt.Errorf("cannot list the containers of namespace %s: %w", namespace, errgrpc.ToNative(err))
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot list the containers of namespace %s: %w", namespace, errgrpc.ToNative(err))
		}
		visit(message.GetContainer())
	}
}

// get returns a container's record, or nil when there is no such container.
func (d *daemon) get(ctx context.Context, r ref) (*containersapi.Container, error) {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, r.namespace), d.timeout)
	defer cancel()
	response, err := d.containers.Get(ctx, &containersapi.GetContainerRequest{ID: r.id})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look up container %s/%s: %w", r.namespace, r.id, err)
	}
	return response.GetContainer(), nil
}

// located completes a layer with where it is on the host. A layer that is gone
// is an error, errdefs.IsNotFound.
func (d *daemon) located(ctx context.Context, namespace string, layer Layer) (Layer, error) {
	layer.Upper, layer.Source = "", ""
	if layer.Snapshotter == "" || layer.Key == "" {
		return layer, nil
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, namespace), d.timeout)
	defer cancel()
	mounts, err := d.client.SnapshotService(layer.Snapshotter).Mounts(ctx, layer.Key)
	if err != nil {
		return layer, fmt.Errorf("cannot ask snapshotter %s for the mounts of %s: %w", layer.Snapshotter, layer.Key, err)
	}
	if layer.Upper = upperFolder(layer.Snapshotter, mounts); layer.Upper == "" {
		layer.Source = sourceFolder(mounts)
	}
	return layer, nil
}

// usage asks a snapshotter how much a layer takes. It costs containerd a walk
// where the layer is a folder.
func (d *daemon) usage(ctx context.Context, namespace string, layer Layer) (snapshots.Usage, error) {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, namespace), usageTimeout*d.timeout)
	defer cancel()
	usage, err := d.client.SnapshotService(layer.Snapshotter).Usage(ctx, layer.Key)
	if err != nil {
		return usage, fmt.Errorf("cannot ask snapshotter %s for the usage of %s: %w", layer.Snapshotter, layer.Key, err)
	}
	return usage, nil
}

// pid returns the process id of a container's task, or 0 when no task runs.
func (d *daemon) pid(ctx context.Context, r ref) (int, error) {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, r.namespace), d.timeout)
	defer cancel()
	response, err := d.client.TaskService().Get(ctx, &tasksapi.GetRequest{ContainerID: r.id})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot ask for the task of container %s/%s: %w", r.namespace, r.id, err)
	}
	return processID(response.GetProcess())
}

// processID reads a task's state. An ended task still shows its number, which
// the kernel may have given to another process since; and containerd answers
// "unknown", not an error, when a shim did not tell.
func processID(process *task.Process) (int, error) {
	switch process.GetStatus() {
	case task.Status_STOPPED:
		return 0, nil
	case task.Status_UNKNOWN:
		return 0, fmt.Errorf("cannot tell the state of task %s: its shim did not say", process.GetID())
	default:
		return int(process.GetPid()), nil
	}
}
