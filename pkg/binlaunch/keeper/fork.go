package keeper

import (
	"errors"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// image is all that the child needs between clone3 and execve, made before, for
// nothing may be allocated there.
type image struct {
	path, argv, env uintptr
	listenPID       *[10]byte // in the environment, for its own pid; or nil
	in, out         int
	listen          []int
	join            []int // tasks files of v1 cgroups, whose limits stand already
	wait            int   // -1, or: a byte comes when the uid map is written
	failed          int   // where a failure is told
	rlimits         []plan.Rlimit
	caps            uint64
	dropCaps        bool
	uid, gid        uint32
	setIDs          bool
	noNewPrivs      bool
	landlock        int // ruleset, -1: none
	seccomp         *unix.SockFprog
	pidFD           int32
	stack           []byte
	keep            []any // keeps what the uintptrs point to
}

// childStack is far more than child needs: its own frame and those of system
// calls.
const childStack = 16 << 10

// stages name what the child was about when it failed.
var stages = [...]string{ //nolint:gochecknoglobals // a constant table
	"", "join its cgroup", "wait for its user namespace", "become a session's leader", "take its descriptors", "set a limit of resources",
	"drop a capability", "change its groups", "change its group", "change its user", "drop its capabilities",
	"set no_new_privs", "apply Landlock", "apply the seccomp filter", "execute",
}

const (
	stJoin = iota + 1
	stWait
	stSession
	stFDs
	stRlimit
	stBounding
	stGroups
	stGID
	stUID
	stCaps
	stNNP
	stLandlock
	stSeccomp
	stExec
)

// clone starts the child. flags are of clone3; cgroup is a v2 folder's
// descriptor, or -1 when the child joins those of v1.
func (m *image) clone(flags uint64, cgroup int) (pid, pidfd int, err error) {
	// In the image, for a goroutine's stack may move before the kernel writes.
	args := cloneArgs{flags: flags | unix.CLONE_PIDFD, pidFD: uint64(uintptr(unsafe.Pointer(&m.pidFD))), exitSignal: uint64(unix.SIGCHLD)}
	if cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroup)
	}
	syscall.ForkLock.Lock()
	n, errno := m.cloneAndExec(&args)
	syscall.ForkLock.Unlock()
	if errno != 0 {
		return 0, -1, errors.Join(errors.New("cannot clone into the cgroup"), errno)
	}
	return n, int(m.pidFD), nil
}

// cloneArgs is struct clone_args of the kernel.
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// cloneAndExec returns in the parent alone. The child shares the keeper's memory
// until it executes, on a stack of its own: to copy page tables instead and to
// take every page apart afterwards is most of what a launch would cost. Unlike
// after vfork the parent runs on, for it has to write the uid map.
//
//go:norace
//go:noinline
//go:nocheckptr
func (m *image) cloneAndExec(args *cloneArgs) (int, syscall.Errno) {
	var pid uintptr
	var errno syscall.Errno
	beforeFork()
	if ownStack {
		args.flags |= unix.CLONE_VM
		args.stack, args.stackSize = uint64(uintptr(unsafe.Pointer(&m.stack[0]))), uint64(len(m.stack))
		pid, errno = cloneOnStack(args, unsafe.Sizeof(*args), m)
	} else if pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0, 0, 0, 0); errno == 0 && pid == 0 {
		m.child()
	}
	afterFork()
	return int(pid), errno
}

// child is what the child does. It makes system calls and nothing else: no
// allocation, no write to what the keeper has, no call of a Go function that may
// grow the stack, no lock. It never returns.
//
//go:nosplit
//go:norace
//go:noinline
//go:nocheckptr
func (m *image) child() { //nolint:gocognit // it may call no function of its own
	var (
		n          uintptr
		errno      syscall.Errno
		report     [2]int32
		lim        [2]uint64
		caps       [6]uint32
		header     = [2]uint32{unix.LINUX_CAPABILITY_VERSION_3, 0}
		b          byte
		stage      int32
		i          int
		digit, rem uintptr
	)
	afterForkInChild()

	// It joins by itself, so that no thread of the keeper ever is where all is
	// killed, and "0" needs no lock on all forks of the machine as a pid does.
	stage, b = stJoin, '0'
	for i = range m.join {
		if _, _, errno = syscall.RawSyscall(unix.SYS_WRITE, uintptr(m.join[i]), uintptr(unsafe.Pointer(&b)), 1); errno != 0 {
			goto fail
		}
	}
	if m.wait >= 0 {
		stage = stWait
		n, _, errno = syscall.RawSyscall(unix.SYS_READ, uintptr(m.wait), uintptr(unsafe.Pointer(&b)), 1)
		if errno != 0 || n != 1 {
			goto fail
		}
	}
	stage = stSession
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
		goto fail
	}
	stage = stFDs
	if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(m.in), 0, 0); errno != 0 {
		goto fail
	}
	for i = 1; i <= 2; i++ {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(m.out), uintptr(i), 0); errno != 0 {
			goto fail
		}
	}
	for i = range m.listen {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(m.listen[i]), uintptr(3+i), 0); errno != 0 {
			goto fail
		}
	}
	// All else is close-on-exec already; this is for what is not known here.
	// It is missing before Linux 5.11.
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, uintptr(3+len(m.listen)), ^uintptr(0)>>33, unix.CLOSE_RANGE_CLOEXEC)
	stage = stRlimit
	for i = range m.rlimits {
		lim[0], lim[1] = m.rlimits[i].Soft, m.rlimits[i].Hard
		_, _, errno = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(m.rlimits[i].Resource), uintptr(unsafe.Pointer(&lim)), 0, 0, 0)
		if errno != 0 && !m.rlimits[i].MayRefuse {
			goto fail
		}
	}
	if m.dropCaps {
		stage = stBounding
		for i = 0; i < 64; i++ {
			if m.caps&(1<<uint(i)) != 0 {
				continue
			}
			_, _, errno = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(i), 0)
			if errno == unix.EINVAL {
				break // past the kernel's last
			}
			if errno != 0 {
				goto fail
			}
		}
	}
	if m.setIDs {
		stage = stGroups
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			goto fail
		}
		stage = stGID
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(m.gid), uintptr(m.gid), uintptr(m.gid)); errno != 0 {
			goto fail
		}
		stage = stUID
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(m.uid), uintptr(m.uid), uintptr(m.uid)); errno != 0 {
			goto fail
		}
	}
	if m.dropCaps {
		stage = stCaps
		caps[0], caps[1] = uint32(m.caps), uint32(m.caps)
		caps[3], caps[4] = uint32(m.caps>>32), uint32(m.caps>>32)
		if _, _, errno = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&caps)), 0); errno != 0 {
			goto fail
		}
	}
	if m.noNewPrivs {
		stage = stNNP
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
			goto fail
		}
	}
	if m.listenPID != nil {
		n, _, _ = syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		for i = 9; i >= 0; i-- {
			digit = n / 10
			rem = n - digit*10
			m.listenPID[i] = byte('0' + rem)
			n = digit
		}
	}
	if m.landlock >= 0 {
		stage = stLandlock
		if _, _, errno = syscall.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(m.landlock), 0, 0); errno != 0 {
			goto fail
		}
	}
	if m.seccomp != nil {
		stage = stSeccomp
		if _, _, errno = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(m.seccomp))); errno != 0 {
			goto fail
		}
	}
	stage = stExec
	_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, m.path, m.argv, m.env)
fail:
	report[0], report[1] = stage, int32(errno)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(m.failed), uintptr(unsafe.Pointer(&report)), unsafe.Sizeof(report))
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 253, 0, 0)
	}
}

// newImage lays the program's arguments out in memory.
func newImage(p *plan.Plan, path string) (*image, error) {
	m := &image{
		stack: make([]byte, childStack),
		wait:  -1, failed: -1, landlock: -1, rlimits: p.Rlimits, caps: p.Caps, dropCaps: p.Caps != ^uint64(0),
		uid: p.UID, gid: p.GID, setIDs: p.UID != 0 || p.GID != 0 || p.OwnUser, noNewPrivs: p.NoNewPrivs,
	}
	if p.OwnUser {
		m.uid, m.gid = p.InnerUID, p.InnerGID
	}
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return nil, err
	}
	argv, err := syscall.SlicePtrFromStrings(p.Argv)
	if err != nil {
		return nil, err
	}
	environment := p.Env
	if p.Listen > 0 {
		environment = append(environment[:len(environment):len(environment)], "LISTEN_FDS="+strconv.Itoa(p.Listen), "LISTEN_PID=0000000000")
	}
	env, err := syscall.SlicePtrFromStrings(environment)
	if err != nil {
		return nil, err
	}
	m.path, m.argv, m.env = uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0]))
	m.keep = []any{name, argv, env}
	if p.Listen > 0 {
		last := env[len(env)-2] // the one before the closing nil
		m.listenPID = (*[10]byte)(unsafe.Add(unsafe.Pointer(last), len("LISTEN_PID=")))
	}
	if len(p.Seccomp) > 0 {
		filter := unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&p.Seccomp[0])), len(p.Seccomp)/8)
		aligned := append([]unix.SockFilter(nil), filter...)
		m.seccomp = &unix.SockFprog{Len: uint16(len(aligned)), Filter: &aligned[0]}
	}
	return m, nil
}

// failure reads what the child told before it could execute, nil when execve
// closed the pipe.
func failure(fd int) error {
	var report [2]int32
	b := (*[8]byte)(unsafe.Pointer(&report))[:]
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, b) })
	if err != nil || n != len(b) {
		return err
	}
	stage := "start"
	if s := int(report[0]); s > 0 && s < len(stages) {
		stage = stages[s]
	}
	return &StartError{Stage: stage, Errno: syscall.Errno(report[1])}
}

// StartError tells at which stage a task failed before its program ran.
type StartError struct {
	Stage string
	Errno syscall.Errno
}

func (e *StartError) Error() string { return "the task cannot " + e.Stage + ": " + e.Errno.Error() }

// Unwrap returns the kernel's error.
func (e *StartError) Unwrap() error { return e.Errno }

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
