package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

type upOptions struct {
	nodes int
	disk  string
}

// startPatience bounds how long the running parts may take to be ready; the
// build before has no bound.
const startPatience = 4 * time.Minute

// up makes the lab run with at least the nodes asked for. Each step looks
// first whether it is done already, so up also mends a lab of which parts are
// missing, and costs nothing when none are.
func up(ctx context.Context, p paths, o upOptions, show *progress) error {
	if o.nodes < 1 || o.nodes > maxNodes {
		return fmt.Errorf("cannot start %d nodes: 1 to %d are possible", o.nodes, maxNodes)
	}
	if _, err := parseSize(o.disk); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("cannot start a lab: it makes namespaces, mounts and cgroups, so it must run as root")
	}
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	bins, err := allParts(ctx, p, show)
	if err != nil {
		return err
	}
	if err := installTools(ctx, nodeTools(), show); err != nil {
		return err
	}
	unlock, err := lock(ctx, "lab", show)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	return start(ctx, p, bins, groups, o, show)
}

// allParts has everything built and downloaded.
func allParts(ctx context.Context, p paths, show *progress) (binaries, error) {
	bins, err := buildParts(ctx, p.cache, show)
	if err != nil {
		return nil, err
	}
	if bins["etcd"], err = fetch(ctx, p.cache, "etcd", show); err != nil {
		return nil, err
	}
	return bins, nil
}

func start(ctx context.Context, p paths, bins binaries, groups cgroups, o upOptions, show *progress) error {
	before, err := runningNodes(p)
	if err != nil {
		return err
	}
	nodes := nodesWanted(before, o.nodes)
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the lab's folder: %w", err)
	}
	if err := writeFileAtomic(p.partsRecord(), mustJSON(bins)); err != nil {
		return err
	}
	if err := ensureBridge(); err != nil {
		return err
	}
	if err := prepareControlPlane(p); err != nil {
		return err
	}
	if err := startControlPlane(p, bins, groups, etcdName, apiserverName); err != nil {
		return err
	}
	if err := bootNodes(ctx, p, bins, groups, nodes, o.disk, show); err != nil {
		return err
	}
	if err := waitAPI(ctx, p, show); err != nil {
		return err
	}
	// Before the API server has its first roles they are denied all, and end.
	if err := startControlPlane(p, bins, groups, controllerManagerName, schedulerName); err != nil {
		return err
	}
	show.line("control plane: ready at %s", apiserverURL)
	if err := joinNodes(ctx, p, nodes, show); err != nil {
		return err
	}
	sayRunning(p, before, nodes, show)
	return nil
}

func sayRunning(p paths, before, nodes []int, show *progress) {
	if len(before) == len(nodes) {
		show.line("the lab was running already with %s", nodesTitle(nodes))
	} else {
		show.line("the lab is running with %s", nodesTitle(nodes))
	}
	show.line("try: %s kubectl get nodes    or: export KUBECONFIG=%s", os.Args[0], p.adminKubeconfig())
}

// nodesWanted keeps what runs and adds the lowest free numbers.
func nodesWanted(running []int, count int) []int {
	wanted := map[int]bool{}
	for _, n := range running {
		wanted[n] = true
	}
	for n := 1; len(wanted) < count; n++ {
		wanted[n] = true
	}
	var nodes []int
	for n := 1; n <= maxNodes; n++ {
		if wanted[n] {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func runningNodes(p paths) ([]int, error) {
	all, err := p.existingNodes()
	if err != nil {
		return nil, err
	}
	var running []int
	for _, n := range all {
		if _, alive := recordedProcess(p.pids(), nodeName(n)); alive {
			running = append(running, n)
		}
	}
	return running, nil
}

// bootNodes boots all nodes at once as far as containerd with the sandbox
// image; the control plane comes up meanwhile.
func bootNodes(ctx context.Context, p paths, bins binaries, groups cgroups, nodes []int, disk string, show *progress) error {
	pause := filepath.Join(p.dir, "pause.tar")
	if err := writeImage(pause, "docker.io/"+pauseImage, bins.path("pause", "pause")); err != nil {
		return err
	}
	show.doing("%s: starting", nodesTitle(nodes))
	return forEachNode(nodes, func(n int) error {
		if err := bootNode(ctx, p, bins, groups, n, disk); err != nil {
			return err
		}
		if _, err := tellNode(ctx, p, n, order{Do: "start", Name: "containerd"}); err != nil {
			return err
		}
		return loadImage(ctx, p, groups, n, pause)
	})
}

// joinNodes starts kubelet and kube-proxy and waits until the nodes serve.
func joinNodes(ctx context.Context, p paths, nodes []int, show *progress) error {
	client, err := newAPIClient(p)
	if err != nil {
		return err
	}
	show.doing("%s: joining the cluster", nodesTitle(nodes))
	err = forEachNode(nodes, func(n int) error {
		for _, name := range []string{"kubelet", "kube-proxy"} {
			if _, err := tellNode(ctx, p, n, order{Do: "start", Name: name}); err != nil {
				return err
			}
		}
		return waitNodeReady(ctx, p, client, n)
	})
	if err != nil {
		return err
	}
	show.line("%s: Ready", nodesTitle(nodes))
	if err := allAlive(p, controlPlaneNames()...); err != nil {
		return err
	}
	if _, alive := recordedProcess(p.pids(), nodeName(1)); !alive {
		return nil // the host's way to Services leads through node 1
	}
	return waitService(ctx, show)
}

func waitNodeReady(ctx context.Context, p paths, client apiClient, n int) error {
	var last error
	if waitFor(ctx, 200*time.Millisecond, func() bool {
		var ready bool
		ready, last = client.nodeReady(ctx, nodeName(n))
		return ready
	}) {
		return nil
	}
	log := filepath.Join(p.nodeLogs(n), "kubelet.log")
	return fmt.Errorf("%s does not get Ready (%w); the end of its kubelet's log:\n%s", nodeName(n), last, lastLines(log, 15))
}

// waitService waits until the API answers at its Service address: kube-proxy
// of node 1 has its rules then, and the host's way to Services works.
func waitService(ctx context.Context, show *progress) error {
	show.doing("Services: waiting for kube-proxy")
	var last error
	address := net.JoinHostPort(kubernetesServiceIP, "443")
	if waitFor(ctx, 100*time.Millisecond, func() bool {
		conn, err := (&net.Dialer{Timeout: 200 * time.Millisecond}).DialContext(ctx, "tcp", address)
		if last = err; err == nil {
			conn.Close()
		}
		return err == nil
	}) {
		show.doing("")
		return nil
	}
	return fmt.Errorf("cannot reach the Service address %s: %w; see kube-proxy.log of node-1", address, last)
}

func forEachNode(nodes []int, do func(n int) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func nodesTitle(nodes []int) string {
	var names []string
	for _, n := range nodes {
		names = append(names, nodeName(n))
	}
	return strings.Join(names, ", ")
}

// recordedParts tells where the running lab's programs are.
func recordedParts(p paths) (binaries, error) {
	text, err := os.ReadFile(p.partsRecord())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no lab is running (%s has none): start one with `lab up`", p.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot tell where the lab's programs are: %w", err)
	}
	var bins binaries
	if err := json.Unmarshal(text, &bins); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", p.partsRecord(), err)
	}
	return bins, nil
}
