package sandbox

import (
	"errors"
	"slices"

	bpf "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	netbpf "golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// treeOf says what the policy's own assembler says, found by halving: that one
// asks for one system call after the other, and the kernel, which plays a filter
// for every number there is before it takes it, is busy with that for 0.3 ms of
// each launch. Only what depends on arguments is left to the assembler, behind
// the tree.
func treeOf(p *bpf.Policy) ([]netbpf.Instruction, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	asking, err := (&bpf.Policy{DefaultAction: p.DefaultAction, Syscalls: asking(p)}).Assemble()
	if err != nil {
		return nil, err
	}
	tree, err := branch(rangesOf(p, info))
	if err != nil {
		return nil, err
	}
	const archAt, numberAt, word = 4, 0, 4 // struct seccomp_data
	program := append([]netbpf.Instruction{
		netbpf.LoadAbsolute{Off: archAt, Size: word},
		netbpf.JumpIf{Cond: netbpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		netbpf.Jump{},
		netbpf.LoadAbsolute{Off: numberAt, Size: word},
	}, tree...)
	for i := range program {
		if _, ok := program[i].(netbpf.Jump); ok {
			program[i] = netbpf.Jump{Skip: uint32(len(program) - i - 1)}
		}
	}
	return append(program, asking...), nil
}

// numbers is a row of system calls with the same answer, up to the next row.
type numbers struct {
	from   uint32
	action bpf.Action
	asks   bool // it depends on arguments, or is no system call of this architecture
}

// rangesOf cuts all numbers into rows.
func rangesOf(p *bpf.Policy, info *arch.Info) []numbers {
	last := 0
	names := map[int]string{}
	for name, n := range info.SyscallNames {
		names[n], last = name, max(last, n)
	}
	var rows []numbers
	for n := range last + 2 {
		row := numbers{from: uint32(n), asks: n > last}
		if !row.asks {
			row.action, row.asks = answer(p, names[n])
		}
		if len(rows) == 0 || rows[len(rows)-1].action != row.action || rows[len(rows)-1].asks != row.asks {
			rows = append(rows, row)
		}
	}
	return rows
}

// answer is what the policy says to a system call, or that it asks for arguments.
func answer(p *bpf.Policy, name string) (action bpf.Action, asking bool) {
	for _, g := range p.Syscalls {
		if slices.Contains(g.Names, name) {
			return g.Action, false
		}
		if asks(g, name) {
			return 0, true
		}
	}
	return p.DefaultAction, false
}

// branch halves the rows until one is left. A jump means: to what follows the
// tree.
func branch(rows []numbers) ([]netbpf.Instruction, error) {
	if len(rows) == 1 {
		if rows[0].asks {
			return []netbpf.Instruction{netbpf.Jump{}}, nil
		}
		action := rows[0].action
		if action == bpf.ActionErrno {
			action |= bpf.Action(unix.EPERM) // as the assembler means it
		}
		return []netbpf.Instruction{netbpf.RetConstant{Val: uint32(action)}}, nil
	}
	half := len(rows) / 2
	below, err := branch(rows[:half])
	if err != nil {
		return nil, err
	}
	above, err := branch(rows[half:])
	if err != nil {
		return nil, err
	}
	const most = 255 // a conditional jump's
	if len(below) > most {
		return nil, errors.New("the profile has too many rows of system calls")
	}
	all := append([]netbpf.Instruction{netbpf.JumpIf{Cond: netbpf.JumpGreaterOrEqual, Val: rows[half].from, SkipTrue: uint8(len(below))}}, below...)
	return append(all, above...), nil
}

// asking are the groups without the system calls that need no look at arguments.
func asking(p *bpf.Policy) []bpf.SyscallGroup {
	var all []bpf.SyscallGroup
	for i, g := range p.Syscalls {
		left := bpf.SyscallGroup{Action: g.Action, NamesWithCondtions: g.NamesWithCondtions}
		for _, name := range g.Names {
			if slices.ContainsFunc(p.Syscalls[:i], func(before bpf.SyscallGroup) bool { return asks(before, name) }) {
				left.Names = append(left.Names, name)
			}
		}
		if len(left.Names)+len(left.NamesWithCondtions) > 0 {
			all = append(all, left)
		}
	}
	return all
}

func asks(g bpf.SyscallGroup, name string) bool {
	return slices.ContainsFunc(g.NamesWithCondtions, func(n bpf.NameWithConditions) bool { return n.Name == name })
}
