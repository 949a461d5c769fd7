package fetch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
)

// onOwnThread runs f on a thread that is thrown away afterwards, with all that
// f did to it: its root, its namespaces, its no_new_privs.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread cannot be thrown away. While it is
			// held here another one is used.
			done <- onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// jail is what a confined process finds in its root.
type jail struct {
	root       string            // an empty folder to build it on
	dest       string            // what it may fill
	executable string            // the program it is
	etc        map[string][]byte // the files in /etc
}

// program is where the jail's own executable is.
const program = "/" + pull.Name

// enter makes the jail the root of this thread, and of what it starts. All of
// it lives in a mount namespace of its own, so that nothing has to be taken
// down. The thread is of no use for anything else afterwards.
func (j jail) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot make a mount namespace (is the agent root, with CAP_SYS_ADMIN?): %w", err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"keep mounts to itself", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mount its root", func() error {
			return unix.Mount("tmpfs", j.root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=8m,nr_inodes=64")
		}},
		{"fill its root", j.fill},
		{"bind its program", func() error { return j.bind(j.executable, program, unix.MS_RDONLY) }},
		{"bind its folder", func() error { return j.bind(j.dest, pull.Dest, unix.MS_NOEXEC) }},
		{"seal its root", func() error {
			return unix.Mount("", j.root, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
		}},
		{"enter its root", j.pivot},
		{"set no_new_privs", func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("cannot confine the process that fetches: cannot %s: %w", step.what, err)
		}
	}
	return nil
}

// fill makes what is not mounted.
func (j jail) fill() error {
	if err := errors.Join(os.Mkdir(j.root+pull.Dest, 0o755), os.WriteFile(j.root+program, nil, 0o755)); err != nil {
		return err
	}
	for name, content := range j.etc {
		path := filepath.Join(j.root, pull.Etc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o444); err != nil {
			return err
		}
	}
	return nil
}

func (j jail) bind(from, to string, flags uintptr) error {
	to = j.root + to
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|flags, "")
}

// pivot makes root the root, and takes the old one away.
func (j jail) pivot() error {
	if err := unix.Chdir(j.root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil { // the old one on top, see pivot_root(2)
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// etcFiles reads the files that name resolution and TLS need. One that is not
// there is left out, as on a node without it.
func etcFiles() map[string][]byte {
	out := map[string][]byte{}
	for _, name := range []string{"resolv.conf", "hosts", "nsswitch.conf"} {
		if b, err := os.ReadFile(filepath.Join("/etc", name)); err == nil {
			out[name] = b
		}
	}
	// Where distributions keep their roots; in the jail it is always Debian's
	// place, which crypto/x509 tries first.
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
	} {
		if b, err := os.ReadFile(path); err == nil {
			out["ssl/certs/ca-certificates.crt"] = b
			break
		}
	}
	return out
}
