package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/disk"
)

func TestChooseReserves(t *testing.T) {
	type files map[string]string
	kubelet := func(args ...string) string { return "/usr/bin/kubelet\x00" + strings.Join(args, "\x00") + "\x00" }
	for _, c := range []struct {
		name          string
		setting       string
		files         files
		bytes, inodes disk.Reserve
		source        string
	}{
		{
			"the setting wins", "20Gi", files{"7/cmdline": kubelet("--eviction-hard=nodefs.available<3%")},
			disk.Reserve{Amount: 20 << 30}, disk.Reserve{Percent: 5}, "disk.reserve",
		},
		{
			"it is of bytes alone", "20Gi", files{"7/cmdline": kubelet("--eviction-hard=nodefs.available<3%,nodefs.inodesFree<1%,imagefs.inodesFree<1%")},
			disk.Reserve{Amount: 20 << 30}, disk.Reserve{Percent: 1}, "20.0 GiB (disk.reserve in the configuration; for inodes evictionHard of this node's kubelet)",
		},
		{
			"and there is no kubelet", "25%", files{"7/cmdline": "sleep\x0099\x00"},
			disk.Reserve{Percent: 25}, disk.Reserve{Percent: 5}, "25% (disk.reserve in the configuration; for inodes the kubelet's default, as no process called kubelet is seen)",
		},
		{"no kubelet", "", files{"7/cmdline": "sleep\x0099\x00"}, disk.Reserve{Percent: 15}, disk.Reserve{Percent: 5}, "no process called kubelet"},
		{
			"its flag", "", files{"7/cmdline": kubelet("--eviction-hard", "memory.available<1Gi,nodefs.available<3%,imagefs.available<2%,nodefs.inodesFree<1%")},
			disk.Reserve{Percent: 3}, disk.Reserve{Percent: 1}, "evictionHard",
		},
		{
			"its file", "",
			files{
				"7/cmdline":                    kubelet("--v=2", "--config=/etc/kubelet.yaml"),
				"7/root/etc/kubelet.yaml":      "kind: KubeletConfiguration\nevictionHard: {imagefs.available: 8%, nodefs.available: 10Gi, nodefs.inodesFree: 100%}\n",
				"7/root/etc/unrelated.ignored": "x",
			},
			disk.Reserve{Percent: 8, Amount: 10 << 30}, disk.Reserve{Percent: 5}, "evictionHard",
		},
		{
			"its file without thresholds: the kubelet's defaults", "",
			files{"7/cmdline": kubelet("--config=/k.yaml"), "7/root/k.yaml": "maxPods: 10\n"},
			disk.Reserve{Percent: 15}, disk.Reserve{Percent: 5}, "evictionHard",
		},
		{
			"drop-ins over the file, defaults merged", "",
			files{
				"7/cmdline":        kubelet("--config", "/k.yaml", "--config-dir", "/d"),
				"7/root/k.yaml":    "evictionHard: {nodefs.available: 20%}\n",
				"7/root/d/10.conf": "evictionHard: {nodefs.available: 25%}\nmergeDefaultEvictionSettings: true\n",
			},
			disk.Reserve{Percent: 25}, disk.Reserve{Percent: 5}, "evictionHard",
		},
		{"evicts for memory alone", "", files{"7/cmdline": kubelet("--eviction-hard=memory.available<1Gi")}, disk.Reserve{Percent: 15}, disk.Reserve{Percent: 5}, "evicts for no full disk"},
		{"a file that cannot be read", "", files{"7/cmdline": kubelet("--config=/missing")}, disk.Reserve{Percent: 15}, disk.Reserve{Percent: 5}, "configuration cannot be read"},
		{
			"evicts softly before", "",
			files{
				"7/cmdline":       kubelet("--config=/k.yaml"),
				"7/root/k.yaml":   "evictionHard: {nodefs.available: 5%}\nevictionSoft: {nodefs.available: 12%, nodefs.inodesFree: 8%}\n",
				"7/root/other.yy": "x",
			},
			disk.Reserve{Percent: 12}, disk.Reserve{Percent: 8}, "evictionSoft and evictionHard",
		},
		{
			"a soft threshold that is later", "", files{"7/cmdline": kubelet("--eviction-hard=nodefs.available<5%", "--eviction-soft=nodefs.available<4%")},
			disk.Reserve{Percent: 5}, disk.Reserve{Percent: 5}, "(evictionHard",
		},
		{
			"one of several", "",
			files{
				"7/cmdline": kubelet("--hostname-override=node-1", "--eviction-hard=nodefs.available<1%"),
				"8/cmdline": kubelet("--hostname-override=node-2", "--eviction-hard=nodefs.available<2%"),
			},
			disk.Reserve{Percent: 2}, disk.Reserve{Percent: 5}, "evictionHard",
		},
		{
			"nobody can tell what is on which file system", "",
			files{"7/cmdline": kubelet("--hostname-override=node-2", "--eviction-hard=nodefs.available<1%,imagefs.available<3%")},
			disk.Reserve{Percent: 3}, disk.Reserve{Percent: 5}, "the same on every file system, as cannot tell the file system of /var/lib/kubelet",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := &v1alpha1.Config{Node: "node-2", HostRoot: t.TempDir()}
			cfg.Disk.Reserve = c.setting
			if c.setting == "" {
				cfg.Disk.Reserve = v1alpha1.ReserveOfKubelet
			}
			for name, text := range c.files {
				path := filepath.Join(cfg.HostRoot, "proc", name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got := chooseReserves(cfg, func() string { return containerdRoot })
			if got.bytes != c.bytes || got.inodes != c.inodes || !strings.Contains(got.text(), c.source) {
				t.Errorf("%+v, want %+v, %+v of %s", got, c.bytes, c.inodes, c.source)
			}
		})
	}
}

// TestReservesOfTwoFilesystems: layers on a file system of their own are kept
// at imagefs' thresholds, the kubelet's folder at nodefs'.
func TestReservesOfTwoFilesystems(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	cfg := &v1alpha1.Config{Node: "node-1", HostRoot: t.TempDir()}
	cfg.Disk.Reserve = v1alpha1.ReserveOfKubelet
	for _, dir := range []string{"proc/7", "kubelet", "data/layers", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(cfg.HostRoot, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/data/layers", filepath.Join(cfg.HostRoot, "var/lib/containerd")); err != nil {
		t.Fatal(err)
	}
	line := "kubelet\x00--root-dir=/kubelet\x00--eviction-hard=nodefs.available<10%,imagefs.available<20%,imagefs.inodesFree<8%\x00"
	if err := os.WriteFile(filepath.Join(cfg.HostRoot, "proc/7/cmdline"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	choose := func() reserves { return chooseReserves(cfg, func() string { return "/var/lib/containerd" }) }
	both := disk.Reserves{Bytes: disk.Reserve{Percent: 20}, Inodes: disk.Reserve{Percent: 8}}
	if got := choose(); got.bytes != both.Bytes || got.inodes != both.Inodes || got.own != nil {
		t.Errorf("one file system: %+v, want %+v for all", got, both)
	}
	for _, dir := range []string{"", "data/layers"} { // the host's root, and the layers
		if err := unix.Mount("none", filepath.Join(cfg.HostRoot, dir), "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(filepath.Join(cfg.HostRoot, dir), unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		for _, sub := range []string{"proc/7", "kubelet", "data/layers", "var/lib"} {
			if err := os.MkdirAll(filepath.Join(cfg.HostRoot, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	err := errors.Join(os.Symlink("/data/layers", filepath.Join(cfg.HostRoot, "var/lib/containerd")),
		os.WriteFile(filepath.Join(cfg.HostRoot, "proc/7/cmdline"), []byte(line), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	got := choose()
	want := map[string]disk.Reserves{
		"/":            {Bytes: disk.Reserve{Percent: 10}, Inodes: disk.Reserve{Percent: 8}}, // no threshold of its own
		"/data/layers": both,
	}
	if !maps.Equal(got.own, want) || got.bytes != both.Bytes {
		t.Errorf("two file systems: %+v, want %+v", got, want)
	}
	if text := got.text(); text != "20%, on / 10%, on /data/layers 20% (evictionHard of this node's kubelet)" {
		t.Errorf("told as %q", text)
	}

	line = "kubelet\x00--root-dir=/kubelet\x00--eviction-hard=nodefs.inodesFree<3%,imagefs.inodesFree<8%\x00"
	if err := os.WriteFile(filepath.Join(cfg.HostRoot, "proc/7/cmdline"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Disk.Reserve = "20Gi"
	got = choose()
	set := disk.Reserve{Amount: 20 << 30}
	want = map[string]disk.Reserves{
		"/":            {Bytes: set, Inodes: disk.Reserve{Percent: 3}},
		"/data/layers": {Bytes: set, Inodes: disk.Reserve{Percent: 8}},
	}
	if !maps.Equal(got.own, want) || got.bytes != set || !strings.HasPrefix(got.text(), "20.0 GiB (disk.reserve") {
		t.Errorf("with a setting for bytes: %+v, want %+v, told as %q", got, want, got.text())
	}
}
