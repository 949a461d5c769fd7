package pull

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Dest is where the process finds the folder that it fills, and Etc the few
// files it may read, in the root that its parent made for it.
const (
	Dest = "/dest"
	Etc  = "/etc"
)

// Confinement is what holds the process, as it sees it itself.
type Confinement struct {
	UID          int
	Capabilities bool // it has some
	NoNewPrivs   bool
	Landlock     int // the kernel's version of it; 0: there is none
}

// Confine takes away what is left to take: the parent made the root and the
// user; what may be done there is bounded here, before the job is read. Args
// are the process's own.
func Confine(args []string) (Confinement, error) {
	unix.Umask(0o022)
	if err := bound(args); err != nil {
		return Confinement{}, err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return Confinement{}, fmt.Errorf("cannot forbid core dumps: %w", err)
	}
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	// Before its second version (Linux 5.19) no hard link between folders could
	// be allowed, and archives have some.
	if errno != 0 || abi < 2 {
		abi = 0 // the private root is what there is
	} else if err := restrict(); err != nil {
		return Confinement{}, err
	}
	return inspect(int(abi))
}

// bound sets the resource limits. Memory is bounded as data that is really
// mapped: the Go runtime reserves far more addresses than it uses. A dictionary
// of gigabytes, which a few bytes of .xz can ask for, ends the process.
func bound(args []string) error {
	if len(args) != 1 {
		return errors.New("it wants one argument, its memory in bytes")
	}
	memory, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	for what, n := range map[int]uint64{
		unix.RLIMIT_DATA: memory, unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: 256, unix.RLIMIT_NPROC: 512, unix.RLIMIT_MEMLOCK: 0,
	} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("cannot set resource limit %d: %w", what, err)
		}
	}
	return nil
}

// restrict lets files be made and read below Dest and read below Etc, and no
// more: nothing is executed, no device, socket or FIFO made, no abstract
// socket of the host reached.
func restrict() error {
	const fill = llsyscall.AccessFSWriteFile | llsyscall.AccessFSReadFile | llsyscall.AccessFSReadDir |
		llsyscall.AccessFSMakeDir | llsyscall.AccessFSMakeReg | llsyscall.AccessFSMakeSym |
		llsyscall.AccessFSTruncate | llsyscall.AccessFSRefer
	c := landlock.V7.BestEffort()
	if err := c.RestrictPaths(landlock.RODirs(Etc), landlock.PathAccess(landlock.AccessFSSet(fill), Dest)); err != nil {
		return fmt.Errorf("cannot restrict paths by Landlock: %w", err)
	}
	if err := c.RestrictScoped(); err != nil {
		return fmt.Errorf("cannot restrict sockets and signals by Landlock: %w", err)
	}
	return nil
}

func inspect(abi int) (Confinement, error) {
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return Confinement{}, err
	}
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return Confinement{}, err
	}
	some := data[0].Effective|data[0].Permitted|data[1].Effective|data[1].Permitted != 0
	return Confinement{UID: os.Getuid(), Capabilities: some, NoNewPrivs: nnp == 1, Landlock: abi}, nil
}
