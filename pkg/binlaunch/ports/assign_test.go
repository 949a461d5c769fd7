package ports

import (
	"testing"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

func TestAssign(t *testing.T) {
	tcp := func(n int32) Port { return Port{n, v1alpha1.ProtocolTCP} }
	three := Range{31000, 31002}
	for _, tt := range []struct {
		name     string
		want     []v1alpha1.Port
		view     View
		got      []int32 // for dynamic ports 0: any of the range
		conflict string
	}{
		{"fixed", []v1alpha1.Port{{Name: "a", Port: 9100, Protocol: "TCP"}}, View{}, []int32{9100}, ""},
		{"the other protocol does not count", []v1alpha1.Port{{Name: "a", Port: 9100, Protocol: "TCP"}},
			View{Claims: []Claim{{Port{9100, "UDP"}, "task x"}}}, []int32{9100}, ""},
		{"claimed by a pod", []v1alpha1.Port{{Name: "a", Port: 80, Protocol: "TCP"}},
			View{Claims: []Claim{{tcp(80), "pod shop/web-1"}}}, nil, "port 80/TCP belongs to pod shop/web-1"},
		{"listened on", []v1alpha1.Port{{Name: "a", Port: 80, Protocol: "TCP"}},
			View{Listeners: []Listener{{tcp(80), 7}}}, nil, "port 80/TCP is taken by process 12 (nginx)"},
		{"dynamic", []v1alpha1.Port{{Name: "a", Protocol: "TCP"}, {Name: "b", Protocol: "TCP"}}, View{Range: three}, []int32{0, 0}, ""},
		{"dynamic round what is taken", []v1alpha1.Port{{Name: "a", Protocol: "TCP"}},
			View{Range: three, Claims: []Claim{{tcp(31000), "x"}}, Listeners: []Listener{{tcp(31001), 1}}}, []int32{31002}, ""},
		{"the same as before", []v1alpha1.Port{{Name: "a", Protocol: "TCP"}},
			View{Range: Range{31000, 32000}, Before: map[string]int32{"a": 31999}}, []int32{31999}, ""},
		{"not the one before when it is taken", []v1alpha1.Port{{Name: "a", Protocol: "TCP"}},
			View{Range: Range{31999, 32000}, Before: map[string]int32{"a": 31999}, Claims: []Claim{{tcp(31999), "x"}}}, []int32{32000}, ""},
		{"not the one before when the range moved", []v1alpha1.Port{{Name: "a", Protocol: "TCP"}},
			View{Range: Range{31002, 31002}, Before: map[string]int32{"a": 30000}}, []int32{31002}, ""},
		{"dynamic beside fixed of the range", []v1alpha1.Port{{Name: "a", Protocol: "TCP"}, {Name: "b", Port: 31001, Protocol: "TCP"}},
			View{Range: Range{31001, 31002}}, []int32{31002, 31001}, ""},
		{"full", []v1alpha1.Port{{Name: "a", Protocol: "TCP"}},
			View{Range: Range{31000, 31000}, Claims: []Claim{{tcp(31000), "x"}}}, nil, "no TCP port is free in 31000-31000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, c := Assign("seed", tt.want, tt.view)
			if tt.conflict != "" {
				if c == nil || c.Sentence("process 12 (nginx)") != tt.conflict {
					t.Fatalf("got %v and conflict %+v, want %s", got, c, tt.conflict)
				}
				return
			}
			if c != nil || len(got) != len(tt.got) {
				t.Fatalf("got %v and conflict %+v", got, c)
			}
			for i, want := range tt.got {
				inRange := got[i] >= tt.view.Range.First && got[i] <= tt.view.Range.Last
				if (want != 0 && got[i] != want) || (want == 0 && !inRange) {
					t.Errorf("got %v, want %v", got, tt.got)
				}
			}
			if len(got) == 2 && got[0] == got[1] {
				t.Errorf("one port twice: %v", got)
			}
		})
	}
}
