package sandbox

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/keeper/plan"
)

var whole = facts{userNS: true, landlock: 6, sealable: true}

func planned(t *testing.T, s Spec, f facts) built {
	t.Helper()
	b, err := build(s.defaulted(), places{view: "/v", sandbox: "/s", work: "/s.work", program: s.Root, etc: "/e"}, f, true, 5000, []byte{1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProfiles(t *testing.T) {
	for _, c := range []struct {
		profile Profile
		want    func(p plan.Plan) bool
	}{
		{Isolated, func(p plan.Plan) bool {
			return p.OwnPids && p.OwnUser && p.ReadOnlyProc && p.NoNewPrivs && p.Caps == 0 && p.UID == 5000 && p.Seccomp != nil && p.Landlock.HandledFS != 0
		}},
		{HostObserver, func(p plan.Plan) bool {
			return p.OwnPids && !p.OwnUser && p.NoNewPrivs && p.Caps == 0 && p.UID == 5000 && p.Seccomp != nil && p.Landlock.HandledFS != 0
		}},
		{Privileged, func(p plan.Plan) bool {
			return !p.OwnPids && !p.OwnUser && !p.NoNewPrivs && p.Caps == ^uint64(0) && p.UID == 0 && p.Seccomp == nil && p.Landlock.HandledFS == 0
		}},
	} {
		if b := planned(t, Spec{ID: "x", Command: []string{"x"}, Profile: c.profile}, whole); !c.want(b.plan) || len(b.missing) > 0 {
			t.Errorf("%s: %+v, missing %q", c.profile, b.plan, b.missing)
		}
	}
}

func TestNamespaces(t *testing.T) {
	for profile, want := range map[Profile]uintptr{
		Isolated:     unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		HostObserver: unix.CLONE_NEWNS | unix.CLONE_NEWIPC,
		Privileged:   unix.CLONE_NEWNS,
	} {
		s := Spec{ID: "x", Command: []string{"x"}, Profile: profile}
		if p := prelude(s, places{view: "/v"}, whole); p.Unshare != want {
			t.Errorf("%s: %x, want %x", profile, p.Unshare, want)
		}
		s.PrivateNetwork = true
		if p := prelude(s, places{view: "/v"}, whole); p.Unshare != want|unix.CLONE_NEWNET {
			t.Errorf("%s with a network of its own: %x, want %x", profile, p.Unshare, want|unix.CLONE_NEWNET)
		}
	}
}

func TestWhatThisNodeLacks(t *testing.T) {
	b := planned(t, Spec{ID: "x", Command: []string{"x"}}, facts{})
	if len(b.missing) != 1 || !strings.Contains(b.missing[0], "user namespace") || len(b.absent) != 1 {
		t.Errorf("isolated: missing %q, absent %q", b.missing, b.absent)
	}
	b = planned(t, Spec{ID: "x", Command: []string{"x"}, Profile: HostObserver}, facts{userNS: true})
	if len(b.missing) != 1 || !strings.Contains(b.missing[0], "read-only") {
		t.Errorf("host-observer: missing %q", b.missing)
	}
}

// The defaults that docs/launch.md tells of.
func TestDefaults(t *testing.T) {
	if s := (Spec{}).defaulted(); s.Profile != Isolated || s.Output.MaxBytes != 10_000_000 || s.Output.Files != 5 {
		t.Errorf("%+v", s)
	}
}

func TestRootOfAnIsolatedTaskIsNobodyOnTheHost(t *testing.T) {
	p := planned(t, Spec{ID: "x", Command: []string{"x"}, User: "root"}, whole).plan
	if p.UID != 5000 || p.GID != 5000 || p.InnerUID != 0 || p.InnerGID != 0 {
		t.Errorf("%+v", p)
	}
}

func TestEnvironment(t *testing.T) {
	got := environment(Spec{ID: "i", Env: []string{"A=1", "PATH=/mine", "A=2", "LISTEN_FDS=9"}, Ports: []Port{{"a-b", 7}}, FileNames: []string{"x", "y"}}, "/s", true)
	want := []string{
		"HOME=/s", "PWD=/s", "TMPDIR=/tmp", "MESOS_SANDBOX=/s", "MESOS_DIRECTORY=/s", "MESOS_TASK_ID=i",
		"PORT0=7", "PORT_A_B=7", "PORT=7", "PORTS=7", "LISTEN_FDNAMES=x:y", "PATH=/mine", "A=2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestLandlockByABI(t *testing.T) {
	for abi, want := range map[int]plan.Landlock{
		0: {},
		1: {HandledFS: 1<<13 - 1},
		3: {HandledFS: 1<<15 - 1},
		5: {HandledFS: 1<<16 - 1},
		6: {HandledFS: 1<<16 - 1, Scoped: 3},
	} {
		got := landlock(abi, "/s")
		for _, r := range got.Rules {
			if r.Access&^got.HandledFS != 0 {
				t.Errorf("ABI %d: the rule for %s allows what is not handled", abi, r.Path)
			}
		}
		got.Rules = nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("ABI %d: %+v, want %+v", abi, got, want)
		}
	}
}
