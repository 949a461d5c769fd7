package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// testEnvCommand builds and fetches all that the tests use, and prints where it
// is as lines for a shell to eval.
func testEnvCommand(ctx context.Context, p paths, args []string) error {
	if err := wantArgs(args, 0, 0); err != nil {
		return err
	}
	show := newProgress(os.Stderr)
	defer show.close()
	bins, err := allParts(ctx, p, show)
	if err != nil {
		return err
	}
	// pkg/disk measures on file systems of each kind, in loop devices.
	if err := installTools(ctx, []systemTool{{"mkfs.xfs", "xfsprogs"}, {"mkfs.btrfs", "btrfs-progs"}}, show); err != nil {
		return err
	}
	fetched := binaries{}
	for _, name := range []string{"containerd-1.6", "prometheus", "alertmanager", "node-exporter", "blackbox-exporter", "registry", "argo-rollouts", "kruise"} {
		if fetched[name], err = fetch(ctx, p.cache, name, show); err != nil {
			return err
		}
	}
	old := fetched["containerd-1.6"]
	containerd1, err := linkTogether(filepath.Join(p.cache, "test-containerd-1.6"), map[string]string{
		"containerd":              filepath.Join(old, "usr/bin/containerd"),
		"containerd-shim-runc-v2": filepath.Join(old, "usr/bin/containerd-shim-runc-v2"),
		"ctr":                     filepath.Join(old, "usr/bin/ctr"),
		"runc":                    filepath.Join(old, "usr/sbin/runc"),
	})
	if err != nil {
		return err
	}
	containerd2, err := linkTogether(filepath.Join(p.cache, "test-containerd-2"), map[string]string{
		"containerd":              bins.path("containerd", "containerd"),
		"containerd-shim-runc-v2": bins.path("containerd", "containerd-shim-runc-v2"),
		"ctr":                     bins.path("containerd", "ctr"),
		"runc":                    bins.path("runc", "runc"),
	})
	if err != nil {
		return err
	}
	for _, v := range [][2]string{
		{"NODEAGENT_TEST_CONTAINERD_1_6", containerd1},
		{"NODEAGENT_TEST_CONTAINERD_2", containerd2},
		{"NODEAGENT_TEST_KUBERNETES", bins["kubernetes"]},
		{"NODEAGENT_TEST_ETCD", filepath.Join(bins["etcd"], "usr/bin")},
		{"NODEAGENT_TEST_ALERTMANAGER", filepath.Join(fetched["alertmanager"], "usr/bin/prometheus-alertmanager")},
		{"NODEAGENT_TEST_NODE_EXPORTER", filepath.Join(fetched["node-exporter"], "usr/bin/prometheus-node-exporter")},
		{"NODEAGENT_TEST_BLACKBOX_EXPORTER", filepath.Join(fetched["blackbox-exporter"], "usr/bin/prometheus-blackbox-exporter")},
		{"NODEAGENT_TEST_REGISTRY", filepath.Join(fetched["registry"], "usr/bin/docker-registry")},
		{"NODEAGENT_TEST_PROMTOOL", filepath.Join(fetched["prometheus"], "usr/bin/promtool")},
		{"NODEAGENT_TEST_ARGO_ROLLOUTS", fetched["argo-rollouts"]},
		{"NODEAGENT_TEST_KRUISE", fetched["kruise"]},
	} {
		fmt.Printf("export %s=%q\n", v[0], v[1])
	}
	return nil
}

// linkTogether puts programs that belong together into the bin of one folder,
// as a distribution's package would.
func linkTogether(dir string, programs map[string]string) (string, error) {
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", fmt.Errorf("cannot make %s: %w", bin, err)
	}
	for name, target := range programs {
		if _, err := os.Stat(target); err != nil {
			return "", fmt.Errorf("cannot find %s: %w", name, err)
		}
		link := filepath.Join(bin, name)
		if old, err := os.Readlink(link); err == nil && old == target {
			continue
		}
		next := link + ".new"
		_ = os.Remove(next)
		if err := os.Symlink(target, next); err != nil {
			return "", fmt.Errorf("cannot link %s: %w", name, err)
		}
		if err := os.Rename(next, link); err != nil {
			return "", fmt.Errorf("cannot link %s: %w", name, err)
		}
	}
	return dir, nil
}
