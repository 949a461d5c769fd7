package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
			"one of several", "",
			files{
				"7/cmdline": kubelet("--hostname-override=node-1", "--eviction-hard=nodefs.available<1%"),
				"8/cmdline": kubelet("--hostname-override=node-2", "--eviction-hard=nodefs.available<2%"),
			},
			disk.Reserve{Percent: 2}, disk.Reserve{Percent: 5}, "evictionHard",
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
			got := chooseReserves(cfg)
			if got.bytes != c.bytes || got.inodes != c.inodes || !strings.Contains(got.text(), c.source) {
				t.Errorf("%+v, want %+v, %+v of %s", got, c.bytes, c.inodes, c.source)
			}
		})
	}
}
