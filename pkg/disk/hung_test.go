//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/runtime"
)

// TestHungFileSystem: a file system that does not answer, as an NFS server that
// is away, holds up no look at another. It is a real one: FUSE, whose server
// never says a word, in a mount namespace of its own so that nothing else on
// this machine meets it.
func TestHungFileSystem(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	if os.Getenv("HUNG") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHungFileSystem$", "-test.count=1")
		cmd.Env = append(os.Environ(), "HUNG=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for name, meter := range map[string]func(*testing.T) Meter{
		"walk":   func(*testing.T) Meter { return NewWalker("/") },
		"events": func(t *testing.T) Meter { return openEvents(t) },
	} {
		t.Run(name, func(t *testing.T) { hungFileSystem(t, meter(t)) })
	}
}

func hungFileSystem(t *testing.T, meter Meter) {
	dir := t.TempDir()
	hung, sound := filepath.Join(dir, "hung"), filepath.Join(dir, "sound")
	for _, d := range []string{hung, sound} {
		must(t, os.Mkdir(d, 0o755))
	}
	server, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	answer := sync.OnceFunc(func() { // the kernel gives up on a server that is gone
		must(t, unix.Close(server))
		must(t, unix.Unmount(hung, unix.MNT_DETACH))
	})
	t.Cleanup(answer)
	must(t, unix.Mount("silent", hung, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server)))

	var containers []runtime.Container
	add := func(upper string) {
		id := fmt.Sprint(len(containers))
		c := container("p"+id, "u-"+id, "app", id)
		c.Layer = runtime.Layer{Snapshotter: "overlayfs", Key: id, Upper: upper}
		containers = append(containers, c)
	}
	for range 2 * slots { // more than may be looked at there at once
		add(filepath.Join(hung, fmt.Sprint(len(containers))))
	}
	add(sound)
	w, err := NewWatcher(Options{
		Containers: func() []runtime.Container { return containers }, Meter: meter, Policy: DefaultPolicy(),
		Interval: 100 * time.Millisecond, Registerer: prometheus.NewRegistry(),
	})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for round := range 5 {
		write(t, filepath.Join(sound, "log"), (round+1)*100_000)
		want := du(t, sound).Bytes
		for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			v := w.Verdicts()
			if len(v) == 1 && v[0].Usage.Bytes == want {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("round %d: %d containers are measured, want the sound one alone with %d bytes: %+v", round, len(v), want, v)
			}
		}
	}
	w.mu.Lock()
	running := 0
	for _, p := range w.places {
		if !p.started.IsZero() && below(p.id.folder, hung) {
			running++
		}
	}
	w.mu.Unlock()
	if running == 0 || running > slots {
		t.Errorf("%d looks hang, want from 1 to %d", running, slots)
	}
	answer()
	stop()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(2 * stopGrace):
		t.Error(errors.New("the watcher does not end"))
	}
}
