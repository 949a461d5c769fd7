package sandbox

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	bpf "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
	netbpf "golang.org/x/net/bpf"
)

// filter is containerd's default profile for a container without capabilities,
// as the kernel takes it (struct sock_filter[]). It takes some milliseconds to
// make: once is enough.
func filter() ([]byte, error) {
	policy, err := defaultPolicy()
	if err != nil {
		return nil, err
	}
	program, err := treeOf(policy)
	if err != nil {
		return nil, fmt.Errorf("cannot make the seccomp filter: %w", err)
	}
	raw, err := netbpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("cannot make the seccomp filter: %w", err)
	}
	var b []byte
	for _, i := range raw {
		b = binary.NativeEndian.AppendUint16(b, i.Op)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b, nil
}

func defaultPolicy() (*bpf.Policy, error) {
	return policyOf(seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}))
}

// policyOf says a profile of the OCI runtime spec in the assembler's words: one
// group of system calls for each action, refusals with a number of their own
// first. System calls that this architecture does not have are left out.
func policyOf(profile *specs.LinuxSeccomp) (*bpf.Policy, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("cannot make the seccomp filter: %w", err)
	}
	groups := map[bpf.Action]*bpf.SyscallGroup{}
	for _, s := range profile.Syscalls {
		action, err := actionOf(s)
		if err != nil {
			return nil, err
		}
		g := groups[action]
		if g == nil {
			g = &bpf.SyscallGroup{Action: action}
			groups[action] = g
		}
		conditions, err := conditionsOf(s.Args)
		if err != nil {
			return nil, err
		}
		for _, name := range s.Names {
			if _, ok := info.SyscallNames[name]; !ok || slices.Contains(g.Names, name) {
				continue
			}
			if len(conditions) == 0 {
				g.Names = append(g.Names, name)
			} else {
				g.NamesWithCondtions = append(g.NamesWithCondtions, bpf.NameWithConditions{Name: name, Conditions: conditions})
			}
		}
	}
	p := &bpf.Policy{DefaultAction: bpf.ActionErrno}
	for _, action := range slices.Sorted(maps.Keys(groups)) {
		g := groups[action]
		g.NamesWithCondtions = slices.DeleteFunc(g.NamesWithCondtions, func(n bpf.NameWithConditions) bool { return slices.Contains(g.Names, n.Name) })
		if len(g.Names)+len(g.NamesWithCondtions) > 0 {
			p.Syscalls = append(p.Syscalls, *g)
		}
	}
	return p, nil
}

// actionOf: ActionErrno is a smaller number than ActionAllow.
func actionOf(s specs.LinuxSyscall) (bpf.Action, error) {
	switch {
	case s.Action == specs.ActAllow:
		return bpf.ActionAllow, nil
	case s.Action == specs.ActErrno && s.ErrnoRet != nil:
		return bpf.ActionErrno | bpf.Action(*s.ErrnoRet), nil
	case s.Action == specs.ActErrno:
		return bpf.ActionErrno, nil
	}
	return 0, fmt.Errorf("cannot make the seccomp filter: the action %s is not known", s.Action)
}

func conditionsOf(args []specs.LinuxSeccompArg) (bpf.ArgumentConditions, error) {
	var all bpf.ArgumentConditions
	for _, a := range args {
		c := bpf.Condition{Argument: uint32(a.Index), Value: a.Value}
		switch {
		case a.Op == specs.OpEqualTo:
			c.Operation = bpf.Equal
		case a.Op == specs.OpNotEqual:
			c.Operation = bpf.NotEqual
		case a.Op == specs.OpGreaterThan:
			c.Operation = bpf.GreaterThan
		case a.Op == specs.OpGreaterEqual:
			c.Operation = bpf.GreaterOrEqual
		case a.Op == specs.OpLessThan:
			c.Operation = bpf.LessThan
		case a.Op == specs.OpLessEqual:
			c.Operation = bpf.LessOrEqual
		case a.Op == specs.OpMaskedEqual && a.ValueTwo == 0:
			c.Operation = bpf.BitsNotSet
		default:
			return nil, fmt.Errorf("cannot make the seccomp filter: the operator %s is not known", a.Op)
		}
		all = append(all, c)
	}
	return all, nil
}
