package main

import (
	"cmp"
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
)

// reserves is what has to stay free on a file system, and where that is said.
type reserves struct {
	bytes, inodes disk.Reserve
	source        string
}

// chooseReserves takes the setting, or, without one, what this node's kubelet
// evicts at. It is read once: the kubelet too reads it only when it starts.
func chooseReserves(cfg *v1alpha1.Config) reserves {
	defaults := disk.DefaultPolicy()
	out := reserves{bytes: defaults.Reserve, inodes: defaults.InodeReserve, source: "disk.reserve in the configuration"}
	if cfg.Disk.Reserve != v1alpha1.ReserveOfKubelet {
		out.bytes = parseReserve(cfg.Disk.Reserve)
		return out
	}
	hard, err := kubeletEviction(filepath.Join(cfg.HostRoot, "proc"), cfg.Node)
	if err != nil {
		out.source = fmt.Sprintf("the kubelet's default, as %v", err)
		return out
	}
	bytes := larger(hard["nodefs.available"], hard["imagefs.available"])
	inodes := larger(hard["nodefs.inodesFree"], hard["imagefs.inodesFree"])
	if bytes == (disk.Reserve{}) {
		out.source = "the kubelet's default, as this kubelet evicts for no full disk"
		return out
	}
	out.bytes, out.inodes, out.source = bytes, cmp.Or(inodes, out.inodes), "evictionHard of this node's kubelet"
	return out
}

// text tells the reserve as a person would write it.
func (r reserves) text() string {
	if r.bytes.Amount > 0 {
		return fmt.Sprintf("%s (%s)", bytesText(r.bytes.Amount), r.source)
	}
	return fmt.Sprintf("%g%% (%s)", r.bytes.Percent, r.source)
}

// larger joins the thresholds of two signals: most nodes have one file system
// for both, and the kubelet evicts at the first that is reached.
func larger(a, b string) disk.Reserve {
	x, y := parseReserve(a), parseReserve(b)
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

// kubeletEviction finds the kubelet of a node among the processes and reads at
// what it evicts: from its flags, or its configuration file and drop-ins, as the
// process itself sees them.
func kubeletEviction(proc, node string) (map[string]string, error) {
	process, flags, err := findKubelet(proc, node)
	if err != nil {
		return nil, err
	}
	if hard, set := flags["eviction-hard"]; set {
		return parseEvictionFlag(hard), nil
	}
	var files []string
	if file := flags["config"]; file != "" {
		files = append(files, filepath.Join(process, "root", file))
	}
	if dir := flags["config-dir"]; dir != "" {
		drops, _ := filepath.Glob(filepath.Join(process, "root", dir, "*.conf")) // sorted
		files = append(files, drops...)
	}
	var config struct {
		EvictionHard                 map[string]string `json:"evictionHard"`
		MergeDefaultEvictionSettings bool              `json:"mergeDefaultEvictionSettings"`
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("the kubelet's configuration cannot be read: %w", err)
		}
		if err := yaml.Unmarshal(data, &config); err != nil {
			return nil, fmt.Errorf("the kubelet's configuration %s cannot be read: %w", file, err)
		}
	}
	if config.EvictionHard == nil {
		return evictionDefaults(), nil
	}
	if config.MergeDefaultEvictionSettings {
		all := evictionDefaults()
		maps.Copy(all, config.EvictionHard)
		return all, nil
	}
	return config.EvictionHard, nil
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
