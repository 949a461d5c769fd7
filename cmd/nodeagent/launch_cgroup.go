package main

import (
	"os"
	"path"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/cgroup"
)

// launchCgroup is below which cgroup tasks get theirs: what the configuration
// says; inside of a pod beside the kubelet's own, which is not everywhere the
// root (cgroupRoot in its configuration). Empty: the launcher chooses.
func launchCgroup(cfg *v1alpha1.Config) (string, error) {
	if cfg.Launch.Cgroup != "" || cfg.HostRoot == "/" {
		return cfg.Launch.Cgroup, nil
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	return besidePods(string(own)), nil
}

// besidePods reads proc_pid_cgroup(5) of a pod's process. In a cgroup namespace
// of its own nothing of the kubelet's root is seen: then it is taken to be the
// node's, and the answer is empty.
func besidePods(text string) string {
	for line := range strings.Lines(text) {
		_, at, _ := strings.Cut(strings.TrimSpace(line), ":/")
		root, _, ok := strings.Cut("/"+at, "/kubepods")
		if ok && root != "" {
			return path.Join(strings.TrimPrefix(root, "/"), cgroup.Parent)
		}
	}
	return ""
}
