package rollout

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestNext(t *testing.T) {
	one, ten := intstr.FromInt32(1), intstr.FromString("10%")
	old := func(name string) Node { return Node{Name: name, Up: true, Running: 1} }
	fresh := func(name string) Node { return Node{Name: name, Up: true, Running: 2} }
	down := func(name string) Node { return Node{Name: name} }
	many := func(n int) (all []Node) {
		for i := range n {
			all = append(all, old(fmt.Sprintf("n%02d", i)))
		}
		return all
	}
	for _, tt := range []struct {
		name     string
		max      intstr.IntOrString
		nodes    []Node
		admitted []string
		want     []string
		message  string
	}{
		{"no node", one, nil, nil, nil, ""},
		{"all updated", one, []Node{fresh("a"), fresh("b")}, []string{"b"}, nil, ""},
		{"the first", one, []Node{old("b"), old("a")}, nil, []string{"a"}, "0 of 2 nodes are updated, 2 are up"},
		{"one at a time", one, []Node{old("a"), old("b")}, []string{"a"}, []string{"a"}, "0 of 2 nodes are updated, 2 are up"},
		{"the next", one, []Node{fresh("a"), old("b")}, []string{"a"}, []string{"b"}, "1 of 2 nodes are updated, 2 are up"},
		{"a node that is down takes the place", one, []Node{down("a"), old("b")}, nil, nil, "0 of 2 nodes are updated, 1 are up"},
		{"an admitted node that is down is counted once", intstr.FromInt32(2), []Node{down("a"), old("b"), old("c")}, []string{"a"}, []string{"a", "b"}, "0 of 3 nodes are updated, 2 are up"},
		{"ten percent, rounded up", ten, many(11), nil, []string{"n00", "n01"}, "0 of 11 nodes are updated, 11 are up"},
		{"at least one", ten, many(3), nil, []string{"n00"}, "0 of 3 nodes are updated, 3 are up"},
		{"halted", intstr.FromInt32(2), []Node{fresh("a"), {Name: "b", Up: true, Running: 1, Rejected: 2, Message: "it answers 500"}, old("c")}, []string{"b", "c"}, nil,
			"halted at 1 of 3 nodes: on b it answers 500"},
		{"an older failure does not halt", one, []Node{{Name: "a", Up: true, Running: 1, Rejected: 1}}, nil, []string{"a"}, "0 of 1 nodes are updated, 1 are up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Next(2, tt.max, tt.nodes, tt.admitted)
			if !slices.Equal(d.Admitted, tt.want) || d.Message != tt.message {
				t.Errorf("%+v, want %v and %q", d, tt.want, tt.message)
			}
		})
	}
}

// Played to the end with nodes that fail at random: never are more than
// allowed being exchanged or down, and every node is updated, or the rollout
// is halted with at most as many failures as were admitted at a time.
func TestNextPlayed(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		n, limit := 1+r.IntN(30), 1+r.IntN(5)
		nodes := make([]Node, n)
		for i := range nodes {
			nodes[i] = Node{Name: fmt.Sprintf("n%02d", i), Up: true, Running: 1}
		}
		bad := -1
		if r.IntN(2) == 0 {
			bad = r.IntN(n)
		}
		var admitted []string
		done := false
		for range 10 * n {
			d := Next(2, intstr.FromInt32(int32(limit)), nodes, admitted)
			if reflect.DeepEqual(d.Admitted, admitted) && len(d.Admitted) == 0 {
				done = true
				break
			}
			if len(d.Admitted) > limit {
				t.Fatalf("seed %d: %d admitted, %d are allowed", seed, len(d.Admitted), limit)
			}
			admitted = d.Admitted
			// Some of them come to an end.
			for i := range nodes {
				if slices.Contains(admitted, nodes[i].Name) && r.IntN(2) == 0 {
					if i == bad {
						nodes[i].Rejected = 2
					} else {
						nodes[i].Running = 2
					}
				}
			}
		}
		updated := 0
		for _, node := range nodes {
			if node.Running == 2 {
				updated++
			}
		}
		if !done || (bad < 0 && updated != n) || (bad >= 0 && nodes[bad].Rejected != 2) {
			t.Fatalf("seed %d: done %v, %d of %d updated, bad %d", seed, done, updated, n, bad)
		}
	}
}
