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
	null, out              int
}

// receive waits for the plan; nil if the agent closed the socket instead.
func receive() (*plan.Plan, files, error) {
	f := files{oom: -1, usage: -1}
	head := make([]byte, 4)
	rights := make([]byte, unix.CmsgSpace(4*253)) // the kernel's most
	var n, nrights int
	var err error
	for {
		n, nrights, _, _, err = unix.Recvmsg(plan.Socket, head, rights, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil && n == 0 {
		return nil, f, nil
	}
	if err != nil || n != len(head) {
		return nil, f, errors.Join(errors.New("cannot receive the plan"), err)
	}
	raw, err := readAll(plan.Socket, int(binary.BigEndian.Uint32(head)))
	if err != nil {
		return nil, f, errors.Join(errors.New("cannot receive the plan"), err)
	}
	p, err := plan.Decode(raw)
	if err != nil {
		return nil, f, err
	}
	fds, err := descriptors(rights[:nrights])
	if err != nil {
		return nil, f, err
	}
	return p, f, f.sort(p, fds)
}

func descriptors(rights []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("no descriptors came with the plan"), err)
	}
	return unix.ParseUnixRights(&messages[0])
}

// sort names the descriptors that came.
func (f *files) sort(p *plan.Plan, fds []int) error {
	want := plan.Fixed + p.Cgroups + p.Listen
	for _, one := range []bool{p.OOMEvents, p.CPUUsage} {
		if one {
			want++
		}
	}
	if len(fds) != want {
		return errors.New("the wrong number of descriptors came with the plan")
	}
	f.state, f.output, f.sandbox = fds[plan.State], fds[plan.Output], fds[plan.Sandbox]
	rest := fds[plan.Fixed:]
	f.cgroups, rest = rest[:p.Cgroups], rest[p.Cgroups:]
	f.listen, rest = rest[:p.Listen:p.Listen], rest[p.Listen:]
	if p.OOMEvents {
		f.oom, rest = rest[0], rest[1:]
	}
	if p.CPUUsage {
		f.usage = rest[0]
	}
	var err error
	for i := range f.listen {
		if f.listen[i], err = high(f.listen[i]); err != nil {
			return err
		}
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if f.null, err = high(null); err != nil {
		return err
	}
	if !p.OwnPids {
		// What the task leaves behind comes to the keeper, not to process 1.
		return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	return nil
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
