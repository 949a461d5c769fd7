package keeper

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

// files are the descriptors a keeper works with.
type files struct {
	state, output, sandbox int
	cgroups                []int
	listen                 []int
	oom                    int // -1: none
	usage                  int // -1: none
}

// errGone tells that the agent closed the socket: it needs no keeper, or has given
// the launch up.
var errGone = errors.New("the agent is gone")

// receive waits for a part of the plan, and gives the descriptors that came with
// it.
func receive(p plan.Part) ([]int, error) {
	var head [4]byte
	rights := make([]byte, unix.CmsgSpace(4*253)) // the kernel's most
	nrights := 0
	n, err := ignoringEINTR(func() (n int, err error) {
		n, nrights, _, _, err = unix.Recvmsg(plan.Socket, head[:], rights, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
		return n, err
	})
	if err == nil && n == 0 {
		return nil, errGone
	}
	if err != nil || n != len(head) {
		return nil, errors.Join(errors.New("cannot receive the plan"), err)
	}
	raw, err := readAll(plan.Socket, int(binary.BigEndian.Uint32(head[:])))
	if err != nil {
		return nil, errors.Join(errors.New("cannot receive the plan"), err)
	}
	fds, err := descriptors(rights[:nrights])
	return fds, errors.Join(err, plan.Decode(raw, p))
}

func descriptors(rights []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	return unix.ParseUnixRights(&messages[0])
}

// receiveFiles waits for the descriptors.
func receiveFiles(p *plan.Plan) (*files, error) {
	var h plan.Handed
	fds, err := receive(&h)
	if err != nil {
		return nil, err
	}
	return sortFiles(p, h, fds)
}

// sortFiles names the descriptors that came.
func sortFiles(p *plan.Plan, h plan.Handed, fds []int) (*files, error) {
	want := plan.Fixed + h.Cgroups + p.Listen
	for _, one := range []bool{h.OOMEvents, h.CPUUsage} {
		if one {
			want++
		}
	}
	if len(fds) != want {
		return nil, errors.New("the wrong number of descriptors came for the task")
	}
	f := &files{state: fds[plan.State], output: fds[plan.Output], sandbox: fds[plan.Sandbox], oom: -1, usage: -1}
	rest := fds[plan.Fixed:]
	f.cgroups, rest = rest[:h.Cgroups], rest[h.Cgroups:]
	f.listen, rest = rest[:p.Listen:p.Listen], rest[p.Listen:]
	if h.OOMEvents {
		f.oom, rest = rest[0], rest[1:]
	}
	if h.CPUUsage {
		f.usage = rest[0]
	}
	var err error
	for i := range f.listen {
		if f.listen[i], err = high(f.listen[i]); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// high moves a descriptor out of the way of those that the task gets.
func high(fd int) (int, error) {
	const above = 300
	moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, above)
	if err != nil {
		return -1, err
	}
	return moved, unix.Close(fd)
}

func readAll(fd, size int) ([]byte, error) {
	all := make([]byte, size)
	for got := 0; got < size; {
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, all[got:]) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, errors.New("it is cut off")
		}
		got += n
	}
	return all, nil
}
