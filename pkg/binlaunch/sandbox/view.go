package sandbox

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// places are where the parts of a task lie on the host.
type places struct {
	view    string // an empty folder to build its root on, in a mount namespace of its own
	sandbox string
	work    string // overlayfs' scratch, beside the sandbox
	program string // "": none
	etc     string // copies of the host's files that programs need
}

// viewFolder is beside the tasks' state folders: no id has such a character. Each
// task's root is built on it, where nobody else sees it.
const viewFolder = "@view"

// view gives the steps that make what a task sees, and the sandbox's path in it.
// An isolated one's stand on isolatedRoot, which is the prelude's.
func view(profile Profile, at places) (steps []plan.Step, sandbox string) {
	switch profile {
	case HostObserver:
		return observerView(at), "/tmp/sandbox"
	case Privileged:
		if at.program == "" {
			return nil, at.sandbox
		}
		return []plan.Step{sandboxStep(at, at.sandbox)}, at.sandbox
	default:
		return isolatedRest(at), "/sandbox"
	}
}

const (
	readOnly = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	inert    = unix.MS_NOSUID | unix.MS_NODEV
)

// isolatedRoot is a root of its own with the host's /usr in it: the same for all
// isolated tasks.
func isolatedRoot(at places, f facts) []plan.Step {
	b := builder{root: at.view}
	b.mount("tmpfs", "", "tmpfs", unix.MS_NOSUID, "size=4m,mode=755")
	for _, dir := range []string{"/proc", "/dev", "/dev/shm", "/tmp", "/run", "/var", "/sandbox"} {
		b.add(plan.Step{Op: plan.Folder, Target: dir, Mode: 0o755})
	}
	b.add(plan.Step{Op: plan.Link, Source: "/tmp", Target: "/var/tmp"})
	b.add(plan.Step{Op: plan.Folder, Target: "/etc", Mode: 0o755})
	b.add(plan.Step{Op: plan.Mount, Source: at.etc, Target: "/etc", Flags: unix.MS_BIND | readOnly})
	for _, h := range f.host {
		b.host(h)
	}
	// hidepid: what is not the task's own, that is the keeper, cannot be seen.
	b.mount("proc", "/proc", "proc", inert|unix.MS_NOEXEC, "hidepid=2")
	for _, d := range []struct {
		name  string
		major uint32
		minor uint32
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}} {
		b.add(plan.Step{Op: plan.Device, Target: "/dev/" + d.name, Mode: unix.S_IFCHR | 0o666, Dev: unix.Mkdev(d.major, d.minor)})
	}
	b.add(plan.Step{Op: plan.Link, Source: "/proc/self/fd", Target: "/dev/fd"})
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		b.add(plan.Step{Op: plan.Link, Source: "/proc/self/fd/" + string(rune('0'+i)), Target: "/dev/" + name})
	}
	// In memory, and counted as the task's: its memory limit bounds them too.
	b.mount("tmpfs", "/tmp", "tmpfs", inert, "size=64m,mode=1777")
	b.mount("tmpfs", "/dev/shm", "tmpfs", inert|unix.MS_NOEXEC, "size=64m,mode=1777")
	return b.steps
}

// isolatedRest puts the task's sandbox there, and shuts it in.
func isolatedRest(at places) []plan.Step {
	b := builder{root: at.view, steps: []plan.Step{sandboxStep(at, filepath.Join(at.view, "sandbox"))}}
	b.add(plan.Step{Op: plan.Mount, Target: "/", Flags: unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID})
	b.add(plan.Step{Op: plan.Pivot, Target: "/"})
	return b.steps
}

// observerView is the host's own root, read-only, with a /tmp of its own.
func observerView(at places) []plan.Step {
	sandbox := filepath.Join(at.view, "sandbox")
	writable := func(target string) plan.Step {
		return plan.Step{Op: plan.Mount, Target: target, Flags: unix.MS_REMOUNT | unix.MS_BIND | inert}
	}
	return []plan.Step{
		{Op: plan.Mount, Source: "tmpfs", Target: at.view, Type: "tmpfs", Flags: inert, Data: "size=64m,mode=1777"},
		{Op: plan.Folder, Target: sandbox, Mode: 0o755},
		// Before the seal: overlayfs wants a writable mount under it.
		sandboxStep(at, sandbox),
		{Op: plan.Seal, Target: "/", Flags: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID},
		writable(at.view), writable(sandbox),
		// Last, for the host's /tmp may hold the folders above.
		{Op: plan.Mount, Source: at.view, Target: "/tmp", Flags: unix.MS_BIND | unix.MS_REC},
	}
}

// sandboxStep shows the sandbox folder, with the program's files in it as they
// are in the store: overlayfs takes what is written into the sandbox folder.
func sandboxStep(at places, target string) plan.Step {
	if at.program == "" {
		return plan.Step{Op: plan.Mount, Source: at.sandbox, Target: target, Flags: unix.MS_BIND | inert}
	}
	return plan.Step{
		Op: plan.Mount, Source: "overlay", Target: target, Type: "overlay", Flags: inert,
		Data: "lowerdir=" + at.program + ",upperdir=" + at.sandbox + ",workdir=" + at.work,
	}
}

// builder writes steps whose targets are beneath one root.
type builder struct {
	root  string
	steps []plan.Step
}

func (b *builder) add(s plan.Step) {
	s.Target = filepath.Join(b.root, s.Target)
	b.steps = append(b.steps, s)
}

func (b *builder) mount(source, target, kind string, flags uint64, data string) {
	b.add(plan.Step{Op: plan.Mount, Source: source, Target: target, Type: kind, Flags: flags, Data: data})
}

func (b *builder) host(h hostPath) {
	switch h.kind {
	case hostLink:
		b.add(plan.Step{Op: plan.Link, Source: h.link, Target: h.path})
	case hostFolder:
		if filepath.Dir(h.path) == "/" { // those in /etc are made with it
			b.add(plan.Step{Op: plan.Folder, Target: h.path, Mode: 0o755})
		}
		b.add(plan.Step{Op: plan.Mount, Source: h.path, Target: h.path, Flags: unix.MS_BIND | readOnly, Optional: true})
	case hostFile: // a copy in /etc
	}
}

// landlock allows reading everywhere in the view and writing in the task's own
// places. It is a second lock on doors that the mounts have shut, and the only
// one on abstract sockets, which belong to the network namespace.
func landlock(abi int, sandbox string) plan.Landlock {
	if abi < 1 {
		return plan.Landlock{}
	}
	const (
		read    = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
		v1      = 1<<13 - 1
		devices = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR |
			unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	)
	all := uint64(v1)
	if abi >= 2 {
		all |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		all |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		all |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	l := plan.Landlock{HandledFS: all, Rules: []plan.Rule{
		{Path: "/", Access: read}, {Path: sandbox, Access: all}, {Path: "/tmp", Access: all},
		{Path: "/dev/shm", Access: all}, {Path: "/dev", Access: devices & all},
	}}
	if abi >= 6 {
		l.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return l
}
