package sandbox

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	bpf "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	netbpf "golang.org/x/net/bpf"
)

// call is struct seccomp_data as the machine of package bpf reads it, which takes
// words in network order.
type call struct {
	number, arch uint32
	args         [6]uint64
}

func (c call) packet() []byte {
	var b []byte
	for _, w := range []uint32{c.number, c.arch, 0, 0} {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	for _, a := range c.args {
		low, high := uint32(a), uint32(a>>32)
		if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
			low, high = high, low
		}
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, low), high)
	}
	return b
}

func machine(t *testing.T, program []netbpf.Instruction, err error) *netbpf.VM {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := netbpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// The tree answers what the assembler's own row of questions answers: for every
// number, other architectures, numbers that are none, and arguments that the
// profile asks for and others.
func TestTreeOfSystemCalls(t *testing.T) {
	profile, err := defaultPolicy()
	if err != nil {
		t.Fatal(err)
	}
	mixed := &bpf.Policy{DefaultAction: bpf.ActionErrno, Syscalls: []bpf.SyscallGroup{
		{Action: bpf.ActionErrno | 38, Names: []string{"read"}, NamesWithCondtions: []bpf.NameWithConditions{
			{Name: "write", Conditions: bpf.ArgumentConditions{{Argument: 0, Operation: bpf.Equal, Value: 7}}},
		}},
		{Action: bpf.ActionAllow, Names: []string{"write", "close"}},
	}}
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	values := []uint64{0, 1, 7, 8, 38, 40, 0x20000, 0x20008, 0xffffffff, 1 << 32, ^uint64(0)}
	for _, p := range []*bpf.Policy{profile, mixed} {
		for _, g := range p.Syscalls {
			for _, n := range g.NamesWithCondtions {
				for _, c := range n.Conditions {
					values = append(values, c.Value, c.Value+1, c.Value-1)
				}
			}
		}
	}
	for name, p := range map[string]*bpf.Policy{"the default": profile, "one call in two groups": mixed} {
		row, err := p.Assemble()
		was := machine(t, row, err)
		tree, err := treeOf(p)
		is := machine(t, tree, err)
		answers := map[int]int{}
		try := func(c call) {
			want, err1 := was.Run(c.packet())
			got, err2 := is.Run(c.packet())
			if err1 != nil || err2 != nil || got != want {
				t.Fatalf("%s: call %d of architecture %x with %x: %x, want %x (%v, %v)", name, c.number, c.arch, c.args, got, want, err1, err2)
			}
			answers[want]++
		}
		for _, a := range []uint32{uint32(info.ID), 0x40000003, 0xc00000b7, 0} {
			for n := range uint32(1000) {
				try(call{number: n, arch: a})
				try(call{number: n | 0x40000000, arch: a})
				try(call{number: n | 0x80000000, arch: a})
				for _, v := range values {
					try(call{number: n, arch: a, args: [6]uint64{v, v, v, v, v, v}})
				}
			}
		}
		for range 20_000 {
			c := call{number: rand.Uint32N(600), arch: uint32(info.ID)}
			for i := range c.args {
				c.args[i] = values[rand.IntN(len(values))]
			}
			try(c)
		}
		if len(answers) < 3 {
			t.Errorf("%s: only the answers %v were met", name, answers)
		}
		if len(tree) >= len(row) && p == profile {
			t.Errorf("the tree has %d instructions, the row %d", len(tree), len(row))
		}
	}
}
