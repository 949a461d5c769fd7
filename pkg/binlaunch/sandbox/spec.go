package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/binlaunch/cgroup"
)

// Profile is how much of the host a task sees.
type Profile string

// The profiles.
const (
	// Isolated sees the host's programs and libraries (/usr) and nothing else
	// of it, and is alone in its pid, user, mount, ipc and uts namespaces.
	Isolated Profile = "isolated"
	// HostObserver sees all of the host's files, /proc and /sys, read-only,
	// with the rights of a user that owns nothing.
	HostObserver Profile = "host-observer"
	// Privileged is root on the host in a cgroup. The agent must allow it.
	Privileged Profile = "privileged"
)

// Spec is one process to be started.
type Spec struct {
	ID      string   // unique for ever: letters, digits, '.', '_', '-'
	Dir     string   // the sandbox folder, absolute; made if missing, the task's to write
	Root    string   // a folder whose files the task sees in its sandbox, read-only; "": none
	Command []string // relative to the sandbox, or found in PATH
	Env     []string // NAME=value, above what the launcher sets
	// User is "" for a uid of the task's own, "root" (which isolated means root
	// of a user namespace that maps to a uid of its own), a number, UID:GID, or
	// a name in the host's /etc/passwd.
	User           string
	Profile        Profile // "": Isolated
	Resources      Resources
	Rlimits        []Rlimit
	Ports          []Port     // told in PORT0, PORT_NAME, PORTS
	Files          []*os.File // listening sockets: descriptors 3 and on (sd_listen_fds)
	FileNames      []string   // their names (LISTEN_FDNAMES)
	Output         Output
	PrivateNetwork bool // loopback alone
	BestEffort     bool // what cannot be enforced is told in the Record and no failure
}

// Resources are limits; zero means none.
type Resources struct {
	CPU    int64 // thousandths of a core
	Memory int64 // bytes, without swap
	Pids   int64 // processes and threads
	Disk   int64 // bytes allocated in Dir
	CPUs   string
	Mems   string
	IO     []cgroup.IO
}

// Rlimit is one of setrlimit(2), by its name without RLIMIT_, in lower case.
type Rlimit struct {
	Name       string
	Soft, Hard uint64
}

// Port is a port that the task was given.
type Port struct {
	Name   string
	Number int
}

// Output bounds what is kept of standard output and standard error together.
type Output struct {
	MaxBytes int64 // of one file; 0: 10 MB
	Files    int   // 0: 5
}

const (
	defaultOutputBytes = 10_000_000
	defaultOutputFiles = 5
)

func (s Spec) defaulted() Spec {
	if s.Profile == "" {
		s.Profile = Isolated
	}
	if s.Output.MaxBytes <= 0 {
		s.Output.MaxBytes = defaultOutputBytes
	}
	if s.Output.Files <= 0 {
		s.Output.Files = defaultOutputFiles
	}
	return s
}

func (s Spec) validate(allowPrivileged bool) error {
	switch {
	case !validID(s.ID):
		return fmt.Errorf("the id %q must be 1 to 128 letters, digits, '.', '_', '-'", s.ID)
	case !clean(s.Dir):
		return fmt.Errorf("the sandbox folder %q must be an absolute path without ':', ',' and line breaks", s.Dir)
	case s.Root != "" && !clean(s.Root):
		return fmt.Errorf("the program's folder %q must be an absolute path without ':', ',' and line breaks", s.Root)
	case len(s.Command) == 0 || s.Command[0] == "":
		return errors.New("there is no command")
	case s.Profile != Isolated && s.Profile != HostObserver && s.Profile != Privileged:
		return fmt.Errorf("there is no profile %q: isolated, host-observer or privileged", s.Profile)
	case s.Profile == Privileged && !allowPrivileged:
		return errors.New("the profile privileged is not allowed by the agent's configuration")
	case len(s.FileNames) > 0 && len(s.FileNames) != len(s.Files):
		return errors.New("each passed socket needs a name, or none")
	}
	for _, e := range append(s.Env, s.Command...) {
		if strings.ContainsRune(e, 0) {
			return errors.New("command and environment must not hold a zero byte")
		}
	}
	return nil
}

// validID: it names folders and a cgroup.
func validID(id string) bool {
	if len(id) == 0 || len(id) > 128 || strings.ContainsRune("._-", rune(id[0])) {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-", rune(c)) {
			return false
		}
	}
	return true
}

// clean: overlayfs takes its folders as one string of options.
func clean(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && !strings.ContainsAny(path, ":,\\\n\x00")
}
