package main

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
	"github.com/nodeagent/nodeagent/pkg/disk"
)

// TestChooseMeter holds the choice against what is known of kernels: before 6.5
// an overlay raises no events, so there the layers must be walked. On later
// ones the file system decides.
func TestChooseMeter(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	cfg := &v1alpha1.Config{HostRoot: "/"}
	meter, events, err := chooseMeter(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if events != nil {
		defer events.Close()
	}
	_, walks := meter.(*disk.Walker)
	if walks != (events == nil) {
		t.Errorf("the meter is a %T beside events %v", meter, events)
	}
	if silent := major < 6 || (major == 6 && minor < 5); silent && !walks {
		t.Errorf("a %T on %s, which raises no events on overlays", meter, release)
	}
	if says := checkMeter(cfg)[0]; strings.HasPrefix(says.text, "walk") != walks {
		t.Errorf("check says %q, the agent takes a %T", says.text, meter)
	}
}

// TestMethodWalk: the setting wins over what the kernel can.
func TestMethodWalk(t *testing.T) {
	cfg := v1alpha1.DefaultConfig()
	cfg.Disk.Method = v1alpha1.MethodWalk
	meter, events, err := chooseMeter(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, walks := meter.(*disk.Walker); !walks || events != nil {
		t.Errorf("the meter is a %T beside events %v", meter, events)
	}
	if says := checkMeter(cfg)[0]; says.text != "walk: below "+containerdRoot+": disk.method says so" {
		t.Errorf("check says %q", says.text)
	}
}
