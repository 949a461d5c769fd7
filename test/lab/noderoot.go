package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// A node's root file system is its own disk, as on a real machine: /etc, /var
// and /opt are the node's. The programs and everybody's files come from the
// machine: each other folder of its root is bound, /usr and its like
// read-only, so that the node runs the same Debian and tests find what they
// built.

// nodeOwned are the folders of the root that are never the machine's.
func nodeOwned() []string {
	return []string{"proc", "sys", "dev", "run", "var", "etc", "opt", "lost+found", "boot"}
}

func machineReadOnly(name string) bool {
	return slices.Contains([]string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}, name)
}

// enterRoot mounts the node's disk, builds its root there and makes it this
// process's root. The machine sees none of these mounts.
func enterRoot(s nodeSpec) error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	dev, err := attachLoop(s.Disk)
	if err != nil {
		return err
	}
	defer dev.Close()
	// discard gives freed blocks back to the machine; without barriers fsync
	// ends in the machine's page cache, which a pulled plug does not lose.
	if err := mount(dev.Name(), s.Root, "ext4", 0, "discard,nobarrier,noinit_itable"); err != nil {
		return err
	}
	for _, step := range []func(nodeSpec) error{bindMachine, makeEtc, makeFolders, mountKernel, bindPrograms} {
		if err := step(s); err != nil {
			return err
		}
	}
	return pivot(s.Root)
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("cannot mount %q on %s: %w", source, target, err)
	}
	return nil
}

func bindMachine(s nodeSpec) error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("cannot list the machine's root: %w", err)
	}
	for _, e := range entries {
		if slices.Contains(nodeOwned(), e.Name()) {
			continue
		}
		from, to := "/"+e.Name(), filepath.Join(s.Root, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			err = copyLink(from, to)
		case e.IsDir():
			err = bind(from, to, machineReadOnly(e.Name()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return fmt.Errorf("cannot read the link %s: %w", from, err)
	}
	if err := os.Symlink(target, to); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot copy the link %s: %w", from, err)
	}
	return nil
}

// bind binds from, with what is mounted in it, on to.
func bind(from, to string, readOnly bool) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", to, err)
	}
	if err := mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !readOnly {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("cannot make %s read-only: %w", to, err)
	}
	return nil
}

// makeEtc gives the node its /etc: at its first start a copy of the machine's
// without what belongs to a Kubernetes node, and at each start its own files.
func makeEtc(s nodeSpec) error {
	etc := filepath.Join(s.Root, "etc")
	if _, err := os.Stat(etc); errors.Is(err, fs.ErrNotExist) {
		temp := etc + ".new"
		if err := os.RemoveAll(temp); err != nil {
			return fmt.Errorf("cannot make the node's /etc: %w", err)
		}
		// A file that vanishes meanwhile makes cp fail and does no harm.
		if out, err := exec.Command("cp", "-a", "/etc", temp).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "copying /etc: %v: %s\n", err, out)
		}
		for _, name := range []string{"cni", "containerd", "kubernetes", "nodeagent", "resolv.conf"} {
			if err := os.RemoveAll(filepath.Join(temp, name)); err != nil {
				return fmt.Errorf("cannot make the node's /etc: %w", err)
			}
		}
		if err := os.Rename(temp, etc); err != nil {
			return fmt.Errorf("cannot make the node's /etc: %w", err)
		}
	}
	for name, text := range s.Files {
		if err := writeInto(s.Root, name, text); err != nil {
			return err
		}
	}
	for _, name := range []string{"/etc/hosts", "/etc/hostname", "/etc/machine-id"} {
		if err := os.Chmod(filepath.Join(s.Root, name), 0o644); err != nil {
			return fmt.Errorf("cannot make %s readable: %w", name, err)
		}
	}
	return nil
}

func makeFolders(s nodeSpec) error {
	for _, name := range []string{
		"proc", "sys", "dev", "run", "opt", "etc/nodeagent", "etc/kubernetes/manifests",
		"var/lib/containerd", "var/lib/kubelet", "var/lib/cni", "var/lib/nodeagent",
		"var/log/pods", "var/log/containers", "var/cache", "var/tmp",
	} {
		if err := os.MkdirAll(filepath.Join(s.Root, name), 0o755); err != nil {
			return fmt.Errorf("cannot make the node's folders: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(s.Root, "var/tmp"), 0o777|fs.ModeSticky); err != nil {
		return fmt.Errorf("cannot open /var/tmp to all: %w", err)
	}
	if err := os.Symlink("../run", filepath.Join(s.Root, "var/run")); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot link /var/run: %w", err)
	}
	return nil
}

// mountKernel mounts the kernel's file systems: proc of the node's processes,
// sysfs of its network, the machine's devices and cgroups.
func mountKernel(s nodeSpec) error {
	at := func(name string) string { return filepath.Join(s.Root, name) }
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := mount("proc", at("proc"), "proc", safe, ""); err != nil {
		return err
	}
	if err := mount("sysfs", at("sys"), "sysfs", safe, ""); err != nil {
		return err
	}
	if err := mount("/sys/fs/cgroup", at("sys/fs/cgroup"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := mount("/dev", at("dev"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := mount("shm", at("dev/shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=256m"); err != nil {
		return err
	}
	if err := mount("run", at("run"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if err := os.Mkdir(at("run/lock"), 0o777|fs.ModeSticky); err != nil {
		return fmt.Errorf("cannot make /run/lock: %w", err)
	}
	return keepKernelSettings(s)
}

// keepKernelSettings shows the node the kernel settings that its kubelet wants
// to make, so that it makes none: they are the machine's, and down could not
// know what they were. A new boot id each time makes a start of the node a
// reboot.
func keepKernelSettings(s nodeSpec) error {
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return fmt.Errorf("cannot make a boot id: %w", err)
	}
	dir := filepath.Join(s.Root, "run/lab-kernel")
	for name, value := range map[string]string{
		"sys/vm/overcommit_memory":      "1\n",
		"sys/vm/panic_on_oom":           "0\n",
		"sys/kernel/panic":              "10\n",
		"sys/kernel/panic_on_oops":      "1\n",
		"sys/kernel/keys/root_maxkeys":  "1000000\n",
		"sys/kernel/keys/root_maxbytes": "25000000\n",
		"sys/kernel/random/boot_id":     string(id),
	} {
		over := filepath.Join(s.Root, "proc", name)
		if _, err := os.Stat(over); errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without it
		}
		if err := writeInto(dir, name, []byte(value)); err != nil {
			return err
		}
		if err := mount(filepath.Join(dir, name), over, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// bindPrograms puts the cache's programs and the log folder where the node
// looks for them.
func bindPrograms(s nodeSpec) error {
	for to, from := range s.Programs {
		if err := bind(from, filepath.Join(s.Root, to), true); err != nil {
			return err
		}
	}
	return bind(s.Logs, filepath.Join(s.Root, nodeLogFolder), false)
}

// nodeLogFolder is where a node sees the logs of its init's children.
const nodeLogFolder = "/var/log/lab"

// pivot makes root this process's root and lets go of the machine's. Mounts
// are shared from here on, as systemd has them: kubelet needs it for the
// volumes of pods.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("cannot enter the node's root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("cannot make %s the root: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot let go of the machine's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}
