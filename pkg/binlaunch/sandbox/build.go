package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/cgroup"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// built is a plan and what is known of it before it is carried out.
type built struct {
	plan     plan.Plan
	limits   cgroup.Limits
	enforced []string
	missing  []string // required, and this node does not have it
	absent   []string // a second lock that this kernel does not have
}

// build makes the plan of a Spec; own is the uid that is free for it.
func build(s Spec, at places, f facts, v2 bool, own uint32, filter []byte) (built, error) {
	b := built{limits: limitsOf(s.Resources)}
	p := &b.plan
	p.Argv, p.Hostname = s.Command, hostname(s)
	p.Listen = len(s.Files)
	p.OutputMax, p.OutputFiles = s.Output.MaxBytes, s.Output.Files
	p.CgroupIsFD = v2
	if err := b.user(s, f, own); err != nil {
		return b, err
	}
	if err := b.rlimits(s); err != nil {
		return b, err
	}
	b.namespaces(s, f)
	p.Steps, p.Cwd = view(s.Profile, at)
	if s.Profile == HostObserver && !f.sealable {
		b.missing = append(b.missing, "the host's files read-only (mount_setattr needs Linux 5.12)")
		p.Steps = slices.DeleteFunc(p.Steps, func(s plan.Step) bool { return s.Op == plan.Seal })
	}
	b.locks(s, f, filter)
	b.resources(s)
	p.Env = environment(s, p.Cwd, p.Listen > 0)
	return b, nil
}

// prelude is what of a Spec's plan is known at once.
func prelude(s Spec, at places, f facts) *plan.Prelude {
	p := &plan.Prelude{Unshare: unix.CLONE_NEWNS}
	if s.PrivateNetwork {
		p.Unshare |= unix.CLONE_NEWNET
	}
	switch s.Profile {
	case Isolated:
		p.Unshare |= unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
		p.Steps = isolatedRoot(at, f)
	case HostObserver:
		p.Unshare |= unix.CLONE_NEWIPC
	case Privileged:
	}
	return p
}

// ownPids: all but the privileged have process numbers of their own.
func (s Spec) ownPids() bool { return s.Profile != Privileged }

func limitsOf(r Resources) cgroup.Limits {
	return cgroup.Limits{CPU: r.CPU, Memory: r.Memory, Pids: r.Pids, CPUs: r.CPUs, Mems: r.Mems, IO: r.IO, Together: true}
}

func hostname(s Spec) string {
	if s.Profile != Isolated {
		return ""
	}
	const most = 63
	return strings.Trim(s.ID[:min(len(s.ID), most)], "-.")
}

// user settles who the task is on the host and who it thinks it is.
func (b *built) user(s Spec, f facts, own uint32) error {
	uid, gid, err := userOf(s.User, f.passwd)
	if err != nil {
		return err
	}
	p := &b.plan
	p.UID, p.GID = uid, gid
	p.InnerUID, p.InnerGID = uid, gid
	switch {
	case s.Profile == Privileged && s.User == "":
		p.UID, p.GID = 0, 0
	case s.User == "":
		p.UID, p.GID, p.InnerUID, p.InnerGID = own, own, own, own
	case s.Profile == Isolated && (uid == 0 || gid == 0):
		// Root of its own user namespace, nobody on the host.
		if uid == 0 {
			p.UID = own
		}
		if gid == 0 {
			p.GID = own
		}
	}
	b.enforced = append(b.enforced, fmt.Sprintf("uid %d", p.UID))
	return nil
}

// userOf reads Spec.User. Names are those of the host.
func userOf(user, passwd string) (uid, gid uint32, err error) {
	if user == "" || user == "root" {
		return 0, 0, nil
	}
	first, second, both := strings.Cut(user, ":")
	if n, err := strconv.ParseUint(first, 10, 31); err == nil {
		g := n
		if both {
			if g, err = strconv.ParseUint(second, 10, 31); err != nil {
				return 0, 0, fmt.Errorf("the group in user %q is no number", user)
			}
		}
		return uint32(n), uint32(g), nil
	}
	for line := range strings.Lines(passwd) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 4 || fields[0] != user {
			continue
		}
		u, err1 := strconv.ParseUint(fields[2], 10, 31)
		g, err2 := strconv.ParseUint(fields[3], 10, 31)
		return uint32(u), uint32(g), errors.Join(err1, err2)
	}
	return 0, 0, fmt.Errorf("the host has no user %q", user)
}

func (b *built) namespaces(s Spec, f facts) {
	p := &b.plan
	b.enforced = append(b.enforced, "mount namespace")
	if s.PrivateNetwork {
		b.enforced = append(b.enforced, "network namespace")
	}
	if p.OwnPids = s.ownPids(); !p.OwnPids {
		return
	}
	b.enforced = append(b.enforced, "pid namespace", "ipc namespace")
	if s.Profile != Isolated {
		return
	}
	p.ReadOnlyProc = true
	b.enforced = append(b.enforced, "uts namespace", "/proc read-only")
	if f.userNS {
		p.OwnUser = true
		b.enforced = append(b.enforced, "user namespace")
	} else {
		b.missing = append(b.missing, "user namespace (the host's user.max_user_namespaces is 0)")
	}
}

// locks are no_new_privs, capabilities, seccomp, Landlock.
func (b *built) locks(s Spec, f facts, filter []byte) {
	p := &b.plan
	if s.Profile == Privileged {
		p.Caps = ^uint64(0)
		return
	}
	p.NoNewPrivs = true
	p.Seccomp = filter
	b.enforced = append(b.enforced, "no_new_privs", "no capabilities", "seccomp")
	if s.Profile == Isolated {
		b.enforced = append(b.enforced, "host files hidden")
	} else if f.sealable {
		b.enforced = append(b.enforced, "host files read-only")
	}
	if f.landlock == 0 {
		b.absent = append(b.absent, "landlock (not in this kernel)")
		return
	}
	p.Landlock = landlock(f.landlock, p.Cwd)
	b.enforced = append(b.enforced, fmt.Sprintf("landlock %d", f.landlock))
}

const diskEvery = 5 // seconds

func (b *built) resources(s Spec) {
	p, r := &b.plan, s.Resources
	if r.Disk > 0 {
		p.Disk, p.DiskEverySeconds = r.Disk, diskEvery
		// No single file grows past the bound even between two looks.
		p.Rlimits = append(p.Rlimits, plan.Rlimit{Resource: unix.RLIMIT_FSIZE, Soft: uint64(r.Disk), Hard: uint64(r.Disk)})
		b.enforced = append(b.enforced, fmt.Sprintf("disk (looked at every %d s; one file at once)", diskEvery))
	}
}

// rlimits come with a default that no ordinary program misses: no core files,
// which would land in the sandbox.
func (b *built) rlimits(s Spec) error {
	p := &b.plan
	p.Rlimits = []plan.Rlimit{{Resource: unix.RLIMIT_CORE}}
	for _, r := range s.Rlimits {
		n, ok := rlimitNumber(r.Name)
		if !ok {
			return fmt.Errorf("there is no rlimit %q", r.Name)
		}
		if r.Soft > r.Hard {
			return fmt.Errorf("the rlimit %s has a soft limit above its hard one", r.Name)
		}
		p.Rlimits = append(p.Rlimits, plan.Rlimit{Resource: n, Soft: r.Soft, Hard: r.Hard, MayRefuse: s.BestEffort})
		b.enforced = append(b.enforced, "rlimit "+r.Name)
	}
	return nil
}

func rlimitNumber(name string) (uint32, bool) {
	n, ok := map[string]uint32{
		"cpu": unix.RLIMIT_CPU, "fsize": unix.RLIMIT_FSIZE, "data": unix.RLIMIT_DATA, "stack": unix.RLIMIT_STACK,
		"core": unix.RLIMIT_CORE, "rss": unix.RLIMIT_RSS, "nproc": unix.RLIMIT_NPROC, "nofile": unix.RLIMIT_NOFILE,
		"memlock": unix.RLIMIT_MEMLOCK, "as": unix.RLIMIT_AS, "locks": unix.RLIMIT_LOCKS, "sigpending": unix.RLIMIT_SIGPENDING,
		"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
	}[name]
	return n, ok
}

// environment is what the task gets: nothing of the agent's own. The Spec's
// values win over those set here.
func environment(s Spec, sandbox string, sockets bool) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + sandbox, "PWD=" + sandbox, "TMPDIR=/tmp", "MESOS_SANDBOX=" + sandbox, "MESOS_DIRECTORY=" + sandbox, "MESOS_TASK_ID=" + s.ID,
	}
	var numbers []string
	for i, p := range s.Ports {
		n := strconv.Itoa(p.Number)
		numbers = append(numbers, n)
		env = append(env, fmt.Sprintf("PORT%d=%s", i, n))
		if p.Name != "" {
			env = append(env, "PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))+"="+n)
		}
	}
	if len(numbers) > 0 {
		env = append(env, "PORT="+numbers[0], "PORTS="+strings.Join(numbers, ","))
	}
	if sockets && len(s.FileNames) > 0 {
		env = append(env, "LISTEN_FDNAMES="+strings.Join(s.FileNames, ":"))
	}
	return override(env, s.Env)
}

// override keeps the last value of each name.
func override(env, above []string) []string {
	all := append(env, above...)
	last := map[string]int{}
	for i, e := range all {
		name, _, _ := strings.Cut(e, "=")
		last[name] = i
	}
	out := make([]string, 0, len(last))
	for i, e := range all {
		if name, _, _ := strings.Cut(e, "="); last[name] == i && !strings.HasPrefix(name, "LISTEN_PID") && name != "LISTEN_FDS" {
			out = append(out, e)
		}
	}
	return out
}

// shared are the folders of all tasks that lie beside the tasks' own.
func shared(name string) bool { return name == etcFolder || name == viewFolder }

func placesOf(state string, s Spec) places {
	etc, view := filepath.Join(state, etcFolder), filepath.Join(state, viewFolder)
	return places{view: view, etc: etc, sandbox: s.Dir, work: s.Dir + ".work", program: s.Root}
}
