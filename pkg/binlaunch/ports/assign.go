package ports

import (
	"fmt"
	"hash/fnv"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Range is where ports without a number come from, both ends included.
type Range struct {
	First, Last int32
}

// Port is a number of one protocol.
type Port struct {
	Number   int32
	Protocol v1alpha1.Protocol
}

// Claim is a port that somebody has a right to, whether or not he listens.
type Claim struct {
	Port
	By string // for people: task node-exporter, pod shop/web-1
}

// Listener is a socket that takes connections or datagrams.
type Listener struct {
	Port
	Inode uint64
}

// View is all that the decision is made from.
type View struct {
	Range     Range
	Claims    []Claim    // of others
	Listeners []Listener // those of the task itself left out
	// Before are the numbers that the task had last, by name. It gets them
	// again where it can, so that who knows its address finds it again.
	Before map[string]int32
}

// Conflict is why a task has to wait for a port.
type Conflict struct {
	Port  Port
	Claim *Claim // nil: somebody listens, without a claim
	Inode uint64 // of his socket
	Full  *Range // no port is left in the range
}

// Assign returns the number of each port, or the conflict that the task has to
// wait for. seed makes two tasks begin at different places of the range.
func Assign(seed string, want []v1alpha1.Port, v View) ([]int32, *Conflict) {
	got := make([]int32, len(want))
	taken := map[Port]bool{}
	for i, p := range want {
		if p.Port == 0 {
			continue
		}
		port := Port{p.Port, p.Protocol}
		if c := v.conflict(port); c != nil {
			return nil, c
		}
		got[i], taken[port] = p.Port, true
	}
	for i, p := range want {
		if p.Port != 0 {
			continue
		}
		n, ok := v.pick(seed+"/"+p.Name, p, taken)
		if !ok {
			return nil, &Conflict{Port: Port{0, p.Protocol}, Full: &v.Range}
		}
		got[i], taken[Port{n, p.Protocol}] = n, true
	}
	return got, nil
}

func (v View) conflict(p Port) *Conflict {
	for i := range v.Claims {
		if v.Claims[i].Port == p {
			return &Conflict{Port: p, Claim: &v.Claims[i]}
		}
	}
	for _, l := range v.Listeners {
		if l.Port == p {
			return &Conflict{Port: p, Inode: l.Inode}
		}
	}
	return nil
}

func (v View) pick(seed string, p v1alpha1.Port, taken map[Port]bool) (int32, bool) {
	free := func(n int32) bool {
		port := Port{n, p.Protocol}
		return !taken[port] && v.conflict(port) == nil
	}
	if n := v.Before[p.Name]; n >= v.Range.First && n <= v.Range.Last && free(n) {
		return n, true
	}
	size := v.Range.Last - v.Range.First + 1
	h := fnv.New32a()
	_, _ = h.Write([]byte(seed))
	for i := range size {
		if n := v.Range.First + int32((uint64(h.Sum32())+uint64(i))%uint64(size)); free(n) {
			return n, true
		}
	}
	return 0, false
}

// Sentence says the conflict in a sentence; holder is who listens, if known.
func (c Conflict) Sentence(holder string) string {
	switch {
	case c.Full != nil:
		return fmt.Sprintf("no %s port is free in %d-%d", c.Port.Protocol, c.Full.First, c.Full.Last)
	case c.Claim != nil:
		return fmt.Sprintf("port %d/%s belongs to %s", c.Port.Number, c.Port.Protocol, c.Claim.By)
	case holder == "":
		holder = "a process that cannot be seen"
	}
	return fmt.Sprintf("port %d/%s is taken by %s", c.Port.Number, c.Port.Protocol, holder)
}
