package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/binary"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/parts"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/sandbox"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/store"
)

// tools are what fetches, what starts, and the keeper's program in memory, which
// has to be there as long as something is started.
type tools struct {
	fetcher  *parts.Fetcher
	launcher *parts.Launcher
	keeper   *binary.File
}

// launchTools makes what fetches and what starts. self is where this program
// is: /proc/self/exe cannot be bound into another mount namespace.
func launchTools(cfg *v1alpha1.Config, self string, log *slog.Logger) (tools, error) {
	beside := filepath.Dir(cfg.Launch.Folder)
	size, err := resource.ParseQuantity(cfg.Launch.StoreBytes)
	if err != nil {
		return tools{}, err
	}
	kept, err := store.Open(store.Options{Dir: filepath.Join(cfg.Launch.Root, "store"), MaxBytes: size.Value(), Logger: log})
	if err != nil {
		return tools{}, fmt.Errorf("cannot open the store of fetched programs: %w", err)
	}
	fetcher, err := fetch.New(fetch.Options{
		Store: kept, Executable: self, KeysDir: ifThere(filepath.Join(beside, "keys")), HeadersDir: ifThere(filepath.Join(beside, "headers")),
		CAFile: ifThere(filepath.Join(beside, "ca.pem")), ToPrivate: cfg.Launch.AllowPrivateRedirects, Logger: log,
	})
	if err != nil {
		return tools{}, err
	}
	keeper, err := binary.Open()
	if err != nil {
		return tools{}, err
	}
	parent, err := launchCgroup(cfg)
	if err != nil {
		return tools{}, fmt.Errorf("cannot tell where the tasks' cgroups belong: %w", err)
	}
	launcher, err := sandbox.New(sandbox.Options{
		State: filepath.Join(cfg.Launch.State, "tasks"), Keeper: keeper.Path(), HostRoot: cfg.HostRoot, CgroupParent: parent,
		Namespaces: hostNamespaces(cfg), AllowPrivileged: cfg.Launch.AllowPrivileged, Log: log,
	})
	if err != nil {
		return tools{}, fmt.Errorf("cannot launch on this node: %w", err)
	}
	return tools{
		fetcher: &parts.Fetcher{Fetch: fetcher, Store: kept}, keeper: keeper,
		launcher: &parts.Launcher{Sandbox: launcher, Folder: filepath.Join(cfg.Launch.Root, "sandboxes"), HostRoot: cfg.HostRoot},
	}, nil
}

// close gives back what this process alone has. What was launched runs on.
func (t tools) close() error {
	return errors.Join(t.launcher.Sandbox.Close(), t.fetcher.Store.Close(), t.keeper.Close())
}

// hostNamespaces are empty on the host itself.
func hostNamespaces(cfg *v1alpha1.Config) sandbox.Namespaces {
	if cfg.HostRoot == "/" {
		return sandbox.Namespaces{}
	}
	of := func(kind string) string { return filepath.Join(cfg.HostRoot, "proc/1/ns", kind) }
	return sandbox.Namespaces{Mount: of("mnt"), Network: of("net"), IPC: of("ipc"), UTS: of("uts"), Cgroup: of("cgroup")}
}

func ifThere(path string) string {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}
