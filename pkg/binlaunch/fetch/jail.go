package fetch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/fetch/pull"
)

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
	p, err := takeProgram(j.executable)
	if err != nil {
		return fmt.Errorf("cannot confine the process that fetches: cannot take its program %s (is the agent root, with CAP_SYS_ADMIN?): %w", j.executable, err)
	}
	defer p.close()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot make a mount namespace (is the agent root, with CAP_SYS_ADMIN?): %w", err)
	}
	unix.Umask(0o022) // this thread's alone since it has a mount namespace
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"keep mounts to itself", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mount its root", func() error {
			return unix.Mount("tmpfs", j.root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=0755,size=%d,nr_inodes=64", 8<<20+p.copy))
		}},
		{"fill its root", j.fill},
		{"bring its program", func() error { return p.bring(j.root + program) }},
		{"bind its folder", j.bindFolder},
		{"seal its root", j.seal},
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

func (j jail) bindFolder() error {
	to := j.root + pull.Dest
	if err := unix.Mount(j.dest, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return remount(to, unix.MS_NOEXEC)
}

func remount(path string, flags uintptr) error {
	return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|flags, "")
}

// seal makes the root read-only. A process that another thread is starting
// right now may hold copies of the descriptors through which it was filled, for
// as long as it has not executed its own program.
func (j jail) seal() error {
	for try := 0; ; try++ {
		err := unix.Mount("", j.root, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
		if !errors.Is(err, unix.EBUSY) || try == 1000 {
			return err
		}
		time.Sleep(time.Millisecond)
	}
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
