package binlaunch

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/binlaunch/ports"
)

// held are the listening sockets of a unit, by name and number. They stay open
// while any task of the unit has such a port, so that connections are taken in
// while one task takes over from another.
//
// Every task has its socket too, so one that is lost with the agent is taken
// back from the task (pidfd_getfd): nothing else has to stay alive for it.
type held map[heldKey]*os.File

type heldKey struct {
	name   string
	number int32
}

// firstSocket is the descriptor of a task's first socket (sd_listen_fds).
const firstSocket = 3

// fixed gives ports without a number the one that their socket has already.
func (h held) fixed(want []v1alpha1.Port) []v1alpha1.Port {
	out := slices.Clone(want)
	for i, p := range out {
		for k := range h {
			if p.Held && p.Port == 0 && k.name == p.Name {
				out[i].Port = k.number
			}
		}
	}
	return out
}

func (h held) has(number int32) bool {
	for k := range h {
		if k.number == number {
			return true
		}
	}
	return false
}

// covers tells whether the socket of a port is there already.
func (h held) covers(p v1alpha1.Port) bool {
	for k := range h {
		if p.Held && k.name == p.Name && (p.Port == 0 || p.Port == k.number) {
			return true
		}
	}
	return false
}

// without leaves the unit's own sockets out of what is listened on.
func (h held) without(all []ports.Listener) []ports.Listener {
	own := map[uint64]bool{}
	for _, f := range h {
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) == nil {
			own[st.Ino] = true
		}
	}
	return slices.DeleteFunc(all, func(l ports.Listener) bool { return own[l.Inode] })
}

// hold opens the sockets of a task's held ports that are not open yet. It
// returns why it cannot.
func (u *unit) hold(t *task, numbers []int32) string {
	for i, p := range t.spec.Spec.Ports {
		key := heldKey{p.Name, numbers[i]}
		if !p.Held || u.held[key] != nil {
			continue
		}
		file, err := u.s.o.Network.Hold(u.s.ctx, numbers[i])
		if err != nil {
			return err.Error()
		}
		u.held[key] = file
	}
	return ""
}

// of are the sockets that a task is passed, in the order of its ports.
func (h held) of(t *task) []Socket {
	var sockets []Socket
	for i, p := range t.spec.Spec.Ports {
		if f := h[heldKey{p.Name, t.ports[i]}]; p.Held && f != nil {
			sockets = append(sockets, Socket{Name: p.Name, File: f})
		}
	}
	return sockets
}

// keep closes the sockets that no task has and that are not wanted.
func (h held) keep(wanted *v1alpha1.Binary, current, next *task, leaving []*task) {
	used := map[heldKey]bool{}
	for _, t := range append([]*task{current, next}, leaving...) {
		if t == nil {
			continue
		}
		for i, p := range t.spec.Spec.Ports {
			if p.Held && i < len(t.ports) {
				used[heldKey{p.Name, t.ports[i]}] = true
			}
		}
	}
	for k, f := range h {
		still := wanted != nil && slices.ContainsFunc(wanted.Spec.Ports, func(p v1alpha1.Port) bool {
			return p.Held && p.Name == k.name && (p.Port == 0 || p.Port == k.number)
		})
		if !used[k] && !still {
			_ = f.Close()
			delete(h, k)
		}
	}
}

func (h held) close() {
	for _, f := range h {
		_ = f.Close()
	}
}

// takeBack gets a task's sockets after a restart of the agent.
func (u *unit) takeBack(t *task) error {
	n := firstSocket
	for i, p := range t.spec.Spec.Ports {
		if !p.Held || i >= len(t.ports) {
			continue
		}
		f, err := socketOf(t.proc.Pid(), n, t.ports[i])
		if err != nil {
			return fmt.Errorf("cannot take the socket of port %s back from process %d: %w", p.Name, t.proc.Pid(), err)
		}
		u.held[heldKey{p.Name, t.ports[i]}] = f
		n++
	}
	return nil
}

// maxDescriptors bounds how many of a task's descriptors are looked through.
const maxDescriptors = 4096

// socketOf copies a listening socket out of a process. A server may have put
// it elsewhere than where it was passed: Go's net.FileListener makes a copy,
// and the first one is closed. It needs Linux 5.6 and CAP_SYS_PTRACE.
func socketOf(pid, number int, port int32) (*os.File, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(process)
	for _, n := range append([]int{number}, descriptors(pid)...) {
		fd, err := unix.PidfdGetfd(process, n, 0)
		if errors.Is(err, unix.EBADF) {
			continue // closed
		}
		if err != nil {
			return nil, err
		}
		if listensOn(fd, port) {
			return os.NewFile(uintptr(fd), "held"), nil
		}
		_ = unix.Close(fd)
	}
	return nil, fmt.Errorf("none of its descriptors listens on port %d", port)
}

// descriptors are the numbers of a process's open sockets.
func descriptors(pid int) []int {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil // it has ended
	}
	var numbers []int
	for _, e := range entries[:min(len(entries), maxDescriptors)] {
		link, err := os.Readlink(folder + "/" + e.Name())
		if n, isNumber := strconv.Atoi(e.Name()); err == nil && isNumber == nil && strings.HasPrefix(link, "socket:") {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// listensOn asks the kernel: what a task has open is not to be trusted.
func listensOn(fd int, port int32) bool {
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listens != 1 {
		return false
	}
	address, err := unix.Getsockname(fd)
	return err == nil && portOf(address) == int(port)
}

func portOf(address unix.Sockaddr) int {
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return a.Port
	case *unix.SockaddrInet6:
		return a.Port
	}
	return -1
}
