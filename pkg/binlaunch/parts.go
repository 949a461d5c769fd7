package binlaunch

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// Fetcher gets a Binary's artifacts into the node's store, verified.
type Fetcher interface {
	// Get may be called again for what is there already; then it costs next to
	// nothing. An error is a *RefusedError where another call is of no use, and a
	// *WrongError where it costs as much as this one. pins are what insecure artifacts were the last time. progress
	// may be called often; it must not block.
	Get(ctx context.Context, owner string, artifacts []v1alpha1.Artifact, pins []string, progress func(done, total int64)) (Program, error)
	// Release gives a program back that Get has claimed for the owner.
	Release(p Program, owner string)
	// Sweep gives back what is claimed by owners that are no more.
	Sweep(owned func(owner string) bool) error
}

// Program is what was fetched. It stays in the store until Release, whichever
// agent calls that: owner names the claim.
type Program struct {
	Digest   string   // of all artifacts together
	Folder   string   // its files, read-only
	Verified []string // how, for each artifact: sha256, sha512, signed by KEY, insecure
	Pins     []string // each artifact's own SHA-256 in hex
	Changed  string   // says which insecure one is another than its pin
	Phases   map[string]time.Duration
}

// Launcher starts processes that outlive the agent.
type Launcher interface {
	Start(ctx context.Context, l Launch) (Task, Record, error)
	// Attach finds what earlier agents started and what has not been
	// forgotten, whether it runs still or ended meanwhile.
	Attach(ctx context.Context) ([]Task, error)
}

// Launch is one process to be started.
type Launch struct {
	ID      string // unique for ever: NAME.RANDOM
	Name    string // of the Binary
	Program Program
	Command []string
	Env     map[string]string // PATH, HOME and the like are the launcher's
	Sockets []Socket          // passed as systemd passes them
	Shut    Shut
}

// Shut is how a task is shut in: of a defaulted spec what the launcher enforces.
type Shut struct {
	Resources   v1alpha1.Resources
	Rlimits     []v1alpha1.Rlimit
	User        string
	Network     v1alpha1.Network
	Profile     v1alpha1.Profile
	Enforcement v1alpha1.Enforcement
}

func shutOf(s *v1alpha1.BinarySpec) Shut {
	return Shut{
		Resources: s.Resources, Rlimits: s.Rlimits, User: s.User, Network: s.Network, Profile: s.Profile, Enforcement: s.Enforcement,
	}
}

// Socket is a listening socket with its name in LISTEN_FDNAMES.
type Socket struct {
	Name string
	File *os.File // the caller's; the launcher passes a copy
}

// Record is what is kept of a launch.
type Record struct {
	Enforced    []string
	NotEnforced []string
	Phases      map[string]time.Duration
}

// Task is one process with all its children.
type Task interface {
	ID() string
	Pid() int
	Started() time.Time
	// Wait returns when the process has ended.
	Wait(ctx context.Context) (Exit, error)
	// Stop ends it: SIGTERM, grace, the kill of the cgroup. It returns nil
	// only when the cgroup is proved empty.
	Stop(ctx context.Context, grace time.Duration) error
	Stats() (Stats, error)
	// Output opens what it wrote, oldest first.
	Output(follow bool) (io.ReadCloser, error)
	// Forget removes what is left of a task that ended.
	Forget(ctx context.Context) error
}

// Exit is how a process ended.
type Exit struct {
	Code      int    // -1: by a signal
	Signal    string // SIGSEGV
	OOMKilled bool
	Reason    string // what ended it, if not itself
	At        time.Time
}

// Stats is what a task's cgroup has counted. A figure that the kernel does not
// give is nil.
type Stats struct {
	CPU         *time.Duration // used since the start
	Throttled   *time.Duration
	Memory      *int64 // bytes
	Pids        *int64
	ReadBytes   *int64
	WriteBytes  *int64
	OOMKills    *int64
	CPUStall    *time.Duration // some task waited for it: the kernel's pressure
	MemoryStall *time.Duration
	IOStall     *time.Duration
}

// RefusedError says that a Binary can never run here as it is written.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns why.
func (e *RefusedError) Unwrap() error { return e.Err }

// WrongError says that a source sent something else than what was asked for.
type WrongError struct{ Err error }

func (e *WrongError) Error() string { return e.Err.Error() }

// Unwrap returns why.
func (e *WrongError) Unwrap() error { return e.Err }

func refused(err error) bool {
	var r *RefusedError
	return errors.As(err, &r)
}
