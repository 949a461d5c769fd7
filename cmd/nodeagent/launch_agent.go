package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/ports"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/rollout"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/source"
)

// The sources of Binaries, as they are shown.
const (
	fromCluster  = "cluster"
	fromFolder   = "folder"
	fromLaunched = "launched"
)

// launchParts is all of the agent that runs binaries from URLs.
type launchParts struct {
	supervisor *binlaunch.Supervisor
	folder     *source.Folder
	launched   *source.Folder // what came over the local socket, kept as files
	cluster    *source.Cluster
	client     client.WithWatch
	node       string
	moved      chan struct{} // the node has, perhaps: its role may be another
	tools      tools
	log        *slog.Logger
}

// newLaunchParts wires it. Without the API (standalone) there are no roles and
// no pods to ask about. self is this program.
func newLaunchParts(cfg *v1alpha1.Config, o runOptions, self string, pods *nodePods, reg prometheus.Registerer, log *slog.Logger) (*launchParts, error) {
	log = log.With("part", "launch")
	l := &launchParts{
		folder:   &source.Folder{Path: cfg.Launch.Folder, Log: log},
		launched: &source.Folder{Path: filepath.Join(cfg.Launch.Root, "launched"), Log: log},
		node:     cfg.Node, moved: make(chan struct{}, 1), log: log,
	}
	var err error
	if l.tools, err = launchTools(cfg, self, log); err != nil {
		return nil, err
	}
	first, last, err := v1alpha1.ParsePorts(cfg.Launch.Ports)
	if err != nil {
		return nil, err
	}
	options := binlaunch.Options{
		Node: cfg.Node, Host: hostAddress(), Folder: filepath.Join(cfg.Launch.Root, "units"),
		Fetcher: l.tools.fetcher, Launcher: l.tools.launcher, Range: ports.Range{First: first, Last: last},
		Network: hostNetwork(cfg), Proc: filepath.Join(cfg.HostRoot, "proc"),
		AllowPrivileged: cfg.Launch.AllowPrivileged, Logger: log,
	}
	if !o.standalone {
		kube, err := kubeConfig(o.kubeconfig)
		if err != nil {
			return nil, err
		}
		if l.client, err = source.NewClient(kube, log); err != nil {
			return nil, err
		}
		l.cluster = source.NewCluster(l.client, cfg.Node)
		options.Role = l.cluster.Role
		options.PodPorts, options.PodName = pods.hostPorts, pods.nameOf
	}
	l.supervisor = binlaunch.New(options)
	reg.MustRegister(binlaunch.NewCollector(l.supervisor))
	return l, nil
}

// hostNetwork is the namespace that tasks are in: the agent's own on the host,
// that of the host's first process from inside the DaemonSet.
func hostNetwork(cfg *v1alpha1.Config) ports.Network {
	if cfg.HostRoot == "/" {
		return ""
	}
	return ports.Network(filepath.Join(cfg.HostRoot, "proc/1/ns/net"))
}

// hostAddress is what tasks are told as $HOST and Prometheus as the address:
// the node's, as the kubelet says it ($HOST_IP), else the one that routes
// outward. Nothing is sent for it.
func hostAddress() string {
	if ip := os.Getenv("HOST_IP"); ip != "" {
		return ip
	}
	// A datagram socket that is connected asks the routing table alone.
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "udp", "192.0.2.1:9")
	if err != nil {
		return "127.0.0.1"
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		return "127.0.0.1"
	}
	return host
}

// run supervises, and tells the supervisor what each source wants.
func (l *launchParts) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.supervisor.Run(ctx) })
	for name, folder := range map[string]*source.Folder{fromFolder: l.folder, fromLaunched: l.launched} {
		g.Go(func() error {
			return folder.Run(ctx, func(all []*v1alpha1.Binary) { l.supervisor.Want(name, allAdmitted(all)) })
		})
	}
	if l.cluster != nil {
		g.Go(func() error { return l.cluster.Run(ctx, l.wantOfCluster, l.nodeMoved) })
		instances := &source.Instances{Client: l.client, Node: l.node, Log: l.log}
		g.Go(func() error { return l.reportInstances(ctx, instances) })
	}
	return errors.Join(g.Wait(), l.tools.close())
}

func (l *launchParts) nodeMoved() {
	l.supervisor.Poke()
	select {
	case l.moved <- struct{}{}:
	default: // it is told already
	}
}

// role is how this node's role is known to those who taint it.
func (l *launchParts) role(cfg *v1alpha1.Config) *nodeRole {
	return &nodeRole{taint: cfg.Launch.TaintPublicNode, moved: l.moved, node: l.cluster.Node}
}

// lead leads the updates of Binaries. The leader of all agents does.
func (l *launchParts) lead(ctx context.Context) {
	(&rollout.Leader{Client: l.client, Node: l.node, Log: l.log}).Lead(ctx)
}

// reportInstances waits for the Binaries first: before that it would delete
// what it does not know.
func (l *launchParts) reportInstances(ctx context.Context, w *source.Instances) error {
	for l.cluster.Synced() != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
	return w.Run(ctx, l.supervisor.Changed, l.reports)
}

// reports are of what the cluster wants here, and of what it no longer wants
// until nothing of that is left.
func (l *launchParts) reports() []source.Report {
	node := l.cluster.Node()
	if node == nil {
		return nil
	}
	role, _ := l.cluster.Role()
	var all []source.Report
	for _, i := range l.supervisor.Instances() {
		if i.Source != fromCluster {
			continue
		}
		b, there := l.cluster.Binary(i.Name)
		if i.Running == nil && (!there || !wants(b, role)) {
			continue
		}
		if !there {
			b = i.Running
		}
		all = append(all, source.Report{Binary: i.Name, UID: b.UID, NodeUID: node.UID, Status: i.Status})
	}
	return all
}

// wants tells whether a node of this role is one of a Binary's.
func wants(b *v1alpha1.Binary, role string) bool {
	for _, r := range b.Spec.Defaulted().Roles {
		if r == "*" || r == role {
			return true
		}
	}
	return false
}

func (l *launchParts) wantOfCluster(all []source.Wanted) {
	wanted := make([]binlaunch.Wanted, 0, len(all))
	for _, w := range all {
		wanted = append(wanted, binlaunch.Wanted{Binary: w.Binary, Admitted: w.Admitted})
	}
	l.supervisor.Want(fromCluster, wanted)
}

// allAdmitted: a file concerns this node alone, so nobody has to be waited for.
func allAdmitted(all []*v1alpha1.Binary) []binlaunch.Wanted {
	wanted := make([]binlaunch.Wanted, 0, len(all))
	for _, b := range all {
		wanted = append(wanted, binlaunch.Wanted{Binary: b, Admitted: true})
	}
	return wanted
}

// targetsPath is where Prometheus' HTTP service discovery asks.
const targetsPath = "/targets"

// serveTargets answers in the form of Prometheus' http_sd_config.
func (l *launchParts) serveTargets(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(l.supervisor.Targets()); err != nil {
		l.log.Debug("targets not delivered", "err", err)
	}
}

// save keeps what was launched over the socket as a file, which is a source
// like any other: it is there again after a restart and after a reboot.
func (l *launchParts) save(b *v1alpha1.Binary) error {
	if err := os.MkdirAll(l.launched.Path, 0o700); err != nil {
		return fmt.Errorf("cannot keep %s: %w", b.Name, err)
	}
	raw, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot keep %s: %w", b.Name, err)
	}
	path := l.launchedFile(b.Name)
	if err := writeSynced(path+".new", raw); err != nil {
		return fmt.Errorf("cannot keep %s: %w", b.Name, err)
	}
	if err := errors.Join(os.Rename(path+".new", path), syncFile(l.launched.Path)); err != nil {
		return fmt.Errorf("cannot keep %s: %w", b.Name, err)
	}
	l.rescan()
	return nil
}

// forget takes it away for good.
func (l *launchParts) forget(name string) error {
	err := os.Remove(l.launchedFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncFile(l.launched.Path))
}

// writeSynced waits until the disk has it: what was launched by hand stands
// nowhere else, and has to outlive a power cut.
func writeSynced(path string, raw []byte) error {
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return err
	}
	return syncFile(path)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (l *launchParts) launchedFile(name string) string {
	return filepath.Join(l.launched.Path, name+".json")
}

// rescan looks at once: who launches waits.
func (l *launchParts) rescan() {
	if l.launched.Scan() {
		l.supervisor.Want(fromLaunched, allAdmitted(l.launched.Binaries()))
	}
}
