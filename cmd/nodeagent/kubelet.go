package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// kubeletRoot is the kubelet's folder unless it is told otherwise (--root-dir).
const kubeletRoot = "/var/lib/kubelet"

// reserves is what has to stay free on a file system, and where that is said.
type reserves struct {
	bytes, inodes disk.Reserve
	own           map[string]disk.Reserves // of the file systems that have others, by mount point
	source        string
}

// chooseReserves takes what this node's kubelet evicts at, and for bytes the
// setting where there is one. It is read once: the kubelet too reads it only when
// it starts. layers tells in which folder containerd keeps its layers.
//
// Most nodes have one file system for the kubelet's folder (nodefs) and the
// layers (imagefs), and the kubelet evicts at the first threshold that is
// reached. Where they are two, each has its own; any other keeps what the more
// careful of both wants.
func chooseReserves(cfg *v1alpha1.Config, layers func() string) reserves {
	defaults := disk.DefaultPolicy()
	out := reserves{bytes: defaults.Reserve, inodes: defaults.InodeReserve}
	set := cfg.Disk.Reserve != v1alpha1.ReserveOfKubelet
	from := ""
	if set {
		out.bytes, from = parseReserve(cfg.Disk.Reserve), "disk.reserve in the configuration; for inodes "
	}
	k, err := kubeletEviction(filepath.Join(cfg.HostRoot, "proc"), cfg.Node)
	if err != nil {
		out.source = fmt.Sprintf("%sthe kubelet's default, as %v", from, err)
		return out
	}
	nodefs, imagefs := k.reserves("nodefs"), k.reserves("imagefs")
	if set {
		nodefs.Bytes, imagefs.Bytes = out.bytes, out.bytes
	}
	both := disk.Reserves{Bytes: larger(nodefs.Bytes, imagefs.Bytes), Inodes: larger(nodefs.Inodes, imagefs.Inodes)}
	if !set && both.Bytes == (disk.Reserve{}) {
		out.source = "the kubelet's default, as this kubelet evicts for no full disk"
		return out
	}
	out.bytes, out.inodes, out.source = both.Bytes, cmp.Or(both.Inodes, out.inodes), from+k.source()
	if nodefs != imagefs {
		if out.own, err = ownReserves(cfg.HostRoot, k.root, layers(), out.or(nodefs), out.or(imagefs)); err != nil {
			out.source += fmt.Sprintf("; the same on every file system, as %v", err)
		}
	}
	return out
}

// or gives what a file system's own reserves lack.
func (r reserves) or(own disk.Reserves) disk.Reserves {
	return disk.Reserves{Bytes: cmp.Or(own.Bytes, r.bytes), Inodes: cmp.Or(own.Inodes, r.inodes)}
}

// ownReserves are those of nodefs and imagefs by their mount points; none where
// they are one file system.
func ownReserves(hostRoot, kubelet, layers string, nodefs, imagefs disk.Reserves) (map[string]disk.Reserves, error) {
	a, err := disk.MountPoints(hostRoot, "/proc", kubelet)
	if err != nil {
		return nil, err
	}
	b, err := disk.MountPoints(hostRoot, "/proc", layers)
	if err != nil || slices.Contains(a, b[0]) {
		return nil, err
	}
	own := make(map[string]disk.Reserves, len(a)+len(b))
	for _, mount := range a {
		own[mount] = nodefs
	}
	for _, mount := range b {
		own[mount] = imagefs
	}
	return own, nil
}

// layersFolder asks containerd where it keeps its layers.
func layersFolder(cfg *v1alpha1.Config) string {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	roots, err := runtime.Roots(ctx, runtime.Config{Socket: cfg.Containerd.Socket, Namespaces: cfg.Containerd.Namespaces})
	if err != nil {
		return containerdRoot
	}
	return layersIn(roots)
}

// layersIn chooses among what containerd told: most nodes have their layers in
// overlayfs.
func layersIn(roots map[string]string) string {
	for _, name := range append([]string{"overlayfs"}, slices.Sorted(maps.Keys(roots))...) {
		if roots[name] != "" {
			return roots[name]
		}
	}
	return containerdRoot
}

// text tells the reserve as a person would write it.
func (r reserves) text() string {
	var s strings.Builder
	s.WriteString(reserveText(r.bytes))
	mounts := slices.Sorted(maps.Keys(r.own))
	if slices.ContainsFunc(mounts, func(mount string) bool { return r.own[mount].Bytes != r.bytes }) {
		for _, mount := range mounts {
			fmt.Fprintf(&s, ", on %s %s", mount, reserveText(r.own[mount].Bytes))
		}
	}
	return fmt.Sprintf("%s (%s)", s.String(), r.source)
}

func reserveText(r disk.Reserve) string {
	if r.Amount > 0 {
		return bytesText(r.Amount)
	}
	return fmt.Sprintf("%g%%", r.Percent)
}

// larger joins the thresholds of two signals: the first that is reached counts.
func larger(x, y disk.Reserve) disk.Reserve {
	return disk.Reserve{Percent: max(x.Percent, y.Percent), Amount: max(x.Amount, y.Amount)}
}

// parseReserve reads a threshold; what is none, or switched off by 0% or 100%,
// is zero.
func parseReserve(s string) disk.Reserve {
	percent, amount, err := v1alpha1.ParseReserve(s)
	if err != nil {
		return disk.Reserve{}
	}
	return disk.Reserve{Percent: percent, Amount: amount}
}

// evictionDefaults are k8s.io/kubernetes, pkg/kubelet/apis/config/v1beta1,
// DefaultEvictionHard, as far as disks go.
func evictionDefaults() map[string]string {
	return map[string]string{
		"nodefs.available": "10%", "nodefs.inodesFree": "5%", "imagefs.available": "15%", "imagefs.inodesFree": "5%",
	}
}

// eviction is at what a kubelet evicts, by signal, and which folder is its own.
type eviction struct {
	hard, soft map[string]string
	root       string
}

// reserves are those of nodefs or imagefs. The soft threshold counts where it is
// the earlier: from then on the kubelet reports DiskPressure and takes no pods,
// and after its grace period it evicts (k8s.io/kubernetes,
// pkg/kubelet/eviction/eviction_manager.go, synchronize).
func (e eviction) reserves(of string) disk.Reserves {
	at := func(signal string) disk.Reserve {
		return larger(parseReserve(e.hard[signal]), parseReserve(e.soft[signal]))
	}
	return disk.Reserves{Bytes: at(of + ".available"), Inodes: at(of + ".inodesFree")}
}

// source names the settings that count.
func (e eviction) source() string {
	hard := eviction{hard: e.hard}
	if hard.reserves("nodefs") != e.reserves("nodefs") || hard.reserves("imagefs") != e.reserves("imagefs") {
		return "evictionSoft and evictionHard of this node's kubelet"
	}
	return "evictionHard of this node's kubelet"
}

// kubeletEviction finds the kubelet of a node among the processes and reads at
// what it evicts: from its flags, or its configuration file and drop-ins, as the
// process itself sees them.
func kubeletEviction(proc, node string) (eviction, error) {
	process, flags, err := findKubelet(proc, node)
	if err != nil {
		return eviction{}, err
	}
	out := eviction{root: cmp.Or(flags["root-dir"], kubeletRoot)}
	hard, isHard := flags["eviction-hard"]
	soft, isSoft := flags["eviction-soft"]
	if !isHard || !isSoft {
		if err := out.read(configFiles(process, flags)); err != nil && !isHard {
			return eviction{}, err
		}
	}
	if isHard {
		out.hard = parseEvictionFlag(hard)
	}
	if isSoft {
		out.soft = parseEvictionFlag(soft)
	}
	return out, nil
}

func configFiles(process string, flags map[string]string) []string {
	var files []string
	if file := flags["config"]; file != "" {
		files = append(files, filepath.Join(process, "root", file))
	}
	if dir := flags["config-dir"]; dir != "" {
		drops, _ := filepath.Glob(filepath.Join(process, "root", dir, "*.conf")) // sorted
		files = append(files, drops...)
	}
	return files
}

// read takes the thresholds of configuration files, the later over the earlier.
func (e *eviction) read(files []string) error {
	var config struct {
		EvictionHard                 map[string]string `json:"evictionHard"`
		EvictionSoft                 map[string]string `json:"evictionSoft"`
		MergeDefaultEvictionSettings bool              `json:"mergeDefaultEvictionSettings"`
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("the kubelet's configuration cannot be read: %w", err)
		}
		if err := yaml.Unmarshal(data, &config); err != nil {
			return fmt.Errorf("the kubelet's configuration %s cannot be read: %w", file, err)
		}
	}
	e.soft, e.hard = config.EvictionSoft, config.EvictionHard
	if config.EvictionHard == nil || config.MergeDefaultEvictionSettings {
		e.hard = evictionDefaults()
		maps.Copy(e.hard, config.EvictionHard)
	}
	return nil
}

func parseEvictionFlag(s string) map[string]string {
	out := make(map[string]string)
	for part := range strings.SplitSeq(s, ",") {
		if signal, value, ok := strings.Cut(part, "<"); ok {
			out[strings.TrimSpace(signal)] = strings.TrimSpace(value)
		}
	}
	return out
}

var errNoKubelet = errors.New("no process called kubelet is seen")

// findKubelet returns the kubelet's folder in proc, and its flags. Of several,
// as on a machine of test nodes, it is the one with the node's name.
func findKubelet(proc, node string) (process string, flags map[string]string, err error) {
	lines, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "cmdline"))
	if err != nil {
		return "", nil, err
	}
	found := make(map[string]map[string]string)
	for _, line := range lines {
		data, err := os.ReadFile(line)
		if err != nil {
			continue // it ended
		}
		args := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
		if filepath.Base(args[0]) == "kubelet" {
			found[filepath.Dir(line)] = parseFlags(args[1:])
		}
	}
	if len(found) > 1 {
		maps.DeleteFunc(found, func(_ string, flags map[string]string) bool { return flags["hostname-override"] != node })
	}
	switch all := slices.Sorted(maps.Keys(found)); len(all) {
	case 0:
		return "", nil, errNoKubelet
	case 1:
		return all[0], found[all[0]], nil
	default:
		return "", nil, fmt.Errorf("%d kubelets are called %s", len(all), node)
	}
}

// parseFlags reads --name=value and --name value; a flag without a value is
// harmless here.
func parseFlags(args []string) map[string]string {
	out := make(map[string]string)
	for i, arg := range args {
		name, value, has := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") {
			continue
		}
		if !has && i+1 < len(args) {
			value = args[i+1]
		}
		out[name] = value
	}
	return out
}
