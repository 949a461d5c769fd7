package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/disk"
	"github.com/nodeagent/nodeagent/pkg/runtime"
)

func checkContainerd(ctx context.Context, cfg *v1alpha1.Config, _ runOptions) []finding {
	const subject = "containerd"
	if err := checkSocket(cfg.Containerd.Socket); err != nil {
		return []finding{{levelFailed, subject, err.Error()}}
	}
	d, err := runtime.Check(ctx, runtime.Config{Socket: cfg.Containerd.Socket, Namespaces: cfg.Containerd.Namespaces})
	if err != nil {
		return []finding{{levelFailed, subject, err.Error()}}
	}
	text := fmt.Sprintf("%s at %s: %d containers in %s", d.Version, cfg.Containerd.Socket, d.Containers, strings.Join(cfg.Containerd.Namespaces, ", "))
	found := []finding{{levelOK, subject, text}}
	for _, s := range d.Snapshotters {
		if s == "overlayfs" || s == "fuse-overlayfs" {
			found = append(found, finding{levelOK, "snapshotter", s + ": layers are plain folders"})
			continue
		}
		found = append(found, finding{levelOK, "snapshotter", s + ": layers are no plain folders, measured by what the snapshotter tells: no files are named"})
	}
	return found
}

// checkLayers tells whether the agent may look into containers' layers: their
// folders belong to any user.
func checkLayers(_ context.Context, cfg *v1alpha1.Config, _ runOptions) []finding {
	const subject = "layers"
	if err := disk.CheckHostRoot(cfg.HostRoot); err != nil {
		return []finding{{levelFailed, subject, err.Error()}}
	}
	layers := layersFolder(cfg)
	root := filepath.Join(cfg.HostRoot, layers)
	if _, err := os.ReadDir(root); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return []finding{{levelLacking, subject, root + " is not there: containerd keeps its layers elsewhere, or hostRoot is wrong"}}
		}
		return []finding{{levelFailed, subject, fmt.Sprintf("cannot look into %s: %v: run as root with CAP_DAC_READ_SEARCH", root, err)}}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return []finding{{levelFailed, subject, fmt.Sprintf("cannot ask how full the file system of %s is: %v", root, err)}}
	}
	free := 100 * float64(st.Bavail) / max(1, float64(st.Blocks))
	return []finding{{levelOK, subject, fmt.Sprintf("%s can be read; its file system has %.0f%% of %s free, reserve %s",
		root, free, bytesText(int64(st.Blocks)*st.Bsize), chooseReserves(cfg, func() string { return layers }).text())}}
}

// checkOpenFiles tells whether deleted files that are open can be found: it
// tries at one descriptor of each process. Some may be closed even to root.
func checkOpenFiles(_ context.Context, cfg *v1alpha1.Config, _ runOptions) []finding {
	const subject = "open files"
	proc := filepath.Join(cfg.HostRoot, "proc")
	all, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd"))
	if err != nil || len(all) == 0 {
		return []finding{{levelLacking, subject, proc + " tells of no process: deleted files that still fill the disk are not counted"}}
	}
	open, closed := 0, 0
	for _, fd := range all {
		switch _, err := os.Readlink(filepath.Join(fd, "0")); {
		case err == nil:
			open++
		case errors.Is(err, fs.ErrPermission):
			closed++
		}
	}
	if closed > open {
		return []finding{{levelLacking, subject, fmt.Sprintf("%d of %d processes cannot be looked at: deleted files that still fill the disk are not all counted; run as root with CAP_SYS_PTRACE", closed, open+closed)}}
	}
	return []finding{{levelOK, subject, fmt.Sprintf("of %d processes can be looked at, of %d not", open, closed)}}
}

// checkCgroups tells what is mounted. Watching needs none; launching does.
func checkCgroups(_ context.Context, cfg *v1alpha1.Config, _ runOptions) []finding {
	const subject = "cgroups"
	at := filepath.Join(cfg.HostRoot, "/sys/fs/cgroup")
	v2 := isCgroup2(at)
	hybrid := isCgroup2(filepath.Join(at, "unified"))
	switch {
	case v2:
		return []finding{{levelOK, subject, "version 2 at " + at}}
	case hybrid:
		return []finding{{levelOK, subject, "version 1 at " + at + ", with a version 2 tree beside it (hybrid)"}}
	}
	if _, err := os.Stat(filepath.Join(at, "memory")); err == nil {
		return []finding{{levelOK, subject, "version 1 at " + at}}
	}
	return []finding{{levelLacking, subject, "none found at " + at}}
}

func isCgroup2(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// checkKernel tells what of the kernel could be used.
func checkKernel(_ context.Context, cfg *v1alpha1.Config, _ runOptions) []finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return []finding{{levelLacking, "kernel", err.Error()}}
	}
	found := append([]finding{{levelInfo, "kernel", unix.ByteSliceToString(u.Release[:])}}, checkMeter(cfg)...)
	return append(found, checkLandlock())
}

func checkLandlock() finding {
	const versionFlag = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, versionFlag)
	if errno != 0 {
		return finding{levelInfo, "landlock", fmt.Sprintf("not there (%v)", errno)}
	}
	return finding{levelInfo, "landlock", fmt.Sprintf("ABI %d", abi)}
}

func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, exp := float64(n), 0
	for f >= unit && exp < 6 {
		f /= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTPE"[exp-1])
}
