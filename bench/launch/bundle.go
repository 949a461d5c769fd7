package main

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// bundleConfig is an OCI runtime's bundle as its own `spec` command writes it,
// with our task's limits and command. Like a pod's it has no seccomp filter of
// its own, which would only cost it more.
func bundleConfig(root string) []byte {
	memory, quota, pids := int64(64<<20), int64(100_000), int64(32)
	period := uint64(100_000)
	mount := func(to, kind, from string, options ...string) specs.Mount {
		return specs.Mount{Destination: to, Type: kind, Source: from, Options: options}
	}
	raw, err := json.Marshal(specs.Spec{
		Version:  "1.0.2",
		Process:  &specs.Process{Args: []string{"sh", "-c", "echo x"}, Env: []string{"PATH=/bin"}, Cwd: "/", NoNewPrivileges: true, User: specs.User{UID: 1000, GID: 1000}},
		Root:     &specs.Root{Path: root, Readonly: true},
		Hostname: "bench",
		Mounts: []specs.Mount{
			mount("/proc", "proc", "proc"), mount("/dev", "tmpfs", "tmpfs", "nosuid", "mode=755", "size=65536k"),
			mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev"), mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev"),
		},
		Linux: &specs.Linux{
			Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}, CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}, Pids: &specs.LinuxPids{Limit: &pids}},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
			},
		},
	})
	if err != nil {
		panic(err) // plain data
	}
	return raw
}
