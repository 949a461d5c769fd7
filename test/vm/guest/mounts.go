package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

type mount struct {
	fs, dir, options string
	flags            uintptr
}

// systemMounts is what a systemd machine has, in order.
func systemMounts() []mount {
	const plain = unix.MS_NOSUID | unix.MS_NODEV
	return []mount{
		{"proc", "/proc", "", plain | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", plain | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID},
		{"devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/dev/shm", "mode=1777", plain},
		{"tmpfs", "/run", "mode=0755", plain},
		{"tmpfs", "/tmp", "mode=1777", plain},
		{"cgroup2", cgroupRoot, "nsdelegate,memory_recursiveprot", plain | unix.MS_NOEXEC},
		{"bpf", "/sys/fs/bpf", "mode=0700", plain | unix.MS_NOEXEC},
	}
}

// mountSystem makes the initramfs look like a machine that was booted from a
// disk.
func mountSystem() error {
	if err := rootFromRamfs(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("vm")); err != nil {
		return fmt.Errorf("cannot name the machine: %w", err)
	}
	for _, m := range systemMounts() {
		if err := m.do(m.fs); err != nil {
			return err
		}
	}
	return os.Symlink("/proc/self/fd", "/dev/fd")
}

// rootFromRamfs makes a bind mount of the root the root: pivot_root(2) refuses
// while that is the initial ramfs itself.
func rootFromRamfs() error {
	const root = "/.root"
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", root, err)
	}
	for _, step := range []struct {
		what string
		err  func() error
	}{
		{"bind the root", func() error { return unix.Mount("/", root, "", unix.MS_BIND, "") }},
		{"enter it", func() error { return unix.Chdir(root) }},
		{"move it", func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") }},
		{"change the root", func() error { return unix.Chroot(".") }},
		{"make mounts shared", func() error { return unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, "") }},
		{"close the root to others", func() error { return unix.Chmod("/", 0o755) }},
	} {
		if err := step.err(); err != nil {
			return fmt.Errorf("cannot %s: %w", step.what, err)
		}
	}
	return nil
}

// mountBesideSystemd is what systemd's own first mounts leave out.
func mountBesideSystemd() error {
	return mount{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV}.do("tmpfs")
}

func (m mount) do(source string) error {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", m.dir, err)
	}
	if err := unix.Mount(source, m.dir, m.fs, m.flags, m.options); err != nil {
		return fmt.Errorf("cannot mount %s at %s (%s): %w", m.fs, m.dir, m.options, err)
	}
	return nil
}

func mountDisks(disks []Disk) error {
	for _, d := range disks {
		if d.Serial == "" {
			if err := (mount{fs: d.FS, dir: d.Dir}).do(d.FS); err != nil {
				return err
			}
			continue
		}
		device, err := findDisk(d.Serial)
		if err != nil {
			return err
		}
		if err := (mount{fs: d.FS, dir: d.Dir, options: d.Options}).do(device); err != nil {
			return err
		}
	}
	return nil
}

func findDisk(serial string) (string, error) {
	file, err := await("disk "+serial, "/sys/block/*/serial", serial)
	if err != nil {
		return "", err
	}
	return "/dev/" + filepath.Base(filepath.Dir(file)), nil
}

// openPort opens the port for messages.
func openPort() (*os.File, error) {
	file, err := await("port "+Port, "/sys/class/virtio-ports/*/name", Port)
	if err != nil {
		return nil, err
	}
	port, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the port for messages: %w", err)
	}
	return port, nil
}

// await waits for the file that matches pattern and holds text. A driver finds
// its devices some time after its module was loaded.
func await(what, pattern, text string) (string, error) {
	const patience = time.Minute
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("cannot look for %s: %w", what, err)
		}
		for _, f := range files {
			if data, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(data)) == text {
				return f, nil
			}
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("cannot find the %s among %v in %s", what, files, patience)
		}
	}
}

// openCgroups gives every controller to the children of the root.
func openCgroups() error {
	data, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cannot read the cgroup controllers: %w", err)
	}
	var all []string
	for _, c := range strings.Fields(string(data)) {
		all = append(all, "+"+c)
	}
	err = os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte(strings.Join(all, " ")), 0)
	if err != nil {
		return fmt.Errorf("cannot enable the cgroup controllers %v: %w", all, err)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot make a socket: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("cannot name the loopback: %w", err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("cannot bring the loopback up: %w", err)
	}
	return nil
}
