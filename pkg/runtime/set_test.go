package runtime

import (
	"errors"
	"testing"
	"time"
)

func TestSettle(t *testing.T) {
	failed := errors.New("no answer")
	seen := Container{ID: "c1", Namespace: "k8s.io", PID: 8, Layer: Layer{"overlayfs", "k", "/r/9/fs", ""}}
	before := Container{ID: "c1", Namespace: "k8s.io", PID: 7, Layer: Layer{"overlayfs", "k", "/r/9/fs", ""}}
	with := func(c Container, change func(*Container)) Container { change(&c); return c }
	noUpper := with(seen, func(c *Container) { c.Layer.Upper = "" })
	noPID := with(seen, func(c *Container) { c.PID = 0 })

	for _, c := range []struct {
		name     string
		previous *Container
		finding  finding
		want     *Container
	}{
		{"new", nil, finding{container: seen}, &seen},
		{"changed", &before, finding{container: seen}, &seen},
		{"gone", &before, finding{gone: true}, nil},
		{"gone before it was known", nil, finding{gone: true}, nil},
		{"no answer at all: kept", &before, finding{recordErr: failed}, &before},
		{"no answer at all, never known", nil, finding{recordErr: failed}, nil},
		{"no layer: kept", &before, finding{container: noUpper, layerErr: failed}, &seen},
		{"no layer, never known: not yet", nil, finding{container: noUpper, layerErr: failed}, nil},
		{"no layer, and the known one is another", &before,
			finding{container: with(noUpper, func(c *Container) { c.Layer.Key = "other" }), layerErr: failed}, nil},
		{"hung shim: the pid is kept", &before, finding{container: noPID, processErr: failed}, &before},
		{"hung shim, never known: its layer counts", nil, finding{container: noPID, processErr: failed}, &noPID},
		{"no task", &before, finding{container: noPID}, &noPID},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ref{"k8s.io", "c1"}
			c.finding.ref = r
			old := set{}
			if c.previous != nil {
				old[r] = *c.previous
			}
			for name, next := range map[string]set{
				"relisted": old.relisted([]finding{c.finding}),
				"reloaded": old.reloaded([]finding{c.finding}),
			} {
				got, ok := next[r]
				if ok != (c.want != nil) || (ok && !got.Equal(*c.want)) {
					t.Errorf("%s: %+v, %t; want %+v", name, got, ok, c.want)
				}
			}
		})
	}
}

func TestRelistedForgetsAndReloadedKeeps(t *testing.T) {
	a, b := ref{"default", "a"}, ref{"k8s.io", "b"}
	old := set{a: {ID: "a", Namespace: "default"}, b: {ID: "b", Namespace: "k8s.io"}}
	found := []finding{{ref: b, container: old[b]}}
	if next := old.relisted(found); len(next) != 1 {
		t.Errorf("after a full list %v; want b alone", next)
	}
	if next := old.reloaded(found); len(next) != 2 {
		t.Errorf("after a look at b %v; want both", next)
	}
	if len(old) != 2 {
		t.Errorf("the old set was changed: %v", old)
	}
}

func TestSorted(t *testing.T) {
	want := []Container{
		{Namespace: "default", ID: "z"},
		{Namespace: "k8s.io", ID: "0"},
		{Namespace: "k8s.io", ID: "9", Pod: Pod{"a", "web", "1"}, Name: "app"},
		{Namespace: "k8s.io", ID: "3", Pod: Pod{"a", "web", "1"}, Name: "log"},
		{Namespace: "k8s.io", ID: "4", Pod: Pod{"a", "web", "1"}, Name: "log"},
		{Namespace: "k8s.io", ID: "1", Pod: Pod{"a", "web", "2"}},
		{Namespace: "k8s.io", ID: "2", Pod: Pod{"b", "app", "0"}},
	}
	for range 20 { // map order is random
		s := set{}
		for _, c := range want {
			s[ref{c.Namespace, c.ID}] = c
		}
		for i, c := range s.sorted() {
			if !c.Equal(want[i]) {
				t.Fatalf("at %d is %+v; want %+v", i, c, want[i])
			}
		}
	}
}

func TestBoardWakesForChangesAlone(t *testing.T) {
	woken := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	one := []Container{{ID: "a", Mounts: []Mount{{"/d", "/s"}}}}
	other := []Container{{ID: "a", Mounts: []Mount{{"/d", "/t"}}}}
	b, start := newBoard(), time.Unix(1, 0)
	for _, step := range []struct {
		name string
		post Snapshot
		want bool
	}{
		{"never listed", Snapshot{}, false},
		{"listed, nothing there", Snapshot{Confirmed: start, Connected: true}, true},
		{"listed again", Snapshot{Confirmed: start.Add(1), Connected: true}, false},
		{"a container", Snapshot{Containers: one, Confirmed: start, Connected: true}, true},
		{"its mounts changed", Snapshot{Containers: other, Confirmed: start, Connected: true}, true},
		{"containerd went", Snapshot{Containers: other, Confirmed: start}, true},
		{"still away", Snapshot{Containers: other, Confirmed: start}, false},
	} {
		changed := b.wait()
		b.post(step.post)
		if got := woken(changed); got != step.want {
			t.Errorf("%s: woken %t, want %t", step.name, got, step.want)
		}
	}
}

func TestKnownIsNotAskedAgain(t *testing.T) {
	listed := Container{ID: "a", Namespace: "k8s.io", Image: "one", Layer: Layer{Snapshotter: "overlayfs", Key: "a"}}
	whole := listed
	whole.PID, whole.Layer.Upper = 7, "/upper"
	for _, c := range []struct {
		name   string
		known  func(*Container)
		wanted bool
	}{
		{"whole", func(*Container) {}, true},
		{"no process yet", func(k *Container) { k.PID = 0 }, true},
		{"layer not found yet", func(k *Container) { k.Layer.Upper = "" }, false},
		{"a layer without a folder", func(k *Container) { k.Layer.Upper, k.Layer.Source = "", "/disk.img" }, true},
		{"another layer", func(k *Container) { k.Layer.Key = "b" }, false},
		{"another record", func(k *Container) { k.Image = "two" }, false},
	} {
		known := whole
		c.known(&known)
		f := finding{ref: ref{"k8s.io", "a"}, container: listed}
		if got := (set{f.ref: known}).completes(&f); got != c.wanted || got && !f.container.Equal(known) {
			t.Errorf("%s: completed %v, want %v: %+v", c.name, got, c.wanted, f.container)
		}
		if !c.wanted && !f.container.Equal(listed) {
			t.Errorf("%s: the finding was changed: %+v", c.name, f.container)
		}
	}
	if f := (finding{ref: ref{"k8s.io", "b"}}); (set{}).completes(&f) {
		t.Error("a container that is not known was completed")
	}
}
