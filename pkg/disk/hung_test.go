//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	if elsewhere(t) {
		return
	}
	for name, meter := range map[string]func(*testing.T) Meter{
		"walk":   func(*testing.T) Meter { return NewWalker("/") },
		"events": func(t *testing.T) Meter { return openEvents(t) },
	} {
		t.Run(name, func(t *testing.T) { hungFileSystem(t, meter(t)) })
	}
}

// elsewhere runs the test that calls it in a mount namespace of its own. It
// returns false there.
func elsewhere(t *testing.T) bool {
	t.Helper()
	if os.Getenv("HUNG") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), "HUNG=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return true
	}
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	return false
}

// silentFileSystem mounts one whose server never says a word, until answer is
// called.
func silentFileSystem(t *testing.T, hung string) (answer func()) {
	t.Helper()
	server, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	answer = sync.OnceFunc(func() { // the kernel gives up on a server that is gone
		must(t, unix.Close(server))
		must(t, unix.Unmount(hung, unix.MNT_DETACH))
	})
	t.Cleanup(answer)
	must(t, unix.Mount("silent", hung, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server)))
	return answer
}

// TestHungOpenFile: a container that has a file open on a file system that does
// not answer, under a name that looks like a deleted one's, costs no container
// its figure, nor itself. Where its own places are on that file system, it has
// no figure, is told of as failed, and the others have theirs.
func TestHungOpenFile(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	if elsewhere(t) {
		return
	}
	var root string
	for _, root = range hierarchies(t) {
		break
	}
	top := makeCgroup(t, filepath.Join(root, fmt.Sprintf("nodeagent-test-%d", os.Getpid())))
	dir := newOverlay(t, "ext4", nil).backing
	hung := filepath.Join(t.TempDir(), "hung (deleted)")
	must(t, os.Mkdir(hung, 0o755))
	answer := silentFileSystem(t, hung)
	var st unix.Stat_t
	must(t, unix.Stat(dir, &st))
	var holders []Holder
	for i, id := range []string{"evil", "sound"} {
		group := makeCgroup(t, filepath.Join(top, id))
		p := startHolder(t, group)
		if i == 0 {
			p.do("path " + hung)
		}
		file := filepath.Join(dir, id)
		write(t, file, 1<<20)
		p.do("open " + file)
		must(t, os.Remove(file))
		t.Cleanup(answer) // before its end: what hangs in the kernel ends no sooner
		holders = append(holders, Holder{
			Container: runtime.Container{Namespace: "k8s.io", ID: id, Cgroup: strings.TrimPrefix(group, root)}, Devices: []uint64{st.Dev},
		})
	}
	scanner := NewOpenFileScanner("/proc")
	scan := func() []OpenFiles {
		t.Helper()
		done := make(chan []OpenFiles, 1)
		go func() {
			found, err := scanner.Scan(t.Context(), holders)
			if err != nil {
				t.Error(err)
			}
			done <- found
		}()
		select {
		case found := <-done:
			return found
		case <-time.After(time.Minute):
			t.Fatal("the scan hangs")
			return nil
		}
	}
	want := Usage{Bytes: 1 << 20, Inodes: 1}
	has := func(f OpenFiles) bool { return f.Err == nil && f.Held[st.Dev] == want }
	if found := scan(); !has(found[0]) || !has(found[1]) {
		t.Errorf("a file system that is not watched was asked: %+v", found)
	}

	all, err := readMounts("/proc")
	must(t, err)
	holders[0].Devices = append(holders[0].Devices, all.of(hung).device)
	for range 3 {
		found := scan()
		if found[0].Err == nil || !strings.Contains(found[0].Err.Error(), "does not answer") || !has(found[1]) {
			t.Errorf("a file system that is watched and hangs: %+v", found)
		}
	}
	if n := hanging(scanner.watchdog); n != 2 { // the file system and the container
		t.Errorf("%d names hang, want 2", n)
	}
	answer()
	for deadline := time.Now().Add(time.Minute); hanging(scanner.watchdog) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what hung is not forgotten")
		}
	}
	if found := scan(); !has(found[0]) || !has(found[1]) {
		t.Errorf("when it answers again: %+v", found)
	}
}

func hanging(d *watchdog) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.hung)
}

func hungFileSystem(t *testing.T, meter Meter) {
	dir := t.TempDir()
	hung, sound := filepath.Join(dir, "hung"), filepath.Join(dir, "sound")
	for _, d := range []string{hung, sound} {
		must(t, os.Mkdir(d, 0o755))
	}
	answer := silentFileSystem(t, hung)

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
		for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			want := du(t, sound).Bytes // each time: what is written back may take other blocks
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
