package keeper

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// ruleset makes the plan's Landlock ruleset out of paths in the task's view; -1
// if it has none. go-landlock is not used here: it restricts all threads of a
// process, and the keeper must stay as it is.
func ruleset(l *plan.Landlock) (int, error) {
	if l.HandledFS == 0 && l.Scoped == 0 {
		return -1, nil
	}
	attr := struct{ fs, net, scoped uint64 }{l.HandledFS, 0, l.Scoped}
	size := unsafe.Sizeof(attr)
	if l.Scoped == 0 {
		size = 8 // kernels before 6.12 know no more
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return -1, errors.Join(errors.New("cannot make a Landlock ruleset"), errno)
	}
	for _, r := range l.Rules {
		if err := allow(int(fd), r); err != nil {
			return -1, errors.Join(errors.New("cannot make a Landlock rule for "+r.Path), err)
		}
	}
	return int(fd), nil
}

func allow(set int, r plan.Rule) error {
	dir, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	// struct landlock_path_beneath_attr is packed: 8 and 4 bytes.
	var attr [12]byte
	*(*uint64)(unsafe.Pointer(&attr[0])) = r.Access
	*(*int32)(unsafe.Pointer(&attr[8])) = int32(dir)
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(set), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
