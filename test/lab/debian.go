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
}

func debianBundles() []bundle {
	return []bundle{
		{"etcd", []string{"etcd-server"}, "usr/bin/etcd"},
		{"containerd-1.6", []string{"containerd", "runc"}, "usr/bin/containerd"},
		{"prometheus", []string{"prometheus"}, "usr/bin/promtool"},
		{"alertmanager", []string{"prometheus-alertmanager"}, "usr/bin/prometheus-alertmanager"},
		{"node-exporter", []string{"prometheus-node-exporter"}, "usr/bin/prometheus-node-exporter"},
	}
}

// fetch returns the folder with the bundle's files. What the cache has is taken
// as it is, so that it works without a network; remove it for a newer version.
func (b bundle) fetch(ctx context.Context, cache string, p *progress) (string, error) {
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
	if err := run(ctx, dir, nil, "apt-get", append([]string{"download", "-o", "APT::Sandbox::User=root"}, b.packages...)...); err != nil {
		return fmt.Errorf("cannot download %s: %w", b.name, err)
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(archives) != len(b.packages) {
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
