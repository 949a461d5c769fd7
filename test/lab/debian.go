package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// systemTool is a program of the machine and the Debian package it comes in.
// With no program the package itself is asked for.
type systemTool struct{ program, pkg string }

// nodeTools are what kubelet, kube-proxy and the CNI plugins call.
func nodeTools() []systemTool {
	return []systemTool{
		{"mount", "mount"}, {"mkfs.ext4", "e2fsprogs"}, {"iptables", "iptables"},
		{"nft", "nftables"}, {"conntrack", "conntrack"}, {"cp", "coreutils"},
		{"", "libseccomp2"}, // runc is linked to it
	}
}

// installTools installs the packages that are missing, and says so. They are
// the only thing that the lab leaves on the machine.
func installTools(ctx context.Context, tools []systemTool, p *progress) error {
	var missing []string
	for _, t := range tools {
		if !t.present() && !slices.Contains(missing, t.pkg) {
			missing = append(missing, t.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	unlock, err := lock(ctx, "apt", p)
	if err != nil {
		return err
	}
	defer unlock()
	if err := aptUpdate(ctx, missing, p); err != nil {
		return err
	}
	names := strings.Join(missing, ", ")
	p.doing("installing with apt-get: %s", names)
	args := append([]string{"install", "-y", "--no-install-recommends"}, missing...)
	if err := run(ctx, "", append([]string{"DEBIAN_FRONTEND=noninteractive"}, os.Environ()...), "apt-get", args...); err != nil {
		return fmt.Errorf("cannot install %s, which the lab needs: %w", names, err)
	}
	p.line("installed with apt-get: %s", names)
	return nil
}

func (t systemTool) present() bool {
	if t.program != "" {
		_, err := exec.LookPath(t.program)
		return err == nil
	}
	out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status}", t.pkg).Output()
	return err == nil && string(out) == "installed"
}

// aptUpdate fetches apt's package lists if they do not know all of pkgs.
func aptUpdate(ctx context.Context, pkgs []string, p *progress) error {
	known := true
	for _, pkg := range pkgs {
		version, err := aptVersion(ctx, pkg)
		known = known && err == nil && version != ""
	}
	if known {
		return nil
	}
	p.doing("updating apt's package lists")
	if err := run(ctx, "", nil, "apt-get", "update"); err != nil {
		return fmt.Errorf("cannot update apt's package lists: %w", err)
	}
	p.doing("")
	return nil
}

// aptVersion is the version that apt would install, "" if it knows none.
func aptVersion(ctx context.Context, pkg string) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "policy", pkg).Output()
	if err != nil {
		return "", fmt.Errorf("cannot ask apt for %s: %w", pkg, err)
	}
	for line := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); ok && v != "(none)" {
			return v, nil
		}
	}
	return "", nil
}

// bundle is a set of Debian packages that are unpacked into one folder of the
// cache. Nothing is installed: no service starts, no file of the machine
// changes.
type bundle struct {
	name     string
	packages []string
	needs    string // a file in it
	// meta says that the package is empty and depends on the one that is meant.
	meta bool
	// tools are installed, as the bundle is of no use without them.
	tools []systemTool
}

func debianBundles() []bundle {
	return []bundle{
		{name: "etcd", packages: []string{"etcd-server"}, needs: "usr/bin/etcd"},
		{name: "containerd-1.6", packages: []string{"containerd", "runc"}, needs: "usr/bin/containerd"},
		{name: "prometheus", packages: []string{"prometheus"}, needs: "usr/bin/promtool"},
		{name: "alertmanager", packages: []string{"prometheus-alertmanager"}, needs: "usr/bin/prometheus-alertmanager"},
		{name: "node-exporter", packages: []string{"prometheus-node-exporter"}, needs: "usr/bin/prometheus-node-exporter"},
		{name: "registry", packages: []string{"docker-registry"}, needs: "usr/bin/docker-registry"},
		{name: "blackbox-exporter", packages: []string{"prometheus-blackbox-exporter"}, needs: "usr/bin/prometheus-blackbox-exporter"},
		// Other ways to start an isolated process, for bench/launch; with the
		// libraries that a plain machine lacks.
		{
			name: "launch-peers", needs: "usr/bin/podman",
			packages: []string{"podman", "crun", "conmon", "golang-github-containers-common", "golang-github-containers-image", "libyajl2", "libsubid4", "libgpgme11", "libassuan0", "libdevmapper1.02.1"},
		},
		// For bench/disk: a peer that walks a tree on all cores.
		{name: "gdu", packages: []string{"gdu"}, needs: "usr/bin/gdu"},
		// For test/vm: a kernel that is unpacked and never installed.
		{
			name: "linux-cloud", packages: []string{"linux-image-cloud-amd64"}, needs: "lib/modules", meta: true,
			tools: []systemTool{{"qemu-system-x86_64", "qemu-system-x86"}, {"mkfs.xfs", "xfsprogs"}, {"mkfs.ext4", "e2fsprogs"}},
		},
		// For test/vm: its process 1, with all the libraries of systemd and
		// systemctl but libc.
		{
			name: "systemd", needs: "lib/systemd/systemd",
			packages: []string{
				"systemd", "libsystemd-shared", "libacl1", "libapparmor1", "libaudit1", "libblkid1", "libcap-ng0", "libcap2",
				"libcrypt1", "libgcrypt20", "libgpg-error0", "libip4tc2", "libkmod2", "liblz4-1", "liblzma5", "libmount1",
				"libpam0g", "libpcre2-8-0", "libseccomp2", "libselinux1", "libssl3", "libzstd1",
			},
		},
	}
}

// fetch returns the folder with the bundle's files. What the cache has is taken
// as it is, so that it works without a network; remove it for a newer version.
func (b bundle) fetch(ctx context.Context, cache string, p *progress) (string, error) {
	if err := installTools(ctx, b.tools, p); err != nil {
		return "", err
	}
	if dir, ok := newestCached(cache, "debian-"+b.name, b.needs); ok {
		return dir, nil
	}
	if err := aptUpdate(ctx, b.packages, p); err != nil {
		return "", err
	}
	version, err := aptVersion(ctx, b.packages[0])
	if err != nil {
		return "", err
	}
	if version == "" {
		return "", fmt.Errorf("cannot fetch %s: apt knows no package %s; the lab needs a Debian 12 package source", b.name, b.packages[0])
	}
	key := fmt.Sprintf("debian-%s-%s", b.name, url.PathEscape(version))
	return cached(ctx, cache, key, b.needs, p, func(temp string) error {
		p.doing("%s %s: downloading from Debian", b.name, version)
		if err := b.unpack(ctx, temp); err != nil {
			return err
		}
		p.line("%s %s: downloaded from Debian", b.name, version)
		return nil
	})
}

func (b bundle) unpack(ctx context.Context, dir string) error {
	packages := b.packages
	if b.meta {
		meant, err := aptDepends(ctx, b.packages[0])
		if err != nil {
			return err
		}
		packages = []string{meant}
	}
	if err := run(ctx, dir, nil, "apt-get", append([]string{"download", "-o", "APT::Sandbox::User=root"}, packages...)...); err != nil {
		return fmt.Errorf("cannot download %s: %w", b.name, err)
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(archives) != len(packages) {
		return fmt.Errorf("cannot unpack %s: apt-get download brought %v (%w)", b.name, archives, err)
	}
	for _, a := range archives {
		if err := run(ctx, dir, nil, "dpkg", "-x", a, dir); err != nil {
			return fmt.Errorf("cannot unpack %s: %w", filepath.Base(a), err)
		}
		if err := os.Remove(a); err != nil {
			return fmt.Errorf("cannot clear up after unpacking: %w", err)
		}
	}
	return nil
}

// aptDepends is the first package that pkg depends on.
func aptDepends(ctx context.Context, pkg string) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", pkg).Output()
	if err != nil {
		return "", fmt.Errorf("cannot ask apt what %s depends on: %w", pkg, err)
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("cannot tell what %s stands for: it depends on nothing", pkg)
}

// run runs a command to its end; its output is the error's when it fails. env
// nil means this process's own.
func run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
